"""Running caps and submit rates of tenants, and what `maskq tenants set` stores."""

from __future__ import annotations

import random

import pytest
from support import ledger_harness
from support.ledger_harness import MODEL, LedgerHarness

from maskq.contract.queueing.tenants import TenantSettings, TenantState
from maskq.ledger.calls import ClaimOutcome, Idempotency, Limits, SubmitOutcome, models
from maskq.ledger.calls.queueing import tenants

harness = ledger_harness.harness


def change(harness: LedgerHarness, tenant: str = "ada", **changes: int | None) -> TenantState:
    return harness.ledger.run(tenants.change(tenant, changes))


def tokens(harness: LedgerHarness, job_ids: list[str]) -> dict[str, str]:
    return {job_id: harness.raw(job_id)["token"] for job_id in job_ids}


def taken(harness: LedgerHarness) -> list[str]:
    """What workers start until no ticket is left."""
    found = []
    while harness.tickets():
        job_id = harness.take()
        if job_id:
            found.append(job_id)
    return found


# --- running caps -------------------------------------------------------------------------------------


def test_a_tenant_runs_as_many_jobs_as_it_may_while_others_go_on(harness: LedgerHarness) -> None:
    change(harness, max_running=2)
    capped = harness.submit_many(5, tenant="ada")
    others = harness.submit_many(5, tenant="bob") + harness.submit_many(3)
    assert {*taken(harness)} == {*capped[:2], *others}


def test_each_end_lets_the_next_job_of_a_capped_tenant_start(harness: LedgerHarness) -> None:
    change(harness, max_running=1)
    jobs = harness.submit_many(4, tenant="ada")
    ends = [
        lambda job_id, token: harness.succeed(job_id, token),
        lambda job_id, _: harness.cancel(job_id),
        lambda job_id, token: harness.release(job_id, token, delay_s=60),
    ]
    for job_id, end in zip(jobs, ends, strict=False):
        assert taken(harness) == [job_id]
        end(job_id, harness.raw(job_id)["token"])
        assert harness.tickets() == 1
    assert taken(harness) == [jobs[3]]


def test_a_job_that_lost_its_worker_counts_no_longer(harness: LedgerHarness) -> None:
    change(harness, max_running=1)
    first, second = harness.submit_many(2, tenant="ada")
    assert taken(harness) == [first]
    harness.lease_runs_out(first)
    harness.sweep()
    # It is the oldest, and runs alone from now on: its worker makes room for it.
    assert harness.pop()
    assert harness.try_claim().job_id == first
    assert harness.try_claim(job_id=first, exclusive=True).outcome is ClaimOutcome.CLAIMED
    assert harness.try_claim(job_id=second).outcome is ClaimOutcome.NONE


def test_a_cap_counts_jobs_of_all_models(harness: LedgerHarness) -> None:
    harness.serve("another")
    change(harness, max_running=1)
    here = harness.submit_many(2, tenant="ada", model=MODEL)
    there = harness.submit(tenant="ada", model="another")
    assert taken(harness) == here[:1]
    assert harness.take(model="another") is None
    harness.succeed(here[0], harness.raw(here[0])["token"])
    assert harness.take(model="another") == there
    assert taken(harness) == []


def test_tickets_of_a_held_tenant_are_taken_off_the_list(harness: LedgerHarness) -> None:
    """Each would cost a worker a claim that finds nothing."""
    harness.submit_many(100, tenant="ada")
    change(harness, max_running=1)
    assert harness.take()
    assert harness.tickets() == 99
    assert harness.take() is None
    assert harness.tickets() == 0
    # Nor are they lost tickets
    assert harness.settle().sent_again == 0
    # And a new job sends none
    harness.submit(tenant="ada")
    assert harness.tickets() == 0


def test_a_cap_that_is_set_counts_what_runs_already(harness: LedgerHarness) -> None:
    harness.submit_many(6, tenant="ada")
    running = harness.take_many(3)
    change(harness, max_running=2)
    assert harness.take_many(3) == []
    for job_id, token in tokens(harness, running).items():
        harness.succeed(job_id, token)
    assert len(harness.take_many(3)) == 2


