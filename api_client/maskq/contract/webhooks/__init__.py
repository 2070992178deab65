"""Webhooks: who is told of which events, and what became of telling them."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer

from maskq.contract.locations import http_url


class WebhookEvent(StrEnum):
    """Type of an event, without its `maskq.`."""

    QUEUED = "job.queued"
    RUNNING = "job.running"
    SUCCEEDED = "job.succeeded"
    FAILED = "job.failed"
    CANCELED = "job.canceled"
    EXPIRED = "job.expired"


ENDS: Final = frozenset(
    {WebhookEvent.SUCCEEDED, WebhookEvent.FAILED, WebhookEvent.CANCELED, WebhookEvent.EXPIRED}
)


WebhookUrl = Annotated[str, Field(max_length=2000), AfterValidator(http_url)]
WebhookEvents = Annotated[frozenset[WebhookEvent], PlainSerializer(sorted, when_used="json")]


class DeliveryState(StrEnum):
    PENDING = "pending"  # to be tried, at once or again
    DELIVERED = "delivered"  # the receiver said 2xx
    FAILED = (
        "failed"  # given up: every attempt failed, or the receiver said 410, or may not be called
    )


class DeliveryAttempt(BaseModel):
    """One try to reach a receiver."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    at_ms: int
    took_ms: int
    status: int | None = None  # of HTTP, where there was an answer
    error: str | None = None  # why there was none, or what it said


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
        """As plain JSON values, without what is not set."""
        return self.model_dump(mode="json", exclude_none=True)
