"""Messages of Amazon SNS, which contain a notification or are about the subscription to a topic."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol

from maskq_gateway.sources.fields import NotAnEvent, parse, text

if TYPE_CHECKING:
    from maskq_gateway.sources.sns import Verifier

logger = logging.getLogger(__name__)

_TYPES: Final = frozenset({"Notification", "SubscriptionConfirmation", "UnsubscribeConfirmation"})


def recognises(event: Mapping[str, Any]) -> bool:
    """Whether it is a message of SNS, whatever it contains."""
    kind = event.get("Type")
    return isinstance(kind, str) and kind in _TYPES and "TopicArn" in event


def content(event: Mapping[str, Any]) -> dict[str, Any]:
    """The notification that the message contains. Raises NotAnEvent."""
    if event["Type"] != "Notification":
        raise NotAnEvent(f"an SNS {event['Type']} is not about an object")
    message = text(event, "Message", "the SNS envelope")
    try:
        return parse(message, "the Message")
    except NotAnEvent as error:
        raise NotAnEvent(f"the SNS envelope does not contain a notification: {error}") from None


class SnsSigner:
    """A `Signer`: SNS signs its messages, each for one topic."""

    enabled_by = "MASKQ_TRIGGER_SNS_TOPICS to the ARNs of your topics"
    unsigned = "SNS did not sign it for a topic of MASKQ_TRIGGER_SNS_TOPICS"

    def __init__(self, verifier: Verifier) -> None:
        self._verifier = verifier

    @property
    def is_enabled(self) -> bool:
        return bool(self._verifier.topics)

    def recognises(self, event: Mapping[str, Any]) -> bool:
        return recognises(event)

    def verify(self, headers: Mapping[str, str], event: Mapping[str, Any]) -> None:
        self._verifier.verify(event)

    def handle(self, event: Mapping[str, Any]) -> bool:
        if event["Type"] == "SubscriptionConfirmation":
            self._verifier.confirm(event)
            logger.info("subscribed to %s", event["TopicArn"])
        return bool(event["Type"] != "Notification")


class _Settings(Protocol):
    @property
    def trigger_sns_topics(self) -> frozenset[str]: ...


def signer(settings: _Settings) -> SnsSigner:
    """Accepts the topics of the settings."""
    from maskq_gateway.sources.sns import Verifier  # with cryptography, which reading does not need

    return SnsSigner(Verifier(settings.trigger_sns_topics))
