"""A model whose forward is free: what the service itself costs, beside what store and Celery allow.

In rounds, since other machines share the processor: in each the queue is filled while the worker is
paused (SIGSTOP; it holds nothing then), as the queue of the Celery ceiling is filled before its worker
starts, and worked off; the store's ceiling is measured before and after; then come Celery's and the
naive task. Figures are medians over the rounds, ratios are of one round. Last a client submits the same
jobs and waits: this gives the client's cost.
"""

from __future__ import annotations

import os
import signal
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from bench.scenarios import ceilings, load, naive_run, pictures, stages
from bench.scenarios.findings import Findings, Options, Row, cpu_ms_a_job, memory
from bench.scenarios.service import Cost, Service, running

JOBS = 2000
ROUNDS = 8
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


@dataclass(frozen=True, slots=True)
class Round:
    """The same jobs done by everyone, one after the other."""

    jobs: int
    drained: Drained
    stores: tuple[ceilings.Ceiling, ceilings.Ceiling]  # before and after
    celery: ceilings.Ceiling
    naive: naive_run.Naive

    @property
    def rate(self) -> float:
        return self.jobs / self.drained.seconds

    @property
    def to_ceiling(self) -> float:
        """Of the store or of Celery, whichever binds."""
        store = statistics.fmean(one.jobs_a_second for one in self.stores)
        return self.rate / min(store, self.celery.jobs_a_second)

    def rows(self) -> dict[str, tuple[float, float, float]]:
        """Processor seconds, of them the store's beside, and jobs a second."""
        cost, store, celery, naive = self.drained.cost, self.stores[1], self.celery, self.naive
        return {
            "maskq worker": (cost.worker, cost.store, self.rate),
            "naive Celery task": (naive.cpu_s, naive.store_cpu_s, naive.jobs_a_second),
            "ceiling: store alone": (store.cpu_s, store.store_cpu_s, store.jobs_a_second),
            "ceiling: empty Celery task": (celery.cpu_s, 0.0, celery.jobs_a_second),
        }


def run(options: Options) -> Findings:
    jobs = (options.jobs or JOBS) // ROUNDS * ROUNDS
    with running(options.model, null=True) as service:
        uris = pictures.stored(service, jobs, size=IMAGE)
        (done, *_) = load.all_at_once(service, uris[:WARM_UP])
        rounds = [round_of(service, uris[number::ROUNDS], done) for number in range(ROUNDS)]
        client = [client_costs(service, uris[number::ROUNDS]) for number in range(ROUNDS)]
        light = load.one_by_one(service, uris[:_LATENCIES])
        used = memory(service)
    figures: dict[str, Any] = {
        "jobs": jobs,
        "rounds": ROUNDS,
        **_median_costs(rounds),
        "client_submit_cpu_ms_a_job": _median(one["submit_ms"] for one in client),
        "client_wait_cpu_ms_a_job": _median(one["wait_ms"] for one in client),
        "jobs_a_second": _median(one.rate for one in rounds),
        "to_binding_ceiling": _median(one.to_ceiling for one in rounds),
        "to_binding_ceiling_by_round": [round(one.to_ceiling, 3) for one in rounds],
        "times_naive_by_round": [round(one.rate / one.naive.jobs_a_second, 2) for one in rounds],
        "store_requests_a_job": rounds[-1].drained.requests,
        "redis_a_job": rounds[-1].drained.redis,
        "by_round": [one.rows() for one in rounds],
        **used,
    }
    side_by_side = [_row(name, rounds) for name in rounds[0].rows()]
    return Findings(
        figures, {"side by side": side_by_side, "stages at light load": stages.rows(light)}
    )


def round_of(service: Service, uris: Sequence[str], done: stages.Ended) -> Round:
    """done: a job whose objects the store's ceiling is measured with."""
    before = ceilings.store(service, done.record, len(uris))
    drained = drain(service, uris)
    return Round(
        len(uris),
        drained,
        (before, ceilings.store(service, done.record, len(uris))),
        ceilings.celery(service, len(uris)),
        naive_run.measure(service, uris),
    )


def drain(service: Service, uris: Sequence[str]) -> Drained:
    """Fill the queue, then let the worker at it."""
    requests_before = service.requests()
    with paused(service.pids):
        batch = service.client.submit_many(uris)
        before, redis_before = service.cost(), redis_counts(service)
        began_ms = time.time() * 1e3
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


def _median_costs(rounds: Sequence[Round]) -> dict[str, float]:
    each = [
        cpu_ms_a_job(one.drained.cost, one.jobs, of=("worker", "store", "redis")) for one in rounds
    ]
    return {name: _median(one[name] for one in each) for name in each[0]}


def _median(values: Iterable[float]) -> float:
    return round(statistics.median(values), 3)


def _row(name: str, rounds: Sequence[Round]) -> Row:
    each = [(one.rows()[name], one.jobs) for one in rounds]
    return {
        "": name,
        "CPU-ms a job": _median(1e3 * cpu_s / jobs for (cpu_s, _, _), jobs in each),
        "of the store": _median(1e3 * store_s / jobs for (_, store_s, _), jobs in each),
        "jobs/s": round(statistics.median(rate for (_, _, rate), _ in each), 1),
    }
