"""A ledger that version 0.1 wrote before tenants had shares: its jobs run, and its clients go on."""

from __future__ import annotations

from support import ledger_harness
from support.ledger_harness import MODEL, LedgerHarness

from maskq.ledger.calls import models, queueing

harness = ledger_harness.harness

LEVELS = ("high", "normal", "low")


def as_before(harness: LedgerHarness) -> None:
    """Turn the queue into what the scripts of version 0.1 write: turns of tenants by level."""
    tenants = harness.redis.zrange(harness.key("shares", MODEL, "1"), 0, -1)
    queue = harness.key("queue", MODEL)
    harness.redis.delete(harness.key("shares", MODEL, "1"), harness.key("share-weights", MODEL))
    harness.redis.hdel(queue, "share_sum", "share_weight")
    harness.redis.hset(queue, mapping={"turn": 7, "time": 30, "due:high": 35, "due:low": 60})
    for level in LEVELS:
        for turn, tenant in enumerate(tenants):
            if harness.ready(level, tenant):
                harness.redis.zadd(harness.key("turns", MODEL, level), {tenant: turn})


def backlog(harness: LedgerHarness) -> set[str]:
    jobs = [
        job_id
        for tenant in ("ada", "bob", None)
        for level in LEVELS
        for job_id in harness.submit_many(3, tenant=tenant, priority=level)
    ]
    as_before(harness)
    return {*jobs}


def test_jobs_queued_before_the_upgrade_are_claimed(harness: LedgerHarness) -> None:
    jobs = backlog(harness)
    running = harness.take_many(1)
    assert {*running, *harness.take_many(100)} == jobs
    # Nothing of the former layout is left after the next sweep
    harness.sweep()
    assert not [name for name in harness.key_names() if ":turns:" in name]
    assert harness.queued() == {"": 0}


def test_they_share_with_what_comes_after_the_upgrade(harness: LedgerHarness) -> None:
    former = backlog(harness)
    newer = {*harness.submit_many(9, tenant="cleo")}
    harness.sweep()
    taken = harness.take_many(12)
    assert len(newer & {*taken}) == 3
    assert {*taken, *harness.take_many(100)} == former | newer


def test_a_former_job_has_a_position(harness: LedgerHarness) -> None:
    jobs = backlog(harness)
    harness.sweep()
    positions = {harness.ledger.run(queueing.place(job_id)) for job_id in jobs}
    assert sorted(one.position for one in positions if one) == [*range(len(jobs))]


def test_a_client_of_the_former_version_goes_on(harness: LedgerHarness) -> None:
    """It lists the tenant of its job by level, and knows nothing of shares."""
    harness.submit_many(4, tenant="bob")
    job_id = harness.submit(tenant="ada")
    harness.redis.zrem(harness.key("shares", MODEL, "1"), "ada")
    harness.redis.hincrby(harness.key("queue", MODEL), "share_weight", -1)
    harness.redis.zadd(harness.key("turns", MODEL, "normal"), {"ada": 0})
    harness.sweep()
    assert job_id in harness.take_many(2)


def test_a_former_job_of_a_retired_model_is_canceled(harness: LedgerHarness) -> None:
    jobs = backlog(harness)
    assert harness.ledger.run(models.retire(MODEL, force=True)).retired
    assert harness.ledger.run(models.cancel_queued(MODEL)) == (len(jobs), None)
