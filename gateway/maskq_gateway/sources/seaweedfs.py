"""Webhooks of SeaweedFS' filer. They name paths of its tree; buckets are below /buckets/."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any

from maskq_gateway.sources.fields import number, table, text, text_or_none
from maskq_gateway.sources.object_created import ObjectCreated, version_of

_BUCKETS = "/buckets/"
_PARTS = ".uploads/"  # of incomplete multipart uploads
# Attributes that its S3 gateway stores; files that were written in another way have none.
_ETAG = "Seaweed-X-Amz-ETag"
_VERSION = "Seaweed-X-Amz-Version-Id"
_DELETE_MARKER = "Seaweed-X-Amz-Delete-Marker"
_VERSION_FILE = re.compile(
    r"(?P<key>.+)\.versions/v_[^/]+"
)  # where a version of an object is stored


def recognises(event: Mapping[str, Any]) -> bool:
    """Whether it is a webhook of SeaweedFS' filer."""
    return "event_type" in event and "key" in event


def read(event: Mapping[str, Any]) -> tuple[ObjectCreated, ...]:
    """The created object; none for a deletion, a folder, or a file outside buckets. Raises NotAnEvent.

    The entries say what happened: `event_type` calls an overwritten file 'rename'.
    """
    path = text(event, "key", "the event")
    place = "message" if "message" in event else "message_data"
    message = table(event.get(place), place)
    entry = _of(message, "new_entry", "newEntry")
    if not isinstance(entry, dict) or _of(entry, "is_directory", "isDirectory"):
        return ()
    bucket, _, key = _where(path, message, entry).removeprefix(_BUCKETS).partition("/")
    if not path.startswith(_BUCKETS) or not bucket or not key or key.startswith(_PARTS):
        return ()
    notes = entry.get("extended")
    notes = notes if isinstance(notes, dict) else {}
    if _note(notes, _DELETE_MARKER) == "true":
        return ()
    if version := _VERSION_FILE.fullmatch(key):
        key = version["key"]
    attributes = _of(entry, "attributes") or {}
    attributes = table(attributes, f"{place}.new_entry.attributes")
    mtime = number(_of(attributes, "mtime"))
    found = ObjectCreated(
        bucket=bucket,
        key=key,
        version_id=version_of(_note(notes, _VERSION)) if version else None,
        etag=_etag(notes, attributes),
        size=number(_of(attributes, "file_size", "fileSize")),
        when=None if mtime is None else str(mtime),  # seconds since the epoch
    )
    return (found,)


def _where(path: str, message: Mapping[str, Any], entry: Mapping[str, Any]) -> str:
    """The file's path now. `key` is the old path of a renamed file."""
    parent = text_or_none(_of(message, "new_parent_path", "newParentPath"))
    name = text_or_none(entry.get("name"))
    return f"{parent.rstrip('/')}/{name}" if parent and name else path


def _of(parent: Mapping[str, Any], *names: str) -> Any:
    """The first field that is present: JSON by Go and by protobuf spell names differently."""
    return next((parent[name] for name in names if name in parent), None)


def _etag(notes: Mapping[str, Any], attributes: Mapping[str, Any]) -> str | None:
    """The ETag that the S3 gateway reports: the stored one, or the MD5 of the content."""
    if stored := _note(notes, _ETAG):
        return stored.strip('"') or None
    digest = _bytes(_of(attributes, "md5"))
    return digest.hex() if len(digest) == 16 else None


def _note(notes: Mapping[str, Any], name: str) -> str | None:
    value = _bytes(notes.get(name))
    return value.decode() if value and value.isascii() else None


def _bytes(encoded: object) -> bytes:
    """The bytes of base64 text; empty if it is not valid."""
    try:
        return base64.b64decode(encoded, validate=True) if isinstance(encoded, str) else b""
    except ValueError:
        return b""
