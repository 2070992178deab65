"""Calls about webhooks: what is due, what an attempt achieved, and deliveries for people."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from maskq.contract.webhooks import Delivery, DeliveryAttempt, DeliveryState
from maskq.ledger.calls.base import Call, scripted, to_ms
from maskq.ledger.records import pairs


@dataclass(frozen=True, slots=True)
class DueDelivery:
    """A webhook to post; `body` is the event, byte for byte."""

    id: str
    url: str
    body: str
    attempts: int  # before this one


def due_deliveries(*, cap: int, hold_s: float) -> Call[list[DueDelivery]]:
    """Take deliveries to try; no other caller gets them for `hold_s`."""

    def parse(answer: Sequence[Sequence[str]]) -> list[DueDelivery]:
        rows = [pairs(flat) for flat in answer]
        return [
            DueDelivery(row["id"], row["url"], row["body"], int(row["attempts"])) for row in rows
        ]

    return scripted("deliveries_due", parse, cap=cap, hold_ms=to_ms(hold_s))


def delivery_tried(
    due: DueDelivery,
    state: DeliveryState,
    attempt: DeliveryAttempt,
    *,
    delay_s: float = 0.0,
    keep_s: float,
) -> Call[str]:
    """Record an attempt. If the state is still pending, it is tried again after `delay_s`."""
    entry = attempt.model_dump_json(exclude_none=True)
    return _tried(due, state.value, to_ms(delay_s), entry, to_ms(keep_s))


def delivery_later(due: DueDelivery, delay_s: float) -> Call[str]:
    """Postpone a delivery that was not tried, since its receiver is busy with others."""
    return _tried(due, "later", to_ms(delay_s), "", 0)


def _tried(due: DueDelivery, state: str, delay_ms: int, entry: str, keep_ms: int) -> Call[str]:
    return scripted(
        "delivery_tried",
        str,
        id=due.id,
        attempts=due.attempts,
        state=state,
        delay_ms=delay_ms,
        entry=entry,
        keep_ms=keep_ms,
    )


def deliveries(
    *, subject: str = "", state: DeliveryState | None = None, limit: int = 100
) -> Call[list[Delivery]]:
    """Deliveries with their attempts, the newest first, of the last 10,000."""

    def parse(answer: Sequence[Any]) -> list[Delivery]:
        return [
            Delivery.model_validate({**pairs(row), "log": [json.loads(entry) for entry in log]})
            for row, log in answer
        ]

    return scripted("deliveries", parse, given=subject, wanted=state or "", limit=limit)


def deliver_again(delivery_id: str) -> Call[bool]:
    """Deliver again, in any state. Returns False if no delivery has this id."""
    return scripted("delivery_again", lambda answer: answer == 1, id=delivery_id)
