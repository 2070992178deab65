"""A queued job's position: how many jobs really start before it."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from support import ledger_harness
from support.ledger_harness import MODEL, LedgerHarness

from maskq.contract.models import ServingWorker
from maskq.contract.options import Priority
from maskq.ledger.calls import models, queueing
from maskq.ledger.calls.queueing import Demand, QueuePlace, tenants

harness = ledger_harness.harness

TENANTS = [None, "acme", "blue", "cyan", "dune"]


def place(harness: LedgerHarness, job_id: str) -> QueuePlace:
    found = harness.ledger.run(queueing.place(job_id))
    assert found is not None
    return found


def worker_lives(harness: LedgerHarness, owner: str = "host:1") -> None:
    worker = ServingWorker(
        model=MODEL, revision="1", owner=owner, labels=150, backend="cpu", since_ms=1
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


def test_among_very_many_tenants_some_stand_for_the_others(harness: LedgerHarness) -> None:
    for number in range(500):
        harness.submit(tenant=f"tenant-{number:03d}")
        harness.submit(tenant=f"tenant-{number:03d}")
    own = harness.submit(tenant="zoe")
    found = place(harness, own)
    assert 490 <= found.position <= 510  # each of the others has a job before it
    assert found.of_tenant == 0


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


def long_ago(harness: LedgerHarness, minutes: int) -> None:
    """Make the completions so much older."""
    name = harness.key("pace", MODEL)
    for field, text in harness.redis.hgetall(name).items():
        if field.startswith("work:"):
            minute, jobs, ms = map(int, text.split())
            harness.redis.hset(name, field, f"{minute - minutes} {jobs} {ms}")


def test_old_minutes_are_forgotten(harness: LedgerHarness) -> None:
    worker_lives(harness)
    ids = harness.submit_many(40)
    complete(harness, 20, 50)
    long_ago(harness, minutes=8)
    assert place(harness, ids[-1]).eta_s is None


def test_the_demand_of_each_model(harness: LedgerHarness) -> None:
    worker_lives(harness)
    harness.serve("another")
    harness.submit_many(40)
    complete(harness, 20, 50)
    harness.claim(harness.submit())
    busy, idle = sorted(harness.ledger.run(queueing.demand()), key=lambda one: -one.queued)
    assert (busy.model, busy.queued, busy.running, busy.workers) == (MODEL, 20, 1, 1)
    assert busy.startable == 20
    assert busy.rate
    assert busy.rate.mean == pytest.approx(20, rel=0.2)
    assert busy.rate.lowest < busy.rate.mean < busy.rate.highest
    assert (idle.model, idle.queued, idle.running, idle.workers) == ("another", 0, 0, 0)
    assert (idle.startable, idle.rate, idle.rate_of_one) == (0, None, None)
    assert (idle.seconds, idle.workers_for(60)) == (0.0, 0)


def demand_of_the_model(harness: LedgerHarness) -> Demand:
    (found,) = harness.ledger.run(queueing.demand())
    return found


def test_the_rate_of_one_worker_is_that_of_all_by_their_number(harness: LedgerHarness) -> None:
    for owner in ("host:1", "host:2", "host:3", "host:4"):
        worker_lives(harness, owner)
    harness.submit_many(100)
    complete(harness, 40, 50)
    found = demand_of_the_model(harness)
    assert found.rate
    assert found.rate.mean == pytest.approx(20, rel=0.2)
    assert found.rate_of_one
    assert found.rate_of_one.mean == pytest.approx(5, rel=0.2)
    assert found.seconds == pytest.approx(60 / 5, rel=0.2)  # of one worker
    assert replace(found, arrivals_per_s=0.0).workers_for(2) in (5, 6, 7)
    for owner in ("host:5", "host:6", "host:7", "host:8"):
        worker_lives(harness, owner)  # twice the workers: the same work, done in half the time
    more = demand_of_the_model(harness)
    assert more.seconds == found.seconds
    assert more.rate
    assert more.rate.mean == pytest.approx(2 * found.rate.mean)


def test_a_model_scaled_to_zero_is_as_fast_as_it_was(harness: LedgerHarness) -> None:
    worker_lives(harness)
    harness.submit_many(41)
    complete(harness, 40, 50)
    long_ago(harness, minutes=300)
    harness.redis.delete(harness.key("workers", MODEL))
    harness.submit_many(39)
    found = demand_of_the_model(harness)
    assert (found.workers, found.rate, found.startable) == (0, None, 40)
    assert found.seconds == pytest.approx(40 / 20, rel=0.2)
    assert replace(found, arrivals_per_s=0.0).workers_for(0.5) in (4, 5)


def test_what_arrives_keeps_its_workers_while_nothing_waits(harness: LedgerHarness) -> None:
    worker_lives(harness)
    harness.submit_many(60)
    complete(harness, 59, 200)  # 5 a second
    harness.take()
    harness.submit(in_ms=60_000)  # arrives later
    name, minute = harness.key("pace", MODEL), harness.now_ms() // 60_000
    for ago in (1, 2):
        harness.redis.hset(name, f"arrived:{(minute - ago) % 3}", f"{minute - ago} 1200")
    found = demand_of_the_model(harness)
    # 2460 jobs in 120 to 180 s, all of them in this minute and the two before it.
    assert 2460 / 180 <= found.arrivals_per_s <= 2460 / 120
    assert found.offered_load == pytest.approx(found.arrivals_per_s / 5, rel=0.2)
    assert 3 <= found.workers_for(60) <= 6
    harness.redis.hset(name, f"arrived:{(minute - 1) % 3}", f"{minute - 4} 1200")
    assert demand_of_the_model(harness).arrivals_per_s <= 1260 / 120  # an old minute does not count


def test_work_of_unknown_length_keeps_the_workers_there_are(harness: LedgerHarness) -> None:
    harness.submit()
    assert demand_of_the_model(harness).workers_for(60) == 1
    for owner in ("host:1", "host:2", "host:3"):
        worker_lives(harness, owner)
    assert demand_of_the_model(harness).workers_for(60) == 3


def test_jobs_that_no_worker_could_start_are_no_demand(harness: LedgerHarness) -> None:
    harness.ledger.run(tenants.change("acme", {"max_running": 2}))
    for _ in range(5):
        harness.submit(in_ms=60_000)
    harness.submit_many(4, tenant="acme")
    found = demand_of_the_model(harness)
    assert (found.queued, found.startable, found.running) == (9, 2, 0)
    assert harness.take_many(9)
    found = demand_of_the_model(harness)
    assert (found.queued, found.startable, found.running) == (7, 0, 2)


def test_a_deferred_job_is_demand_once_it_may_start(harness: LedgerHarness) -> None:
    job_id = harness.submit(in_ms=60_000)
    assert demand_of_the_model(harness).startable == 0
    harness.redis.zadd(harness.key("waiting"), {job_id: harness.now_ms() - 1})
    assert demand_of_the_model(harness).startable == 1  # nobody sweeps while no worker lives
