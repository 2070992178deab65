"""The call that shows a deployment at a glance."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from maskq.contract.deployment.overview import Queue, Totals
from maskq.contract.models import DefaultModel, ModelChoice
from maskq.contract.options import Priority
from maskq.ledger.calls.base import Call, scripted
from maskq.ledger.calls.submission import Limits, model_choosers


@dataclass(frozen=True, slots=True)
class Found:
    """What Redis knows of a deployment."""

    now_ms: int
    queues: tuple[Queue, ...]
    default: DefaultModel
    totals: Totals


def overview(limits: Limits) -> Call[Found]:
    """Queues, the default model and totals."""

    def parse(answer: Sequence[Any]) -> Found:
        now_ms, default, choice, totals, *rows = answer
        queues = tuple(_queue(row, int(now_ms), default) for row in rows)
        chosen = DefaultModel(
            name=default or None,
            choice=ModelChoice(choice),
            known=any(queue.default for queue in queues),
        )
        return Found(int(now_ms), queues, chosen, _totals(totals, int(now_ms)))

    return scripted("overview", parse, choosers=model_choosers(limits))


def _queue(row: Sequence[Any], now_ms: int, default: str) -> Queue:
    model, about, queued, running, workers, oldest, *ready = row
    return Queue(
        model=model,
        revision=json.loads(about).get("revision"),
        default=model == default,
        queued=int(queued),
        ready=dict(zip(Priority, map(int, ready), strict=True)),
        oldest_s=_age_s(oldest, now_ms),
        running=int(running),
        workers=int(workers),
    )


def _totals(found: Sequence[Any], now_ms: int) -> Totals:
    running, delayed, records, tenants, due, overdue, swept = found
    return Totals(
        running=int(running),
        delayed=int(delayed),
        records=int(records),
        tenants=int(tenants),
        webhooks_due=int(due),
        webhooks_overdue=int(overdue),
        sweeper_age_s=_age_s(swept, now_ms),
    )


def _age_s(since: str | int, now_ms: int) -> float | None:
    return max(0, now_ms - int(since)) / 1000 if since else None
