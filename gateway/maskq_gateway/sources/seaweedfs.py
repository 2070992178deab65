"""Webhooks of SeaweedFS' filer: paths of its tree, buckets below /buckets/."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from maskq_gateway.sources.fields import number, table, text, text_or_none

_BUCKETS = "/buckets/"
_PARTS = ".uploads/"  # of multipart uploads that are not complete
# Its S3 gateway's own notes; what came by another way has none.
_ETAG = "Seaweed-X-Amz-ETag"
_VERSION = "Seaweed-X-Amz-Version-Id"
_DELETE_MARKER = "Seaweed-X-Amz-Delete-Marker"
_VERSION_FILE = re.compile(r"(?P<key>.+)\.versions/v_[^/]+")  # where a version of an object lies


@dataclass(frozen=True, slots=True)
class Written:
    """A file of a bucket that is there now."""

    bucket: str
    key: str
    version_id: str | None
    etag: str | None  # without quotes
    size: int | None  # bytes
    mtime: str | None  # seconds since the epoch


def read(event: Mapping[str, Any]) -> Written | None:
    """None for a deletion, a directory, or what lies in no bucket. Raises NotAnEvent.

    What happened is told by the entries: its `event_type` calls an overwritten file 'rename'.
    """
    path = text(event, "key", "the event")
    place = "message" if "message" in event else "message_data"
    message = table(event.get(place), place)
    entry = _of(message, "new_entry", "newEntry")
    if not isinstance(entry, dict) or _of(entry, "is_directory", "isDirectory"):
        return None
    bucket, _, key = _where(path, message, entry).removeprefix(_BUCKETS).partition("/")
    if not path.startswith(_BUCKETS) or not bucket or not key or key.startswith(_PARTS):
        return None
    notes = entry.get("extended")
    notes = notes if isinstance(notes, dict) else {}
    if _note(notes, _DELETE_MARKER) == "true":
        return None
    if version := _VERSION_FILE.fullmatch(key):
        key = version["key"]
    attributes = _of(entry, "attributes") or {}
    attributes = table(attributes, f"{place}.new_entry.attributes")
    mtime = number(_of(attributes, "mtime"))
    return Written(
        bucket=bucket,
        key=key,
        version_id=_note(notes, _VERSION) if version else None,
        etag=_etag(notes, attributes),
        size=number(_of(attributes, "file_size", "fileSize")),
        mtime=None if mtime is None else str(mtime),
    )


def _where(path: str, message: Mapping[str, Any], entry: Mapping[str, Any]) -> str:
    """The file's path now: of a renamed one `key` is the old."""
    parent = text_or_none(_of(message, "new_parent_path", "newParentPath"))
    name = text_or_none(entry.get("name"))
    return f"{parent.rstrip('/')}/{name}" if parent and name else path


def _of(parent: Mapping[str, Any], *names: str) -> Any:
    """The first that is there: Go's JSON and protobuf's spell fields differently."""
    return next((parent[name] for name in names if name in parent), None)


def _etag(notes: Mapping[str, Any], attributes: Mapping[str, Any]) -> str | None:
    """As its S3 gateway tells it: the one it stored, or else the MD5 of the content."""
    if stored := _note(notes, _ETAG):
        return stored.strip('"') or None
    digest = _bytes(_of(attributes, "md5"))
    return digest.hex() if len(digest) == 16 else None


def _note(notes: Mapping[str, Any], name: str) -> str | None:
    value = _bytes(notes.get(name))
    return value.decode() if value and value.isascii() else None


def _bytes(encoded: object) -> bytes:
    """Of base64; empty for what is none."""
    try:
        return base64.b64decode(encoded, validate=True) if isinstance(encoded, str) else b""
    except ValueError:
        return b""
