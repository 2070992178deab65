"""Amazon EventBridge's events of S3."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from maskq_gateway.sources.fields import NotAnEvent, number, table, text, text_or_none
from maskq_gateway.sources.object_created import ObjectCreated, etag_of, version_of


def recognises(event: Mapping[str, Any]) -> bool:
    """Whether it is an event of EventBridge."""
    return "detail-type" in event


def read(event: Mapping[str, Any]) -> tuple[ObjectCreated, ...]:
    """The created object, if it is about one. Raises NotAnEvent."""
    if event.get("source") != "aws.s3":
        raise NotAnEvent(f"an EventBridge event of {event.get('source')!r:.200}, not of aws.s3")
    if event["detail-type"] != "Object Created":
        return ()
    detail = table(event.get("detail"), "detail")
    described = table(detail.get("object"), "detail.object")
    found = ObjectCreated(
        bucket=text(table(detail.get("bucket"), "detail.bucket"), "name", "detail.bucket"),
        key=text(described, "key", "detail.object"),
        version_id=version_of(described.get("version-id")),
        etag=etag_of(described.get("etag")),
        sequencer=text_or_none(described.get("sequencer")),
        size=number(described.get("size")),
        when=text_or_none(event.get("time")),
    )
    return (found,)