@pytest.mark.parametrize(("most", "starts"), [(None, 9), (3, 2), (1, 0)])
def test_a_raised_cap_holds_at_once(harness: LedgerHarness, most: int | None, starts: int) -> None:
    change(harness, max_running=1)
    harness.submit_many(10, tenant="ada")
    assert len(taken(harness)) == 1
    change(harness, max_running=most)
    # With a cap each start sends the next ticket
    assert harness.tickets() == (starts if most is None else min(starts, 1))
    assert len(taken(harness)) == starts


def test_a_cap_of_zero_pauses_a_tenant(harness: LedgerHarness) -> None:
    change(harness, max_running=0)
    jobs = harness.submit_many(3, tenant="ada")
    assert taken(harness) == []
    change(harness, max_running=None)
    assert taken(harness) == jobs


def test_a_canceled_job_of_a_held_tenant_is_gone(harness: LedgerHarness) -> None:
    change(harness, max_running=1)
    first, second, third = harness.submit_many(3, tenant="ada")
    assert taken(harness) == [first]
    harness.cancel(second)
    harness.succeed(first, harness.raw(first)["token"])
    assert taken(harness) == [third]


def test_a_worker_of_the_last_version_ends_a_capped_job(harness: LedgerHarness) -> None:
    """It does not take it off the count; the sweeper does."""
    change(harness, max_running=1)
    first, second = harness.submit_many(2, tenant="ada")
    assert taken(harness) == [first]
    harness.redis.hset(harness.key("job", first), "capped", "0")
    harness.succeed(first, harness.raw(first)["token"])
    assert taken(harness) == []
    harness.sweep()
    assert taken(harness) == [second]


def test_a_capped_tenant_s_levels_keep_their_shares(harness: LedgerHarness) -> None:
    change(harness, max_running=1)
    low = harness.submit_many(5, tenant="ada", priority="low")
    harness.submit_many(60, tenant="ada", priority="high")
    order = []
    for _ in range(21):
        (job_id,) = taken(harness)
        order.append(job_id)
        harness.succeed(job_id, harness.raw(job_id)["token"])
    assert sum(job_id in low for job_id in order) == 3


@pytest.mark.parametrize("seed", range(5))
def test_workers_are_never_idle_while_a_job_may_start(harness: LedgerHarness, seed: int) -> None:
    """Whatever caps say, and however they change: no ticket is ever missing."""
    chance = random.Random(seed)
    harness.serve("another")
    both = (MODEL, "another")
    names = ["ada", "bob", "cleo", None]
    caps: dict[str, int | None] = {}
    running: dict[str, str | None] = {}
    for _ in range(120):
        act = chance.choice(["submit", "submit", "end", "end", "cap", "cancel"])
        name, model = chance.choice(names), chance.choice(both)
        if act == "submit":
            harness.submit_many(chance.randint(1, 4), tenant=name, model=model)
        elif act == "cap" and name:
            caps[name] = chance.choice([None, 0, 1, 2, 3])
            change(harness, name, max_running=caps[name])
        elif running:
            job_id = chance.choice(list(running))
            del running[job_id]
            if act == "cancel":
                harness.cancel(job_id)
            else:
                token = harness.raw(job_id)["token"]
                end = chance.choice([harness.succeed, harness.fail, harness.release])
                end(job_id, token)
        before = harness.settle().sent_again if chance.random() < 0.1 else 0
        assert before == 0
        for one in both:
            for _ in range(100):  # as workers do while there are tickets
                if not harness.tickets(one):
                    break
                if job_id := harness.take(model=one):
                    owner = running[job_id] = harness.record(job_id).tenant
                    cap = caps.get(owner or "")
                    assert cap is None or [*running.values()].count(owner) <= cap
        for tenant in ("ada", "bob", "cleo"):
            cap = caps.get(tenant)
            busy = sum(owner == tenant for owner in running.values())
            left = harness.ledger.run(tenants.look(tenant)).queued
            assert not left or (cap is not None and busy >= cap), (tenant, left, busy, cap)


def test_a_held_tenant_does_not_hinder_the_retirement_of_its_model(harness: LedgerHarness) -> None:
    change(harness, max_running=0)
    harness.submit_many(3, tenant="ada")
    harness.take()
    assert harness.ledger.run(models.retire(MODEL, force=True)).retired
    assert harness.ledger.run(models.cancel_queued(MODEL)) == (3, None)


