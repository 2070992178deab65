"""Notifications of object stores, read from JSON. No I/O.

SOURCES lists the kinds. A new one adds its module there. Any of them may come in an SNS envelope. Only
created or overwritten objects count.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, Protocol

from maskq_gateway.sources import eventbridge, s3, seaweedfs
from maskq_gateway.sources.fields import NotAnEvent, table, text
from maskq_gateway.sources.object_created import ObjectCreated

__all__ = ["NotAnEvent", "ObjectCreated", "is_sns", "parse", "read"]

SNS_TYPES: Final = frozenset(
    {"Notification", "SubscriptionConfirmation", "UnsubscribeConfirmation"}
)


class Source(Protocol):
    """A module that reads one kind of notification."""

    def recognises(self, event: Mapping[str, Any]) -> bool:
        """Whether an event is of this kind."""

    def read(self, event: Mapping[str, Any]) -> tuple[ObjectCreated, ...]:
        """The created objects; none for other events of this kind. Raises NotAnEvent."""


SOURCES: Final[tuple[Source, ...]] = (s3, eventbridge, seaweedfs)


def parse(body: bytes | str, place: str = "the body") -> dict[str, Any]:
    """The JSON object in a body. Raises NotAnEvent naming `place`."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise NotAnEvent(
            f"{place} is not JSON; expected a notification of an object store"
        ) from None
    return table(value, place)


def read(body: object) -> tuple[ObjectCreated, ...]:
    """The objects that a notification says were created, in its order.

    Empty for a test event, and for events about deletions or the like. Raises NotAnEvent for anything
    that is not a notification of an object store.
    """
    event = table(body, "the body")
    if is_sns(event):
        event = _enveloped(event)
    for source in SOURCES:
        if source.recognises(event):
            return source.read(event)
    found = ", ".join(map(repr, event)) or "nothing"
    raise NotAnEvent(
        f"not a notification of an object store: it has neither Records nor detail-type nor "
        f"event_type, but {found:.200}"
    )


def is_sns(event: Mapping[str, Any]) -> bool:
    """Whether it is an SNS message, whatever it contains."""
    kind = event.get("Type")
    return isinstance(kind, str) and kind in SNS_TYPES and "TopicArn" in event


def _enveloped(envelope: Mapping[str, Any]) -> dict[str, Any]:
    if envelope["Type"] != "Notification":
        raise NotAnEvent(f"an SNS {envelope['Type']} is not about an object")
    message = text(envelope, "Message", "the SNS envelope")
    try:
        return parse(message, "the Message")
    except NotAnEvent as error:
        raise NotAnEvent(f"the SNS envelope does not contain a notification: {error}") from None
