"""Names of the files that a result is saved to."""

from __future__ import annotations

import os
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import unquote, urlsplit

from maskq.contract import JobRecord, Output
from maskq.contract.locations import is_url
from maskq.contract.outputs import FILES
from maskq.contract.storage_layout import INPUT
from maskq.errors import InvalidRequest

_NOT_IN_NAMES: Final = frozenset('/\\:*?"<>|')
_LONGEST_STEM: Final = 200  # bytes; file systems take names of 255


def stem_of(record: JobRecord) -> str:
    """The first part of the names of a job's files: `photo` for `s3://bucket/2026/photo.jpg`.

    Of an uploaded image the record has no name, so it is the job's id.
    """
    place = record.request.image_uri
    path = unquote(urlsplit(place).path) if is_url(place) else place
    name = path.rpartition("/")[2]
    return record.id if name == INPUT else safe_stem(name) or record.id


def safe_stem(name: str) -> str:
    """A file's name without its suffix, and with `_` for characters that a name cannot hold."""
    stem = PurePosixPath(name.replace("\\", "_")).stem
    safe = "".join(one if one.isprintable() and one not in _NOT_IN_NAMES else "_" for one in stem)
    return safe.encode()[:_LONGEST_STEM].decode(errors="ignore").strip().lstrip(".")


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