# --- submit rates -------------------------------------------------------------------------------------


def test_a_minute_s_jobs_may_come_at_once_and_no_more(harness: LedgerHarness) -> None:
    change(harness, submit_rate=7)
    harness.submit_many(7, tenant="ada")
    before = harness.everything()
    refused = harness.try_submit("refused", tenant="ada")
    assert refused.outcome is SubmitOutcome.RATE_EXCEEDED
    assert refused.submit_rate == 7
    assert 60 / 7 - 2 < refused.retry_after_s <= 60 / 7 + 0.01
    assert harness.everything() == before
    # Others are not concerned
    harness.submit(tenant="bob")
    harness.submit()


def minute_passes(harness: LedgerHarness, seconds: float) -> None:
    name = harness.key("tenant", "ada")
    harness.redis.hincrbyfloat(name, "next_submit_ms", -1000 * seconds)


def test_a_tenant_may_submit_again_at_its_rate(harness: LedgerHarness) -> None:
    change(harness, submit_rate=60)
    harness.submit_many(60, tenant="ada")
    for _ in range(3):
        assert harness.try_submit(tenant="ada").outcome is SubmitOutcome.RATE_EXCEEDED
        minute_passes(harness, 1)
        harness.submit(tenant="ada")
    minute_passes(harness, 3600)  # it saves up a minute's jobs and no more
    harness.submit_many(60, tenant="ada")
    assert harness.try_submit(tenant="ada").outcome is SubmitOutcome.RATE_EXCEEDED


def test_a_known_submission_is_never_refused(harness: LedgerHarness) -> None:
    change(harness, submit_rate=1)
    key = Idempotency(key="k", fingerprint="f")
    first = harness.try_submit("one", tenant="ada", idempotency=key)
    again = harness.try_submit("two", tenant="ada", idempotency=key)
    assert (first.outcome, again.outcome) == (SubmitOutcome.ACCEPTED, SubmitOutcome.EXISTS)
    assert harness.try_submit("one", tenant="ada").outcome is SubmitOutcome.EXISTS


def test_a_refused_submission_uses_nothing_of_the_rate(harness: LedgerHarness) -> None:
    change(harness, submit_rate=3, max_queued=1)
    harness.submit(tenant="ada")
    for _ in range(5):
        assert harness.try_submit(tenant="ada").outcome is SubmitOutcome.TENANT_FULL
    assert harness.take()
    harness.submit(tenant="ada")


# --- queued jobs --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("own", "accepted"), [(None, 2), (4, 4), (1, 1), (0, 9)])
def test_a_tenant_s_own_limit_comes_before_the_deployment_s(
    harness: LedgerHarness, own: int | None, accepted: int
) -> None:
    change(harness, max_queued=own)
    limits = Limits(max_queued_per_tenant=2)
    outcomes = [harness.try_submit(tenant="ada", limits=limits).outcome for _ in range(9)]
    assert outcomes.count(SubmitOutcome.ACCEPTED) == accepted


# --- settings -----------------------------------------------------------------------------------------


def test_settings_are_kept_changed_and_removed(harness: LedgerHarness) -> None:
    state = change(harness, weight=3, max_running=2, submit_rate=60, max_queued=10)
    assert state == TenantState(
        name="ada",
        settings=TenantSettings(weight=3, max_running=2, submit_rate=60, max_queued=10),
    )
    assert change(harness, submit_rate=None).settings.submit_rate is None
    change(harness, "bob", weight=2)
    harness.submit_many(3, tenant="ada")
    harness.take_many(1)
    listed = harness.ledger.run(tenants.each())
    assert [(one.name, one.settings.weight, one.queued, one.running) for one in listed] == [
        ("ada", 3, 2, 1),
        ("bob", 2, 0, 0),
    ]
    assert harness.ledger.run(tenants.look("ada")) == listed[0]
    assert harness.ledger.run(tenants.look("cleo")) == TenantState(name="cleo")
    for name in ("ada", "bob"):
        change(harness, name, weight=None, max_running=None, submit_rate=None, max_queued=None)
    assert harness.ledger.run(tenants.each()) == []
    assert not [name for name in harness.key_names() if ":tenant" in name]
