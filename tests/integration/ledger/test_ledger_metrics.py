"""metrics: every way a job ends counts once, labels are bounded, and depth, age and lag are right."""

from __future__ import annotations

import pytest
from support import ledger_harness
from support.ledger_harness import BROKEN, MODEL, LedgerHarness

from maskq.contract import FailureCode, JobFailure, JobStatus
from maskq.contract.webhooks import DeliveryAttempt, DeliveryState
from maskq.ledger import calls, keys, prelude
from maskq.ledger.calls import groups, models
from maskq.ledger.calls.metrics import (
    DeploymentMetrics,
    Depth,
    Ended,
    GroupLag,
    ModelLoad,
    deployment_metrics,
)
from maskq.ledger.calls.queueing import tenants
from maskq.ledger.scripts import shared_text

harness = ledger_harness.harness
LOST = JobFailure(code=FailureCode.WORKER_LOST, message="its worker was told to stop")


def read(harness: LedgerHarness) -> DeploymentMetrics:
    return harness.ledger.run(deployment_metrics())


def load_of(harness: LedgerHarness, model: str = MODEL) -> ModelLoad:
    (found,) = [one for one in read(harness).models if one.demand.model == model]
    return found


def depths(harness: LedgerHarness, model: str = MODEL) -> dict[str, int]:
    return {one.priority.value: one.jobs for one in load_of(harness, model).depths}


# --- jobs that end ------------------------------------------------------------------------------------


def test_every_way_a_job_ends_counts_once(harness: LedgerHarness) -> None:
    # Given a job that succeeds, whose worker says so twice
    job_id, token = harness.claimed_job()
    assert harness.succeed(job_id, token)
    assert harness.succeed(job_id, token)
    # one that fails, whose worker says so twice
    job_id, token = harness.claimed_job()
    assert harness.fail(job_id, token)
    assert harness.fail(job_id, token)
    # one that is canceled while it waits, and one while it runs; both twice
    for job_id in (harness.submit(), harness.claimed_job()[0]):
        harness.cancel(job_id)
        harness.cancel(job_id)
    # one that expires in a sweep, and one that a claim finds expired
    job_id = harness.submit()
    harness.time_is_up(job_id)
    harness.sweep()
    job_id = harness.submit()
    harness.time_is_up(job_id)
    harness.redis.zrem(harness.key("deadlines"), job_id)
    assert harness.try_claim(job_id=job_id).record is None
    # one that runs too long
    job_id, token = harness.claimed_job()
    harness.time_is_up(job_id)
    harness.sweep()
    assert not harness.succeed(job_id, token)
    # one whose worker died, alone, at its last attempt
    job_id, _ = harness.claimed_job(exclusive=True, max_attempts=1)
    harness.lease_runs_out(job_id)
    harness.sweep()
    # one that is released at its last attempt, twice
    job_id, token = harness.claimed_job(max_attempts=1)
    assert harness.release(job_id, token) is calls.ReleaseOutcome.FAILED
    assert harness.release(job_id, token) is calls.ReleaseOutcome.FAILED
    # one that is deleted after its end
    job_id, token = harness.claimed_job()
    assert harness.succeed(job_id, token)
    harness.delete(job_id)
    # Then
    assert read(harness).ended == {
        Ended(MODEL, "succeeded", ""): 2,
        Ended(MODEL, "failed", "invalid_image"): 1,
        Ended(MODEL, "canceled", "canceled"): 2,
        Ended(MODEL, "expired", "expired"): 2,
        Ended(MODEL, "failed", "timeout"): 1,
        Ended(MODEL, "failed", "worker_lost"): 1,
        Ended(MODEL, "failed", "store_unavailable"): 1,
    }


def test_a_retry_counts_by_its_code_and_a_lost_lease_counts(harness: LedgerHarness) -> None:
    for _ in range(2):
        job_id, token = harness.claimed_job()
        harness.release(job_id, token, charged=False)
        harness.release(job_id, token, charged=False)
    job_id, token = harness.claimed_job()
    harness.release(job_id, token, LOST, charged=False)
    job_id, _ = harness.claimed_job()
    harness.lease_runs_out(job_id)
    harness.sweep()
    found = read(harness)
    assert found.retries == {"store_unavailable": 2, "worker_lost": 2}
    assert found.leases_lost == 1
    assert found.ended == {}


def test_tickets_that_are_sent_again_count(harness: LedgerHarness) -> None:
    harness.submit_many(3)
    harness.redis.delete(harness.queue)
    harness.settle()
    assert read(harness).tickets_resent == 3


# --- labels -------------------------------------------------------------------------------------------


def test_a_retired_model_has_no_label(harness: LedgerHarness) -> None:
    # Given a model with a space in its name that has ended a job, and two that wait
    name = "road signs"
    harness.serve(name)
    done, *_ = [harness.submit(model=name) for _ in range(3)]
    token = calls_token(harness, done, name)
    assert harness.succeed(done, token)
    assert read(harness).ended == {Ended(name, "succeeded", ""): 1}
    # When it is retired, which cancels the jobs that wait
    assert harness.ledger.run(models.retire(name, force=True)).retired
    harness.ledger.run(models.cancel_queued(name))
    # Then its counts are gone, and what ended later counts without its name
    assert read(harness).ended == {Ended("other", "canceled", "canceled"): 2}


