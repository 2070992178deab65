"""Names of the files that a result is saved to."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import unquote, urlsplit

from maskq.contract import JobRecord, Output
from maskq.contract.locations import is_url
from maskq.contract.outputs import FILES
from maskq.contract.storage_layout import INPUT
from maskq.errors import InvalidRequest

_NOT_IN_NAMES: Final = frozenset('/\\:*?"<>|')
_VERSION: Final = "?versionId="  # behind the source of an object whose version is known
_LONGEST_STEM: Final = 150  # bytes; file systems take names of 255, and a job's id may follow


def stem_of(record: JobRecord) -> str:
    """The first part of the names of a job's files: `photo` for `s3://bucket/2026/photo.jpg`.

    It is the job's id for an uploaded image whose name the record does not have.
    """
    place = record.source or record.request.image_uri
    if place.startswith("s3://") and place.endswith(f"/{INPUT}"):
        return record.id
    if place.startswith("s3://"):
        place = place.rpartition(_VERSION)[0] or place
    return stem_of_image(place) or record.id


def stem_of_image(image: str) -> str:
    """The name of a path, S3 URI or URL without folders and suffix, safe as a file's name; or ''."""
    path = unquote(urlsplit(image).path) if is_url(image) else image
    stem = PurePosixPath(path.rpartition("/")[2]).stem
    safe = "".join(one if one.isprintable() and one not in _NOT_IN_NAMES else "_" for one in stem)
    return safe.encode()[:_LONGEST_STEM].decode(errors="ignore").strip().lstrip(".")


def told_apart(stems: Mapping[str, str]) -> dict[str, str]:
    """Job id → stem, where jobs with the same stem get their ids: `photo.{job id}`."""
    count = Counter(stem.casefold() for stem in stems.values())
    return {
        job_id: stem if count[stem.casefold()] == 1 else f"{stem}.{job_id}"
        for job_id, stem in stems.items()
    }


def checked_stem(name: str) -> str:
    """A name that a caller chose. Raises InvalidRequest if it cannot be the start of a file's name."""
    if not name or set(name) & {"/", "\\", "\0"} or len(os.fsencode(name)) > _LONGEST_STEM:
        raise InvalidRequest(
            f"{name!r:.80} is not a valid name for files: give 1 to {_LONGEST_STEM} bytes without "
            f"slashes"
        )
    return name


def file_name(stem: str, output: Output, class_id: int | None = None) -> str:
    """The name of an output's file: `photo.mask.png`; of one class `photo.binary.012.png`."""
    files = FILES[output]
    name = files.name if class_id is None else files.of_class(class_id)
    return f"{stem}.{name.replace('/', '.')}"
