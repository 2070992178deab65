"""Calls about webhooks: what is due, what an attempt achieved, and deliveries for people."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from maskq.contract.webhooks import Delivery, DeliveryAttempt, DeliveryState
from maskq.ledger.calls.base import Call, to_ms
from maskq.ledger.records import pairs
from maskq.ledger.scripts import script


@dataclass(frozen=True, slots=True)
class DueDelivery:
    """What is to be posted: `body` as the event was written, byte for byte."""

    id: str
    url: str
    body: str
    attempts: int  # before this one


def due_deliveries(*, cap: int, hold_s: float) -> Call[list[DueDelivery]]:
    """Deliveries for the asker to try; not given to another one for `hold_s`."""

    def parse(answer: Sequence[Sequence[str]]) -> list[DueDelivery]:
        rows = [pairs(flat) for flat in answer]
        return [
            DueDelivery(row["id"], row["url"], row["body"], int(row["attempts"])) for row in rows
        ]

    return Call(script("deliveries_due"), (cap, to_ms(hold_s)), parse)


def delivery_tried(
    due: DueDelivery,
    state: DeliveryState,
    attempt: DeliveryAttempt,
    *,
    delay_s: float = 0.0,
    keep_s: float,
) -> Call[str]:
    """What an attempt came to; one that is still pending is tried again after `delay_s`."""
    entry = attempt.model_dump_json(exclude_none=True)
    args = (due.id, due.attempts, state.value, to_ms(delay_s), entry, to_ms(keep_s))
    return Call(script("delivery_tried"), args, str)


def delivery_later(due: DueDelivery, delay_s: float) -> Call[str]:
    """Not tried: its receiver is busy with others."""
    args = (due.id, due.attempts, "later", to_ms(delay_s), "", 0)
    return Call(script("delivery_tried"), args, str)


def deliveries(
    *, subject: str = "", state: DeliveryState | None = None, limit: int = 100
) -> Call[list[Delivery]]:
    """Deliveries with their attempts, newest first; among the last 10,000."""

    def parse(answer: Sequence[Any]) -> list[Delivery]:
        return [
            Delivery.model_validate({**pairs(row), "log": [json.loads(entry) for entry in log]})
            for row, log in answer
        ]

    return Call(script("deliveries"), (subject, state or "", limit), parse)


def deliver_again(delivery_id: str) -> Call[bool]:
    """Deliver once more, whatever became of it. False: there is no such delivery."""
    return Call(script("delivery_again"), (delivery_id,), lambda answer: answer == 1)