def calls_token(harness: LedgerHarness, job_id: str, model: str) -> str:
    claimed = harness.try_claim(job_id=job_id, model=model)
    assert claimed.record is not None
    return claimed.token


def test_a_code_and_a_state_of_a_newer_version_have_no_label(harness: LedgerHarness) -> None:
    name = harness.key("counters")
    harness.redis.hset(name, f"jobs failed on_fire {MODEL}", 3)
    harness.redis.hset(name, f"jobs failed soaked {MODEL}", 4)
    harness.redis.hset(name, f"jobs rejected  {MODEL}", 5)
    harness.redis.hset(name, "retries on_fire", 6)
    found = read(harness)
    assert found.ended == {Ended(MODEL, "failed", "other"): 7, Ended(MODEL, "other", ""): 5}
    assert found.retries == {"other": 6}


def test_many_tenants_make_no_more_counters(harness: LedgerHarness) -> None:
    for number in range(20):
        job_id, token = harness.claimed_job(tenant=f"tenant-{number}", metadata={"n": str(number)})
        assert harness.fail(job_id, token, BROKEN)
    assert harness.redis.hlen(harness.key("counters")) == 1


# --- what waits and runs ------------------------------------------------------------------------------


def test_depth_is_by_priority_over_all_tenants(harness: LedgerHarness) -> None:
    # Given jobs of several tenants, one of which may run one job only
    harness.submit_many(2, priority="high", tenant="ada")
    harness.submit_many(3, priority="high", tenant="bob")
    harness.submit_many(4, priority="low")
    harness.submit(in_ms=60_000)  # deferred: it may not run now
    harness.redis.hset(keys.tenant("bob").within(harness.prefix), "max_running", 1)
    running = harness.take_many(6)
    # Then
    found = depths(harness)
    assert sum(found.values()) == 9 - len(running)
    demand = load_of(harness).demand
    assert (demand.queued, demand.running) == (10 - len(running), len(running))
    assert harness.redis.exists(keys.held_tenants(MODEL).within(harness.prefix))
    waiting = harness.jobs(status=JobStatus.QUEUED).records
    for level in ("high", "normal", "low"):
        deferred = 1 if level == "normal" else 0
        assert found[level] + deferred == sum(r.priority == level for r in waiting)


def test_the_age_is_that_of_the_oldest_job(harness: LedgerHarness) -> None:
    old = harness.submit(tenant="ada")
    harness.submit()
    ready = harness.key("ready", MODEL, "normal", "ada")
    harness.redis.zadd(ready, {old: harness.now_ms() - 90_000})
    high, normal, low = load_of(harness).depths
    assert normal.jobs == 2
    assert 90 <= normal.oldest_s < 120
    assert (high.jobs, high.oldest_s, low.jobs, low.oldest_s) == (0, 0, 0, 0)


def test_an_idle_model_has_depth_and_demand_0(harness: LedgerHarness) -> None:
    found = load_of(harness)
    assert all(isinstance(one, Depth) and one.jobs == 0 for one in found.depths)
    assert found.demand_s == 0


def test_demand_is_in_seconds_of_one_worker(harness: LedgerHarness) -> None:
    # Given two workers that together completed 60 jobs in 30 s
    for owner in ("a", "b"):
        harness.ledger.run(models.register(worker(owner)))
    minute = harness.now_ms() // 60_000
    harness.redis.hset(harness.key("pace", MODEL), f"work:{minute % 8}", f"{minute} 60 60000")
    # When 20 jobs wait, and one runs
    harness.submit_many(20)
    harness.take()
    # Then one worker, which does one job a second, would need 20 s
    assert load_of(harness).demand_s == pytest.approx(20)


def test_without_a_rate_a_job_counts_as_a_second(harness: LedgerHarness) -> None:
    harness.submit_many(5)
    assert load_of(harness).demand_s == 5


def worker(owner: str) -> models.ServingWorker:
    return models.ServingWorker(
        owner=owner, model=MODEL, revision="1", labels=1, labels_digest="0" * 16,
        backend="cpu", device="cpu", dtype="float32", since_ms=1,
    )  # fmt: skip


def test_of_more_running_jobs_than_are_looked_at_the_models_are_estimated(
    harness: LedgerHarness,
) -> None:
    harness.serve("other-model")
    for model, count in ((MODEL, 6), ("other-model", 6)):
        for name in harness.submit_many(count, model=model):
            calls_token(harness, name, model)
    code = "return {running_by('model', 4)[ARGV[2]] or 0, running_by('model', 12)[ARGV[2]]}"
    code = shared_text() + "\n" + code
    few, all_of_them = harness.redis.eval(prelude.prelude(code) + code, 0, harness.prefix, MODEL)
    assert all_of_them == 6
    assert few == 12  # the four whose leases end first are of the first model


