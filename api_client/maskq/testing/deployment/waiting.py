"""What a job of a fake deployment waits for, in the words of the real ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from maskq.contract import JobRecord, JobStatus
from maskq.contract.options import Priority
from maskq.contract.queueing.waiting import Waiting
from maskq.ledger.calls.queueing.position import QueuePlace
from maskq.ledger.calls.queueing.waiting import waiting_of
from maskq.ledger.fair_queue import Level, Share, claims_before, others_before


def waits(record: JobRecord, queued: Sequence[JobRecord], workers: int) -> Waiting:
    """queued: all queued jobs, in the order of their submission. workers: that claim jobs."""
    facts: dict[str, Any] = {
        "status": record.status,
        "model": record.model,
        "tenant": record.tenant or "",
        "attempt": str(record.attempt),
        "owner": record.owner or "",
    }
    if record.status is not JobStatus.QUEUED:
        return waiting_of(record.id, facts, None)
    return waiting_of(record.id, facts | {"workers": workers}, _place(record, queued))


def _place(record: JobRecord, queued: Sequence[JobRecord]) -> QueuePlace:
    """Tenants have equal shares, and no job was claimed before."""
    tenant, priority = _queue_of(record)
    jobs = Counter(map(_queue_of, queued))
    levels = [Level(one, jobs[tenant, one], 0) for one in Priority]
    own = [one.id for one in queued if _queue_of(one) == (tenant, priority)]
    ahead = claims_before(priority, own.index(record.id), levels)
    others = Counter(one.tenant or "" for one in queued)
    shares = [Share(name, 1, 0, count) for name, count in others.items() if name != tenant]
    return QueuePlace(ahead + others_before(Share(tenant, 1, 0), ahead, shares), None, ahead)


def _queue_of(record: JobRecord) -> tuple[str, Priority]:
    return record.tenant or "", record.priority
