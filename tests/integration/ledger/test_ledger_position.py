"""A queued job's position: how many jobs really start before it."""

from __future__ import annotations

import random

import pytest
from support import ledger_harness
from support.ledger_harness import MODEL, LedgerHarness

from maskq.contract.models import ServingWorker
from maskq.contract.options import Priority
from maskq.ledger.calls import models, queueing
from maskq.ledger.calls.queueing import QueuePlace

harness = ledger_harness.harness

TENANTS = [None, "acme", "blue", "cyan", "dune"]


def place(harness: LedgerHarness, job_id: str) -> QueuePlace:
    found = harness.ledger.run(queueing.place(job_id))
    assert found is not None
    return found


def worker_lives(harness: LedgerHarness) -> None:
    worker = ServingWorker(
        model=MODEL, revision="1", owner="host:1", labels=150, backend="cpu", since_ms=1
    )
    harness.ledger.run(models.register(worker))


def backlog(harness: LedgerHarness, seed: int) -> list[str]:
    """Jobs of three levels and five tenants, in an order that has been used for a while."""
    chance = random.Random(seed)
    ids: list[str] = []
    for _ in range(60):
        ids += harness.submit_many(
            chance.randint(1, 8),
            priority=chance.choice(list(Priority)),
            tenant=chance.choice(TENANTS),
        )
        if chance.random() < 0.3:
            gone = harness.take_many(chance.randint(1, 6))
            ids = [one for one in ids if one not in gone]
    return ids


@pytest.mark.parametrize("seed", range(5))
def test_the_position_is_the_number_of_claims_that_come_first(
    harness: LedgerHarness, seed: int
) -> None:
    ids = backlog(harness, seed)
    predicted = {job_id: place(harness, job_id).position for job_id in ids}
    order = harness.take_many(len(ids))
    assert {job_id: position for position, job_id in enumerate(order)} == predicted


def test_a_job_that_waits_alone_is_next(harness: LedgerHarness) -> None:
    assert place(harness, harness.submit()).position == 0


def test_only_a_job_that_may_run_now_has_a_place(harness: LedgerHarness) -> None:
    running, deferred = harness.submit(), harness.submit(in_ms=60_000)
    harness.claim(running)
    for job_id in (running, deferred, "unknown", ""):
        assert harness.ledger.run(queueing.place(job_id)) is None


# --- when it starts -----------------------------------------------------------------------------------


def complete(harness: LedgerHarness, count: int, pause_ms: int) -> None:
    """Complete jobs, each `pause_ms` after the one before it."""
    for _ in range(count):
        job_id = harness.take()
        assert job_id
        token = harness.raw(job_id)["token"]
        name = harness.key("pace", MODEL)
        if harness.redis.hget(name, "since_ms"):
            harness.redis.hset(name, "since_ms", harness.now_ms() - pause_ms)
        harness.succeed(job_id, token)


def test_the_start_is_estimated_from_completions(harness: LedgerHarness) -> None:
    worker_lives(harness)
    ids = harness.submit_many(200)
    complete(harness, 101, 50)  # 20 a second
    low, high = place(harness, ids[-1]).eta_s or (0, 0)
    assert low < 98 / 20 < high
    assert low > 3.5
    assert high < 7.5


def test_pauses_without_jobs_do_not_slow_the_estimate(harness: LedgerHarness) -> None:
    worker_lives(harness)
    harness.submit_many(31)
    complete(harness, 31, 50)
    assert harness.redis.hget(harness.key("pace", MODEL), "since_ms") == ""
    last = harness.submit_many(100)[-1]
    complete(harness, 1, 3_600_000)  # the first after an hour
    low, high = place(harness, last).eta_s or (0, 0)
    assert low < 98 / 20 < high < 10


@pytest.mark.parametrize("count", [0, 1, 10])
def test_few_completions_estimate_nothing(harness: LedgerHarness, count: int) -> None:
    worker_lives(harness)
    ids = harness.submit_many(40)
    complete(harness, count, 50)
    assert place(harness, ids[-1]).eta_s is None
    complete(harness, 11 - count, 50)
    assert place(harness, ids[-1]).eta_s


def test_without_a_worker_the_start_is_unknown(harness: LedgerHarness) -> None:
    ids = harness.submit_many(40)
    complete(harness, 20, 50)
    assert place(harness, ids[-1]).eta_s is None


def test_old_minutes_are_forgotten(harness: LedgerHarness) -> None:
    worker_lives(harness)
    ids = harness.submit_many(40)
    complete(harness, 20, 50)
    name = harness.key("pace", MODEL)
    for field, text in harness.redis.hgetall(name).items():
        if field.startswith("minute:"):
            minute, jobs, ms = map(int, text.split())
            harness.redis.hset(name, field, f"{minute - 8} {jobs} {ms}")
    assert place(harness, ids[-1]).eta_s is None


def test_the_demand_of_each_model(harness: LedgerHarness) -> None:
    worker_lives(harness)
    harness.serve("another")
    harness.submit_many(40)
    complete(harness, 20, 50)
    harness.claim(harness.submit())
    busy, idle = sorted(harness.ledger.run(queueing.demand()), key=lambda one: -one.queued)
    assert (busy.model, busy.queued, busy.running, busy.workers) == (MODEL, 20, 1, 1)
    assert busy.rate
    assert busy.rate.mean == pytest.approx(20, rel=0.2)
    assert busy.rate.lowest < busy.rate.mean < busy.rate.highest
    assert (idle.model, idle.queued, idle.running, idle.workers) == ("another", 0, 0, 0)
    assert idle.rate is None
