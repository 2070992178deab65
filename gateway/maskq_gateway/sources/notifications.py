"""Notifications of object stores, read from JSON. No I/O.

SOURCES lists the kinds. A new one adds its module there, and to SIGNERS if its sender signs requests
instead of sending a token. Any of them may come in one of ENVELOPES. Only created or overwritten
objects count.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from maskq_gateway.sources import eventbridge, s3, seaweedfs, sns_envelope
from maskq_gateway.sources.fields import NotAnEvent, parse, table
from maskq_gateway.sources.object_created import ObjectCreated
from maskq_gateway.sources.signer import Signer

__all__ = ["NotAnEvent", "ObjectCreated", "parse", "read"]


class Source(Protocol):
    """A module that reads one kind of notification."""

    def recognises(self, event: Mapping[str, Any]) -> bool:
        """Whether an event is of this kind."""

    def read(self, event: Mapping[str, Any]) -> tuple[ObjectCreated, ...]:
        """The created objects; none for other events of this kind. Raises NotAnEvent."""


class Envelope(Protocol):
    """A module that finds the notification in a message of another system."""

    def recognises(self, event: Mapping[str, Any]) -> bool:
        """Whether an event is such a message."""

    def content(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """The notification. Raises NotAnEvent."""


SOURCES: Final[tuple[Source, ...]] = (s3, eventbridge, seaweedfs)
ENVELOPES: Final[tuple[Envelope, ...]] = (sns_envelope,)
# Each takes GatewaySettings.
SIGNERS: Final[tuple[Callable[[Any], Signer], ...]] = (sns_envelope.signer,)


def read(body: object) -> tuple[ObjectCreated, ...]:
    """The objects that a notification says were created, in its order.

    Empty for a test event, and for events about deletions or the like. Raises NotAnEvent for anything
    that is not a notification of an object store.
    """
    event = table(body, "the body")
    envelope = next((one for one in ENVELOPES if one.recognises(event)), None)
    if envelope:
        event = envelope.content(event)
    for source in SOURCES:
        if source.recognises(event):
            return source.read(event)
    found = ", ".join(map(repr, event)) or "nothing"
    raise NotAnEvent(
        f"not a notification of an object store: it has neither Records nor detail-type nor "
        f"event_type, but {found:.200}"
    )
