"""A model whose forward is free: what the service itself costs, beside what store and Celery allow.

First the queue is filled while the worker is paused (SIGSTOP; it holds nothing then), as the queue of
the Celery ceiling is filled before its worker starts: this gives rate, processor time and round trips.
Then the same jobs again, with a client that submits and waits: this gives the client's cost.
"""

from __future__ import annotations

import os
import signal
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from bench.scenarios import ceilings, load, naive_run, pictures, stages
from bench.scenarios.findings import Findings, Options, Row, cpu_ms_a_job, memory
from bench.scenarios.service import Cost, Service, running

JOBS = 2000
IMAGE = (64, 64)  # px
WARM_UP = 50
_LATENCIES = 50  # jobs one by one
# What a worker sends; all else in the statistics is called by our scripts, inside Redis.
_SENT = ("evalsha", "brpop", "ping")


@dataclass(frozen=True, slots=True)
class Drained:
    """A queue that was full, worked off."""

    seconds: float
    cost: Cost
    ended: list[stages.Ended]
    requests: dict[str, float]  # of the store, a job
    redis: dict[str, float]  # round trips and commands, a job


def run(options: Options) -> Findings:
    jobs = options.jobs or JOBS
    with running(options.model, null=True) as service:
        uris = pictures.stored(service, jobs, size=IMAGE)
        load.all_at_once(service, uris[:WARM_UP])
        drained = drain(service, uris)
        client = [client_costs(service, uris), client_costs(service, uris)]
        light = load.one_by_one(service, uris[:_LATENCIES])
        used = memory(service)
        store = ceilings.store(service, drained.ended[0].record, jobs)
        celery = ceilings.celery(service, jobs)
        beside = naive_run.measure(service, uris)
    rate, binding = jobs / drained.seconds, min(store.jobs_a_second, celery.jobs_a_second)
    figures: dict[str, Any] = {
        "jobs": jobs,
        **cpu_ms_a_job(drained.cost, jobs, of=("worker", "store", "redis")),
        "client_submit_cpu_ms_a_job": _median(client, "submit_ms"),
        "client_wait_cpu_ms_a_job": _median(client, "wait_ms"),
        "jobs_a_second": round(rate, 1),
        "store_ceiling_jobs_a_second": round(store.jobs_a_second, 1),
        "celery_ceiling_jobs_a_second": round(celery.jobs_a_second, 1),
        "to_binding_ceiling": round(rate / binding, 3),
        "store_ceiling": asdict(store),
        "celery_ceiling": asdict(celery),
        "naive_celery_task": asdict(beside),
        "store_requests_a_job": drained.requests,
        "redis_a_job": drained.redis,
        **used,
    }
    rows = [
        _row("maskq worker", drained.cost.worker, drained.cost.store, jobs, rate),
        _row("naive Celery task", beside.cpu_s, beside.store_cpu_s, jobs, beside.jobs_a_second),
        _row("ceiling: store alone", store.cpu_s, store.store_cpu_s, jobs, store.jobs_a_second),
        _row("ceiling: empty Celery task", celery.cpu_s, 0.0, jobs, celery.jobs_a_second),
    ]
    return Findings(figures, {"side by side": rows, "stages at light load": stages.rows(light)})


def drain(service: Service, uris: Sequence[str]) -> Drained:
    """Fill the queue, then let the worker at it."""
    with paused(service.pids):
        batch = service.client.submit_many(uris)
        before, redis_before = service.cost(), redis_counts(service)
        requests_before, began_ms = service.requests(), time.time() * 1e3
    asked = load.await_batch(service, batch.id)
    cost, redis = service.cost().since(before), redis_counts(service)
    done = service.requests() - requests_before
    records = load.records(service, [job.id for job in batch.jobs])
    ended = [stages.Ended(began_ms, record) for record in records]
    for name in ("round trips", "commands", "evalsha"):
        redis[name] -= asked  # our own looks at the batch
    jobs = len(ended)
    return Drained(
        load.span_s(ended),
        cost,
        ended,
        {name: round(count / jobs, 2) for name, count in sorted(done.items())},
        {
            name: round((count - redis_before.get(name, 0)) / jobs, 2)
            for name, count in redis.items()
            if count > redis_before.get(name, 0)
        },
    )


@contextmanager
def paused(pids: Sequence[int]) -> Iterator[None]:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def redis_counts(service: Service) -> dict[str, int]:
    """Since the server started: reads of connections (one a round trip), commands, some of these."""
    redis = service.ledger.redis
    by_command = {
        name.removeprefix("cmdstat_"): int(each["calls"])
        for name, each in redis.info("commandstats").items()
    }
    return {
        "round trips": int(redis.info("stats")["total_reads_processed"]),
        "commands": sum(by_command.values()),  # those within our scripts included
    } | {name: by_command[name] for name in _SENT if name in by_command}


def client_costs(service: Service, uris: Sequence[str]) -> dict[str, float]:
    """Processor milliseconds a job of submit_many, and of waiting for all of them."""
    submit_s, batch = _cpu_of(lambda: service.client.submit_many(uris))

    def wait() -> None:
        for job in batch.as_completed():
            job.result()

    wait_s, _ = _cpu_of(wait)
    return {"submit_ms": 1e3 * submit_s / len(uris), "wait_ms": 1e3 * wait_s / len(uris)}


def _cpu_of(work: Callable[[], Any]) -> tuple[float, Any]:
    before = time.process_time()
    answer = work()
    return time.process_time() - before, answer


def _median(costs: Sequence[dict[str, float]], name: str) -> float:
    return round(statistics.median(each[name] for each in costs), 3)


def _row(name: str, cpu_s: float, store_cpu_s: float, jobs: int, rate: float) -> Row:
    return {
        "": name,
        "CPU-ms a job": round(1e3 * cpu_s / jobs, 3),
        "of the store": round(1e3 * store_cpu_s / jobs, 3),
        "jobs/s": round(rate, 1),
    }
