"""The series of the whole deployment.

The ledger holds all of them, so every process that exports them exports the same values.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from maskq.contract import FailureCode, JobStatus
from maskq.ledger.calls.metrics import (
    OTHER,
    OUTCOMES,
    DeploymentMetrics,
    Ended,
    GroupLag,
    ModelLoad,
)
from maskq.telemetry.series import Series, exposition

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

QUEUE_DEPTH: Final = Series(
    "maskq_queue_depth",
    "gauge",
    "Jobs that may run now and wait for a worker.",
    ("model", "priority"),
)
QUEUE_OLDEST: Final = Series(
    "maskq_queue_oldest_seconds",
    "gauge",
    "Seconds since the oldest job that may run now was submitted; 0: none waits.",
    ("model", "priority"),
)
QUEUED: Final = Series(
    "maskq_jobs_queued",
    "gauge",
    "Queued jobs, with those that are deferred or wait for a retry.",
    ("model",),
)
RUNNING: Final = Series("maskq_jobs_running", "gauge", "Jobs that workers hold.", ("model",))
JOBS: Final = Series(
    "maskq_jobs_total",
    "counter",
    "Jobs that ended; code: of the error, empty if they succeeded.",
    ("model", "status", "code"),
)
RETRIES: Final = Series(
    "maskq_retries_total", "counter", "Jobs that were queued again, by the reason.", ("code",)
)
WORKERS: Final = Series(
    "maskq_workers", "gauge", "Worker processes that serve the model.", ("model",)
)
DEMAND: Final = Series(
    "maskq_demand_seconds",
    "gauge",
    "Seconds that one worker needs for the running jobs and those that may start.",
    ("model",),
)
OFFERED_LOAD: Final = Series(
    "maskq_offered_load", "gauge", "Workers that the arriving jobs keep busy.", ("model",)
)
LEASES_LOST: Final = Series(
    "maskq_leases_lost_total",
    "counter",
    "Leases that ran out, because a worker died or could not reach Redis.",
)
TICKETS_RESENT: Final = Series(
    "maskq_tickets_resent_total",
    "counter",
    "Tickets that the sweeper sent again, because they were lost with a worker.",
)
WEBHOOKS: Final = Series(
    "maskq_webhooks_total",
    "counter",
    "Attempts to deliver a webhook: delivered, retried (a further attempt follows) or failed.",
    ("outcome",),
)
WEBHOOKS_DUE: Final = Series(
    "maskq_webhooks_due", "gauge", "Webhooks that are due and that no process delivers yet."
)
WEBHOOKS_OVERDUE: Final = Series(
    "maskq_webhooks_overdue_seconds",
    "gauge",
    "Seconds for which a webhook has been due and not been taken by a process; 0: none is due.",
)
WEBHOOKS_DEAD: Final = Series(
    "maskq_webhooks_dead", "gauge", "Webhooks that failed for good and are kept for a redelivery."
)
SWEEPER_AGE: Final = Series(
    "maskq_sweeper_age_seconds", "gauge", "Seconds since the last sweep; missing: there was none."
)
EVENT_LAG: Final = Series(
    "maskq_event_lag",
    "gauge",
    "Events that no reader of the group has confirmed. Missing after events were trimmed unread.",
    ("group",),
)
ENTRIES: Final = Series(
    "maskq_ledger_entries", "gauge", "Entries of the ledger's lists in Redis.", ("kind",)
)

SERIES: Final = (
    QUEUE_DEPTH, QUEUE_OLDEST, QUEUED, RUNNING, JOBS, RETRIES, WORKERS, DEMAND, OFFERED_LOAD,
    LEASES_LOST, TICKETS_RESENT, WEBHOOKS, WEBHOOKS_DUE, WEBHOOKS_OVERDUE, WEBHOOKS_DEAD, SWEEPER_AGE,
    EVENT_LAG, ENTRIES,
)  # fmt: skip


# Counters begin at 0, so that the first failure is an increase for Prometheus.
_OUTCOMES_OF_JOBS: Final = (
    (JobStatus.SUCCEEDED.value, ""),
    (JobStatus.CANCELED.value, FailureCode.CANCELED.value),
    (JobStatus.EXPIRED.value, FailureCode.EXPIRED.value),
    *((JobStatus.FAILED.value, code.value) for code in FailureCode),
)
_NO_RETRIES: Final = {code.value: 0 for code in FailureCode}


def deployment_text(found: DeploymentMetrics) -> bytes:
    """The series in Prometheus' text format."""
    return exposition(_families(found))


