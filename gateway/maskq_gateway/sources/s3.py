"""S3's own notifications: AWS, MinIO, RustFS."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import unquote_plus

from maskq_gateway.sources.fields import NotAnEvent, number, table, text, text_or_none
from maskq_gateway.sources.object_created import ObjectCreated, etag_of, version_of

MAX_RECORDS: Final = 1000  # in one notification; stores send one, or a few
_CREATED = "ObjectCreated:"


def recognises(event: Mapping[str, Any]) -> bool:
    """Whether it is a notification or a test event of S3."""
    return "Records" in event or event.get("Event") == "s3:TestEvent"


def read(event: Mapping[str, Any]) -> tuple[ObjectCreated, ...]:
    """The created objects. Raises NotAnEvent."""
    return () if event.get("Event") == "s3:TestEvent" else _records(event["Records"])


def _records(records: object) -> tuple[ObjectCreated, ...]:
    if not isinstance(records, list):
        raise NotAnEvent(f"Records is not a list but {type(records).__name__}")
    if len(records) > MAX_RECORDS:
        raise NotAnEvent(
            f"Records has {len(records)} entries; at most {MAX_RECORDS} are accepted; send fewer "
            f"objects in one notification"
        )
    found = []
    for index, record in enumerate(records):
        place = f"Records[{index}]"
        record = table(record, place)
        if "s3" not in record and "data" in record:  # as some versions of RustFS wrap it
            record, place = table(record["data"], f"{place}.data"), f"{place}.data"
        name = text(record, "eventName", place).removeprefix("s3:")
        if name.startswith(_CREATED):
            found.append(_record(record, place))
    return tuple(found)


def _record(record: Mapping[str, Any], place: str) -> ObjectCreated:
    s3 = table(record.get("s3"), f"{place}.s3")
    described = table(s3.get("object"), f"{place}.s3.object")
    encoded = text(described, "key", f"{place}.s3.object")
    try:
        key = unquote_plus(encoded, errors="strict")
    except UnicodeDecodeError:
        raise NotAnEvent(
            f"{place}.s3.object.key {encoded!r:.200} does not decode to valid UTF-8"
        ) from None
    return ObjectCreated(
        bucket=text(table(s3.get("bucket"), f"{place}.s3.bucket"), "name", f"{place}.s3.bucket"),
        key=key,
        version_id=version_of(described.get("versionId")),
        etag=etag_of(described.get("eTag")),
        sequencer=text_or_none(described.get("sequencer")),
        size=number(described.get("size")),
        when=text_or_none(record.get("eventTime")),
    )
