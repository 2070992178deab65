"""What an object store says happened, read from the JSON of its notification. No I/O.

Known are S3's own records (AWS, MinIO, RustFS), EventBridge events, either of them in an SNS envelope,
and the webhooks of SeaweedFS' filer. Only a created or overwritten object counts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote_plus

from maskq_gateway.sources import seaweedfs
from maskq_gateway.sources.fields import NotAnEvent, number, table, text, text_or_none

__all__ = ["NotAnEvent", "ObjectCreated", "parse", "read"]

SNS_TYPES: Final = frozenset(
    {"Notification", "SubscriptionConfirmation", "UnsubscribeConfirmation"}
)
MOST_RECORDS: Final = 1000  # in one notification; stores send one, or a few
_CREATED = "ObjectCreated:"
_NO_VERSION = "null"  # what S3 calls the version of an object from before versioning


@dataclass(frozen=True, slots=True)
class ObjectCreated:
    """One state of one object, as far as the store tells."""

    bucket: str
    key: str  # as S3 knows it, nothing encoded
    version_id: str | None = None  # None: the bucket keeps no versions
    etag: str | None = None  # without quotes
    sequencer: str | None = None  # hexadecimal; greater is later, for one key
    size: int | None = None  # bytes
    when: str | None = None  # of the write, as told; tells states apart where nothing else does

    @property
    def state(self) -> str | list[str | None]:
        """The same for every delivery of one event, another for the next write."""
        return self.version_id or [self.etag, self.sequencer or self.when]


def parse(body: bytes | str, place: str = "the body") -> dict[str, Any]:
    """The object of JSON that a body is. Raises NotAnEvent naming `place`."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise NotAnEvent(
            f"{place} is no JSON; expected a notification of an object store"
        ) from None
    return table(value, place)


def read(body: object) -> tuple[ObjectCreated, ...]:
    """The objects that a notification says were created, in its order.

    None for a test event, and for one that tells of deletions or the like. Raises NotAnEvent for what
    is no notification of an object store.
    """
    event = table(body, "the body")
    if is_sns(event):
        event = _enveloped(event)
    if event.get("Event") == "s3:TestEvent":
        return ()
    if "Records" in event:
        return _records(event["Records"])
    if "detail-type" in event:
        return _event_bridge(event)
    if "event_type" in event and "key" in event:
        return _seaweedfs(event)
    there = ", ".join(map(repr, event)) or "nothing"
    raise NotAnEvent(
        f"no notification of an object store: it has neither Records nor detail-type nor event_type, "
        f"but {there:.200}"
    )


def is_sns(event: Mapping[str, Any]) -> bool:
    """Whether it is an SNS message, whatever it holds."""
    kind = event.get("Type")
    return isinstance(kind, str) and kind in SNS_TYPES and "TopicArn" in event


def _enveloped(envelope: Mapping[str, Any]) -> dict[str, Any]:
    if envelope["Type"] != "Notification":
        raise NotAnEvent(f"an SNS {envelope['Type']} tells of no object")
    message = text(envelope, "Message", "the SNS envelope")
    try:
        return parse(message, "the Message")
    except NotAnEvent as error:
        raise NotAnEvent(f"the SNS envelope holds no notification: {error}") from None


def _records(records: object) -> tuple[ObjectCreated, ...]:
    if not isinstance(records, list):
        raise NotAnEvent(f"Records is no list but {type(records).__name__}")
    if len(records) > MOST_RECORDS:
        raise NotAnEvent(
            f"Records has {len(records)} entries; at most {MOST_RECORDS} are taken, notify of fewer "
            f"objects at a time"
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
        raise NotAnEvent(f"{place}.s3.object.key {encoded!r:.200} decodes to no UTF-8") from None
    return ObjectCreated(
        bucket=text(table(s3.get("bucket"), f"{place}.s3.bucket"), "name", f"{place}.s3.bucket"),
        key=key,
        version_id=_version(described.get("versionId")),
        etag=_etag(described.get("eTag")),
        sequencer=text_or_none(described.get("sequencer")),
        size=number(described.get("size")),
        when=text_or_none(record.get("eventTime")),
    )


def _event_bridge(event: Mapping[str, Any]) -> tuple[ObjectCreated, ...]:
    if event.get("source") != "aws.s3":
        raise NotAnEvent(f"an EventBridge event of {event.get('source')!r:.200}, not of aws.s3")
    if event["detail-type"] != "Object Created":
        return ()
    detail = table(event.get("detail"), "detail")
    described = table(detail.get("object"), "detail.object")
    found = ObjectCreated(
        bucket=text(table(detail.get("bucket"), "detail.bucket"), "name", "detail.bucket"),
        key=text(described, "key", "detail.object"),
        version_id=_version(described.get("version-id")),
        etag=_etag(described.get("etag")),
        sequencer=text_or_none(described.get("sequencer")),
        size=number(described.get("size")),
        when=text_or_none(event.get("time")),
    )
    return (found,)


def _seaweedfs(event: Mapping[str, Any]) -> tuple[ObjectCreated, ...]:
    written = seaweedfs.read(event)
    if written is None:
        return ()
    return (
        ObjectCreated(
            bucket=written.bucket,
            key=written.key,
            version_id=_version(written.version_id),
            etag=written.etag,
            size=written.size,
            when=written.mtime,
        ),
    )


def _version(value: object) -> str | None:
    version = text_or_none(value)
    return None if version == _NO_VERSION else version


def _etag(value: object) -> str | None:
    etag = text_or_none(value)
    return etag.strip('"') or None if etag else None