def test_of_more_waiting_tenants_than_are_looked_at_the_depths_are_estimated(
    harness: LedgerHarness,
) -> None:
    # Given a tenant with many jobs, tenants with few, one of them at its cap, and jobs of nobody
    for number in range(12):
        for _ in range(40 if number == 3 else 2):
            harness.submit(tenant=f"t{number}", priority="high")
    harness.ledger.run(tenants.change("t5", {"max_running": 1}))
    harness.submit_many(4)
    # When a call looks at all of the 13 tenants, and at four
    every, few = (counts_of_waiting(harness, most) for most in (13, 4))
    # Then it counts or estimates; estimates add up to the queued jobs
    assert every == [62, 4, 65]  # high, normal, startable
    assert sum(few[:2]) == 66
    assert few[1] > 0


def counts_of_waiting(harness: LedgerHarness, most: int) -> list[int]:
    code = (
        "local look = looks_of_models(tonumber(ARGV[3]))[ARGV[2]]"
        " local found = waiting_counts(ARGV[2], look)"
        " return {found.ready[1], found.ready[2], found.startable}"
    )
    code = shared_text() + "\n" + code
    answer = harness.redis.eval(prelude.prelude(code) + code, 0, harness.prefix, MODEL, most)
    return [int(one) for one in answer]


def test_running_jobs_of_a_retired_model_are_in_the_total(harness: LedgerHarness) -> None:
    harness.claimed_job()
    harness.ledger.run(models.retire(MODEL, force=True))
    found = read(harness)
    assert (found.running, found.models) == (1, ())


# --- sweeper, webhooks, events ------------------------------------------------------------------------


def test_the_age_of_the_last_sweep(harness: LedgerHarness) -> None:
    assert read(harness).sweeper_age_s is None
    harness.sweep()
    harness.redis.hset(harness.key("sweeper"), "swept_ms", harness.now_ms() - 42_000)
    age = read(harness).sweeper_age_s
    assert age is not None
    assert 42 <= age < 60


HOOK = {"webhook": "https://receiver.example/hook", "webhook_events": ["job.queued"]}


def test_webhooks_due_and_dead(harness: LedgerHarness) -> None:
    harness.submit_many(4, **HOOK)
    due = harness.key("deliveries", "due")
    harness.redis.zincrby(due, -90_000, harness.redis.zrange(due, 0, 0)[0])
    found = read(harness)
    assert found.webhooks_due == 4
    assert 90 <= found.webhooks_overdue_s < 120
    first, second, third, fourth = harness.ledger.run(calls.due_deliveries(cap=9, hold_s=60))
    found = read(harness)  # held by who delivers them
    assert (found.webhooks_due, found.webhooks_overdue_s) == (0, 0)
    attempt = DeliveryAttempt(at_ms=1, took_ms=1, status=500, error="no")
    for due, state in (
        (first, DeliveryState.DELIVERED),
        (second, DeliveryState.FAILED),
        (third, DeliveryState.FAILED),
        (fourth, DeliveryState.PENDING),
    ):
        for _ in range(2):  # sent twice
            harness.ledger.run(calls.delivery_tried(due, state, attempt, keep_s=600))
    found = read(harness)
    assert found.webhooks == {"delivered": 1, "failed": 2, "retried": 1}
    assert found.entries["deliveries_dead"] == 2
    # One is delivered again, and the record of the other is past its retention.
    assert harness.ledger.run(calls.deliver_again(second.id))
    assert read(harness).entries["deliveries_dead"] == 1
    harness.redis.delete(keys.delivery(third.id).within(harness.prefix))
    harness.sweep()
    assert read(harness).entries["deliveries_dead"] == 0


def test_a_deleted_job_takes_its_dead_webhook_along(harness: LedgerHarness) -> None:
    job_id, token = harness.claimed_job(**HOOK)
    (due,) = harness.ledger.run(calls.due_deliveries(cap=9, hold_s=60))
    attempt = DeliveryAttempt(at_ms=1, took_ms=1, status=410, error="gone")
    harness.ledger.run(calls.delivery_tried(due, DeliveryState.FAILED, attempt, keep_s=600))
    harness.succeed(job_id, token)
    harness.delete(job_id)
    assert read(harness).entries["deliveries_dead"] == 0


def test_the_lag_of_a_group_of_event_readers(harness: LedgerHarness) -> None:
    assert read(harness).groups == ()  # no event yet
    member = groups.Member("billing", "one")
    harness.ledger.run(groups.join(member, "0"))
    harness.submit_many(5)
    harness.ledger.run(groups.read(member, block_ms=10))
    assert read(harness).groups == (GroupLag("billing", 4, 1),)


def test_entries_are_counted_by_kind(harness: LedgerHarness) -> None:
    harness.submit_many(3)
    harness.claimed_job()
    found = read(harness).entries
    assert found["created"] == 4
    assert found["leases"] == 1
    assert found["deadlines"] == 4
    assert found["events"] == 5
    assert found["ended"] == 0


def test_reading_changes_nothing(harness: LedgerHarness) -> None:
    harness.submit_many(3, tenant="ada")
    harness.claimed_job()
    before = harness.everything()
    read(harness)
    assert harness.everything() == before
