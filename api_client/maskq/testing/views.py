"""What a fake deployment says of its worker and queue."""

from __future__ import annotations

import time
from importlib.metadata import version
from typing import TYPE_CHECKING, Final

from maskq.contract import JobStatus
from maskq.contract.deployment.overview import (
    DeploymentLimits,
    Overview,
    Queue,
    Stores,
    Totals,
)
from maskq.contract.deployment.workers import Workers, WorkerState
from maskq.contract.models import DefaultModel, ModelChoice, ServingWorker
from maskq.contract.options import Priority
from maskq.ledger.calls import Filter
from maskq.testing.deployment.ledger import OWNER
from maskq.testing.deployment.worker import LAYOUT, REVISION

if TYPE_CHECKING:
    from maskq.testing.service import FakeService

_NO_LIMIT: Final = 10**9
_LIMITS: Final = DeploymentLimits(
    max_queued=0,
    max_queued_per_tenant=0,
    max_attempts=3,
    queue_ttl_s=86_400.0,
    run_timeout_s=600.0,
    retention_s=7 * 86_400.0,
    output_retention_s=0.0,
)


def serving_worker(service: FakeService) -> ServingWorker:
    """The only worker of a fake deployment."""
    return ServingWorker(
        owner=OWNER,
        model=service.model,
        revision=REVISION,
        labels=len(service.labels),
        since_ms=service.since_ms,
        version=version("maskq"),
    )


def workers(service: FakeService) -> Workers:
    """It never dies and says what it does at every look."""
    now_ms = _now_ms()
    state = WorkerState.model_validate(
        serving_worker(service).model_dump()
        | {
            "last_beat_ms": now_ms,
            "beat_age_s": 0.0,
            "in_hand": _running(service),
            "jobs_per_s": 0.0,
        }
        | {"draining": False}
    )
    return Workers(now_ms=now_ms, workers=(state,))


def overview(service: FakeService) -> Overview:
    """A fake deployment at a glance; its stores are in memory."""
    queued, now_ms = service.ledger().queued(), _now_ms()
    running = _running(service)
    ready = dict.fromkeys(Priority, 0)
    for record in queued:
        ready[record.request.priority] += 1
    queue = Queue(
        model=service.model,
        revision=REVISION,
        default=True,
        queued=len(queued),
        ready=ready,
        oldest_s=(now_ms - min(one.created_ms for one in queued)) / 1000 if queued else None,
        running=running,
        workers=1,
    )
    return Overview(
        now_ms=now_ms,
        version=version("maskq"),
        queues=(queue,),
        default=DefaultModel(name=service.model, choice=ModelChoice.ONLY, known=True),
        totals=Totals(
            running=running,
            delayed=0,
            records=len(service.ledger().page(Filter(), _NO_LIMIT, "").records),
            tenants=0,
            webhooks_due=len(service.ledger().stream.due()),
            webhooks_overdue=0,
            sweeper_age_s=0.0,
        ),
        stores=Stores(
            redis="memory",
            key_prefix="fake",
            s3_endpoint="memory",
            s3_bucket=LAYOUT.home.bucket,
            output_prefix=LAYOUT.home.key,
        ),
        limits=_LIMITS,
    )


def _running(service: FakeService) -> int:
    wanted = Filter(status=JobStatus.RUNNING)
    return len(service.ledger().page(wanted, _NO_LIMIT, "").records)


def _now_ms() -> int:
    return time.time_ns() // 10**6
