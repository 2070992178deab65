"""Who serves what, and how busy each worker is; what the deployment has to do."""

from __future__ import annotations

import pytest
from support.ledger_harness import MODEL, LedgerHarness, harness

from maskq.contract.deployment.workers import Heartbeat, WorkerState
from maskq.contract.models import ServingWorker
from maskq.contract.options import Priority
from maskq.ledger.calls import Limits, models
from maskq.ledger.calls.deployment.overview import Found, overview
from maskq.ledger.calls.deployment.workers import live_workers
from maskq.ledger.calls.models import LIVE_S
from maskq.ledger.calls.queueing import waiting

__all__ = ["harness"]


def serving(owner: str = "host:1", model: str = MODEL) -> ServingWorker:
    return ServingWorker(
        owner=owner, model=model, revision="1", labels=3, since_ms=1, max_batch_size=16
    )


def beat(harness: LedgerHarness, worker: ServingWorker, **said: object) -> None:
    heartbeat = Heartbeat.model_validate({"in_hand": 0, "jobs_per_s": 0.0} | said)
    harness.ledger.run(models.register(worker, heartbeat=heartbeat))


def seen(harness: LedgerHarness) -> dict[str, WorkerState]:
    return {one.owner: one for one in harness.ledger.run(live_workers()).workers}


def looked(harness: LedgerHarness) -> Found:
    return harness.ledger.run(overview(Limits()))


def test_each_worker_is_shown_with_what_it_said_last(harness: LedgerHarness) -> None:
    beat(harness, serving("host:1"), in_hand=1, jobs_per_s=2.5)
    beat(harness, serving("host:1"), in_hand=4, jobs_per_s=3.5)
    beat(harness, serving("host:2"), draining=True)
    beat(harness, serving("other:3", model="other"))
    found = seen(harness)
    one = found["host:1"]
    assert (one.in_hand, one.jobs_per_s, one.draining) == (4, 3.5, False)
    assert (one.max_batch_size, one.host, one.pid) == (16, "host", "1")
    assert one.last_beat_ms is not None
    assert abs(one.last_beat_ms - harness.now_ms()) < 5000
    assert found["host:2"].draining
    assert found["other:3"].model == "other"


def test_a_worker_of_an_older_version_has_no_heartbeat(harness: LedgerHarness) -> None:
    worker = serving()
    text = worker.model_dump_json(exclude={"version", "max_batch_size", "concurrency"})
    name = harness.key("workers", MODEL)
    harness.redis.zadd(name, {text: harness.now_ms() + 1000})
    found = seen(harness)[worker.owner]
    assert (found.last_beat_ms, found.in_hand, found.draining) == (None, None, None)


def test_a_dead_worker_disappears_after_its_time_with_all_it_said(harness: LedgerHarness) -> None:
    dead, alive = serving("host:1"), serving("host:2")
    beat(harness, dead)
    assert 0 < harness.redis.pttl(harness.key("heartbeats", MODEL)) <= LIVE_S * 1000
    name = harness.key("workers", MODEL)
    harness.redis.zadd(name, {dead.model_dump_json(): harness.now_ms() - 1})
    assert seen(harness) == {}
    beat(harness, alive)  # another worker removes what is left of it
    assert harness.redis.hkeys(harness.key("heartbeats", MODEL)) == ["host:2"]
    assert LIVE_S <= 60  # nothing shows a dead worker for longer


@pytest.mark.parametrize("end", ["leave", "retire"])
def test_a_worker_that_leaves_leaves_nothing(harness: LedgerHarness, end: str) -> None:
    beat(harness, serving())
    call = models.leave(serving()) if end == "leave" else models.retire(MODEL, force=True)
    harness.ledger.run(call)
    assert seen(harness) == {}
    assert not harness.redis.exists(harness.key("heartbeats", MODEL))


def test_a_worker_whose_store_is_away_says_so(harness: LedgerHarness) -> None:
    beat(harness, serving("host:1"))
    beat(harness, serving("host:2"))
    harness.ledger.run(waiting.note_store_away(MODEL, "host:1"))
    assert {owner: one.store_away for owner, one in seen(harness).items()} == {
        "host:1": True,
        "host:2": False,
    }


def test_the_overview_counts_by_model_and_priority(harness: LedgerHarness) -> None:
    harness.serve("other")
    beat(harness, serving())
    oldest = harness.submit(priority="high")
    harness.submit(priority="high", tenant="a")
    harness.submit(tenant="b")
    harness.submit(priority="low", in_ms=60_000)
    harness.claimed_job()
    harness.redis.zadd(harness.key("ready", MODEL, "high", ""), {oldest: harness.now_ms() - 90_000})
    found = looked(harness)
    queue, other = found.queues
    assert (queue.model, queue.queued, queue.running, queue.workers) == (MODEL, 4, 1, 1)
    assert queue.ready == {Priority.HIGH: 2, Priority.NORMAL: 1, Priority.LOW: 0}
    assert queue.oldest_s is not None
    assert 90 <= queue.oldest_s < 95
    assert (other.queued, other.oldest_s, other.workers) == (0, None, 0)
    assert (found.totals.running, found.totals.delayed, found.totals.records) == (1, 1, 5)
    assert found.default.name == MODEL
    assert queue.default


def test_the_overview_counts_tenants_beside_shares_and_held_ones(harness: LedgerHarness) -> None:
    from maskq.ledger.calls.queueing import tenants

    harness.ledger.run(tenants.change("paused", {"max_running": 0}))
    harness.submit(tenant="paused")
    assert harness.take() is None
    found = looked(harness)
    assert found.queues[0].ready[Priority.NORMAL] == 1
    assert found.totals.tenants == 1


def test_the_overview_says_which_webhooks_are_due_and_when_a_sweep_was(
    harness: LedgerHarness,
) -> None:
    assert looked(harness).totals.sweeper_age_s is None
    harness.sweep()
    harness.submit(
        webhook="https://hooks.example/x", webhook_events=["job.queued", "job.succeeded"]
    )
    totals = looked(harness).totals
    assert totals.sweeper_age_s is not None
    assert totals.sweeper_age_s < 5
    assert (totals.webhooks_due, totals.webhooks_overdue) == (1, 1)
