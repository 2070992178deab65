"""Finds images: below an S3 prefix, in a folder, or in a list with one image a line."""

from __future__ import annotations

import codecs
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from maskq import s3
from maskq.contract.image_formats import IMAGE_SUFFIXES
from maskq.contract.locations import S3Uri, is_url
from maskq.errors import InvalidRequest
from maskq.settings import Settings

STDIN = "-"


@dataclass(frozen=True, slots=True)
class InvalidEntry:
    """An entry that is not an image, and why."""

    name: str
    error: InvalidRequest


Found = str | InvalidEntry
Connect = Callable[[], Any]  # makes a client of the object store


def images_of(
    sources: Sequence[str], settings: Settings, output_prefix: str | None = None
) -> Iterator[Found]:
    """As `images_in`, with the settings' object store. output_prefix: where else outputs go."""
    outputs = [S3Uri(settings.s3_bucket, settings.output_prefix)]
    if output_prefix:
        outputs.append(_folder_in_s3(output_prefix))
    connect = partial(s3.connect, settings.s3_endpoint_url, addressing=settings.s3_addressing)
    return images_in(sources, connect, outputs)


def images_in(
    sources: Sequence[str], connect: Connect, outputs: Sequence[S3Uri]
) -> Iterator[Found]:
    """Paths, S3 URIs and URLs of images, found lazily; a prefix is listed page by page.

    `outputs`: where outputs are written; images there are skipped. Raises InvalidRequest at once for a
    source that does not exist, StoreUnavailable during iteration.
    """
    return chain.from_iterable([_images_of(one, connect, outputs) for one in sources])


def _images_of(source: str, connect: Connect, outputs: Sequence[S3Uri]) -> Iterable[Found]:
    if source == STDIN:
        return _listed(sys.stdin.buffer, "the standard input")
    if source.startswith("s3://"):
        if _is_image(source):
            return [source]
        place = _folder_in_s3(source)
        _refuse_outputs(place, outputs)
        return _below(place, connect, outputs)
    if is_url(source):
        return [source]
    path = Path(source)
    try:
        is_folder, is_there = path.is_dir(), path.exists()
    except OSError as error:
        raise InvalidRequest(f"cannot read {source}: {error.strerror}") from None
    if is_folder:
        return _in_folder(path)
    if not is_there:
        raise InvalidRequest(
            f"{source} does not exist; give s3://bucket/prefix/, a folder or a list"
        )
    if _is_image(path.name):
        return [str(path)]
    return _lines_of(path)


# --- in S3 ------------------------------------------------------------------------------------------


def _folder_in_s3(uri: str) -> S3Uri:
    try:
        place = S3Uri.parse(uri, key_required=False)
    except ValueError as error:
        raise InvalidRequest(str(error)) from None
    return S3Uri(place.bucket, place.key.rstrip("/"))


def _refuse_outputs(place: S3Uri, outputs: Sequence[S3Uri]) -> None:
    for output in outputs:
        if _lies_in(place, output):
            raise InvalidRequest(
                f"{place} is where outputs are written ({output}): the masks would be submitted, too; "
                f"give another SOURCE, or another --output-prefix"
            )


def _lies_in(place: S3Uri, other: S3Uri) -> bool:
    below = f"{other.key}/" if other.key else ""
    return place.bucket == other.bucket and f"{place.key}/".startswith(below)


def _below(place: S3Uri, connect: Connect, outputs: Sequence[S3Uri]) -> Iterator[Found]:
    for key in _keys_below(place, connect):
        found = S3Uri(place.bucket, key)
        if _is_image(key) and not any(_lies_in(found, output) for output in outputs):
            yield str(found)


def _keys_below(place: S3Uri, connect: Connect) -> Iterator[str]:
    """Holds one page of a thousand keys in memory."""
    try:
        with s3.typed_errors(place):
            pages = (
                connect()
                .get_paginator("list_objects_v2")
                .paginate(Bucket=place.bucket, Prefix=f"{place.key}/" if place.key else "")
            )
            for page in pages:
                yield from (entry["Key"] for entry in page.get("Contents", ()))
    except s3.StoreError as error:
        raise s3.for_callers(error) from error


# --- in a folder ------------------------------------------------------------------------------------


def _in_folder(folder: Path) -> Iterator[Found]:
    """In the order of their names, without hidden files and folders (names that begin with a dot)."""
    unreadable: list[OSError] = []
    for where, folders, files in os.walk(folder, onerror=unreadable.append):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (_unreadable(unreadable.pop()) for _ in range(len(unreadable)))
        for name in sorted(files):
            if _is_image(name) and not name.startswith("."):
                yield str(Path(where, name))
    yield from map(_unreadable, unreadable)


def _unreadable(error: OSError) -> InvalidEntry:
    return InvalidEntry(
        str(error.filename),
        InvalidRequest(f"cannot read folder {error.filename}: {error.strerror}"),
    )


# --- in a list --------------------------------------------------------------------------------------


def _lines_of(path: Path) -> Iterator[Found]:
    try:
        with path.open("rb") as lines:
            yield from _listed(lines, str(path))
    except OSError as error:
        raise InvalidRequest(f"cannot read {path}: {error.strerror or error}") from error


def _listed(lines: BinaryIO, name: str) -> Iterator[Found]:
    """One image a line; skips blank lines and lines that begin with #."""
    for number, line in enumerate(lines):
        if b"\0" in line:
            raise InvalidRequest(
                f"{name} is not a list of images, and its name is not that of an image"
            )
        entry = os.fsdecode(line.removeprefix(codecs.BOM_UTF8) if number == 0 else line).strip()
        if entry and not entry.startswith("#"):
            yield _checked(entry)


def _checked(entry: str) -> Found:
    """The entry, or why it cannot be an image, judged by its name alone."""
    if is_url(entry):
        return entry
    if entry.startswith("s3://") and entry.endswith("/"):
        return InvalidEntry(
            entry, InvalidRequest(f"{entry} is a prefix; give it as a separate SOURCE")
        )
    suffix = PurePosixPath(entry).suffix.lower()
    if suffix and suffix not in IMAGE_SUFFIXES:
        known = ", ".join(IMAGE_SUFFIXES)
        message = f"{entry} does not have the name of an image; known suffixes: {known}"
        return InvalidEntry(entry, InvalidRequest(message))
    return entry


def _is_image(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES and not name.endswith("/")