def _families(found: DeploymentMetrics) -> Iterator[Metric]:
    yield from _of_models(found)
    yield from _of_jobs(found)
    yield from _of_webhooks(found)
    yield from _of_ledger(found)


def _of_models(found: DeploymentMetrics) -> Iterator[Metric]:
    depth, oldest = QUEUE_DEPTH.gauge(), QUEUE_OLDEST.gauge()
    queued, running = QUEUED.gauge(), RUNNING.gauge()
    workers, demand, load = WORKERS.gauge(), DEMAND.gauge(), OFFERED_LOAD.gauge()
    for model in found.models:
        name = model.demand.model
        for level in model.depths:
            depth.add_metric([name, level.priority], level.jobs)
            oldest.add_metric([name, level.priority], level.oldest_s)
        queued.add_metric([name], model.demand.queued)
        running.add_metric([name], model.demand.running)
        workers.add_metric([name], model.demand.workers)
        demand.add_metric([name], model.demand_s)
        load.add_metric([name], model.offered_load)
    if retired := _running_of_retired(found.running, found.models):
        running.add_metric([OTHER], retired)
    yield from (depth, oldest, queued, running, workers, demand, load)


def _running_of_retired(running: int, models: tuple[ModelLoad, ...]) -> int:
    return max(0, running - sum(model.demand.running for model in models))


def _of_jobs(found: DeploymentMetrics) -> Iterator[Metric]:
    jobs, retries = JOBS.counter(), RETRIES.counter()
    for labels, count in {**_no_jobs(found.models), **found.ended}.items():
        jobs.add_metric(labels, count)
    for code, count in {**_NO_RETRIES, **found.retries}.items():
        retries.add_metric([code], count)
    lost, resent = LEASES_LOST.counter(), TICKETS_RESENT.counter()
    lost.add_metric([], found.leases_lost)
    resent.add_metric([], found.tickets_resent)
    yield from (jobs, retries, lost, resent)


def _no_jobs(models: tuple[ModelLoad, ...]) -> dict[Ended, int]:
    return {Ended(one.demand.model, *outcome): 0 for one in models for outcome in _OUTCOMES_OF_JOBS}


def _of_webhooks(found: DeploymentMetrics) -> Iterator[Metric]:
    attempts, due = WEBHOOKS.counter(), WEBHOOKS_DUE.gauge()
    overdue, dead = WEBHOOKS_OVERDUE.gauge(), WEBHOOKS_DEAD.gauge()
    for outcome in OUTCOMES.values():  # from 0 on, so that the first failure is an increase
        attempts.add_metric([outcome], found.webhooks.get(outcome, 0))
    due.add_metric([], found.webhooks_due)
    overdue.add_metric([], found.webhooks_overdue_s)
    dead.add_metric([], found.entries["deliveries_dead"])
    yield from (attempts, due, overdue, dead)


def _of_ledger(found: DeploymentMetrics) -> Iterator[Metric]:
    age, lag, entries = SWEEPER_AGE.gauge(), EVENT_LAG.gauge(), ENTRIES.gauge()
    if found.sweeper_age_s is not None:
        age.add_metric([], found.sweeper_age_s)
    for group in found.groups:
        if (unread := _lag(group)) is not None:
            lag.add_metric([group.group], unread)
    for kind, count in found.entries.items():
        entries.add_metric([kind], count)
    yield from (age, lag, entries)


def _lag(group: GroupLag) -> int | None:
    return None if group.unread is None else group.unread + group.unconfirmed
