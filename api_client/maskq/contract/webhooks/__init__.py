"""Webhooks: which events are posted, and the state of each delivery."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer

from maskq.contract.locations import http_url
from maskq.contract.statuses import TERMINAL, JobStatus, event_name


class WebhookEvent(StrEnum):
    """The type of an event, without `maskq.`."""

    # A member for each status, as the documentation of enum builds such classes.
    _ignore_ = "members status"
    members = vars()
    for status in JobStatus:
        members[status.name] = event_name(status)


END_EVENTS: Final = frozenset(WebhookEvent[status.name] for status in TERMINAL)


WebhookUrl = Annotated[str, Field(max_length=2000), AfterValidator(http_url)]
WebhookEvents = Annotated[frozenset[WebhookEvent], PlainSerializer(sorted, when_used="json")]


class DeliveryState(StrEnum):
    PENDING = "pending"  # waits for its first or next attempt
    DELIVERED = "delivered"  # the receiver answered 2xx
    FAILED = "failed"  # every attempt failed, or the receiver answered 410 or may not be called


class DeliveryAttempt(BaseModel):
    """One attempt to reach a receiver."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    at_ms: int
    took_ms: int
    status: int | None = None  # HTTP status, if there was an answer
    error: str | None = None  # why there was no answer, or its text


class Delivery(BaseModel):
    """One event on its way to one receiver."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str  # the event's: the header webhook-id of every attempt
    url: str
    type: str
    subject: str  # the job or batch
    state: DeliveryState
    attempts: int
    created_ms: int
    next_ms: int | None = None  # while pending
    log: list[DeliveryAttempt] = Field(default_factory=list)  # the last 20

    def public(self) -> dict[str, Any]:
        """The delivery as plain JSON values, without fields that are None."""
        return self.model_dump(mode="json", exclude_none=True)
