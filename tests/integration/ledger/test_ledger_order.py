"""Which job is next: tenants by turns, each tenant's levels by their weights, the oldest first."""

from __future__ import annotations

from collections import Counter

import pytest
from support import ledger_harness
from support.ledger_harness import LedgerHarness

harness = ledger_harness.harness

WEIGHTS = {"high": 6, "normal": 3, "low": 1}
MANY = 1000


def backlogs(harness: LedgerHarness, *levels: str, jobs: int = 100) -> dict[str, str]:
    """The level of each job, of as many jobs on each level."""
    return {
        job_id: level for level in levels for job_id in harness.submit_many(jobs, priority=level)
    }


def tenants(harness: LedgerHarness, *names: str | None, jobs: int = 10) -> dict[str, str]:
    """The tenant of each job, of as many jobs each; '' who has no name."""
    return {
        job_id: name or "" for name in names for job_id in harness.submit_many(jobs, tenant=name)
    }


# --- levels -------------------------------------------------------------------------------------------


def test_three_levels_share_six_to_three_to_one(harness: LedgerHarness) -> None:
    level_of = backlogs(harness, "low", "normal", "high")
    taken = [level_of[job_id] for job_id in harness.take_many(100)]
    assert Counter(taken) == {"high": 60, "normal": 30, "low": 10}
    # And not in lumps: each ten claims have the shares already
    tens = [Counter(taken[start : start + 10]) for start in range(0, 100, 10)]
    assert tens == [Counter(WEIGHTS)] * 10


@pytest.mark.parametrize(
    ("levels", "shares"),
    [
        (("high", "normal"), {"high": 66, "normal": 33}),
        (("high", "low"), {"high": 84, "low": 14}),
        (("normal", "low"), {"normal": 75, "low": 25}),
    ],
)
def test_two_levels_share_what_the_third_leaves(
    harness: LedgerHarness, levels: tuple[str, str], shares: dict[str, int]
) -> None:
    level_of = backlogs(harness, *levels)
    assert Counter(level_of[job_id] for job_id in harness.take_many(sum(shares.values()))) == shares


@pytest.mark.parametrize("level", WEIGHTS)
def test_a_level_that_waits_alone_has_every_claim(harness: LedgerHarness, level: str) -> None:
    jobs = harness.submit_many(20, priority=level)
    assert harness.take_many(30) == jobs


def test_shares_are_each_model_s_own(harness: LedgerHarness) -> None:
    level_of = backlogs(harness, "high", "low", jobs=7)
    harness.serve("another")
    others = harness.submit_many(7, priority="low", model="another")
    for other in others:
        assert harness.take(model="another") == other
    assert [level_of[job_id] for job_id in harness.take_many(7)].count("low") == 1


def test_an_urgent_job_behind_a_thousand_others_is_the_very_next(harness: LedgerHarness) -> None:
    harness.submit_many(MANY, priority="low")
    assert harness.take()
    urgent = harness.submit(priority="high")
    assert harness.take() == urgent
    # Its ticket stands behind theirs, and one of those did for it
    assert harness.tickets() == MANY - 1


@pytest.mark.parametrize("pause", [1, 2, 3, 7])
def test_urgent_jobs_now_and_then_never_wait(harness: LedgerHarness, pause: int) -> None:
    backlogs(harness, "normal", "low", jobs=60)
    for _ in range(12):
        harness.take_many(pause)
        urgent = harness.submit(priority="high")
        assert harness.take() == urgent


def test_a_level_gathers_no_claims_while_it_is_empty(harness: LedgerHarness) -> None:
    """Or the first jobs after a quiet hour would hold up everybody else."""
    harness.submit_many(200, priority="low")
    harness.take_many(100)
    level_of = backlogs(harness, "high", jobs=20)
    taken = [level_of.get(job_id, "low") for job_id in harness.take_many(15)]
    assert Counter(taken) == {"high": 13, "low": 2}
    assert [Counter(part)["low"] for part in (taken[:8], taken[8:])] == [1, 1]


def test_a_level_keeps_no_debt_either(harness: LedgerHarness) -> None:
    """What it had while it had jobs is settled: after a pause it begins like any other."""
    backlogs(harness, "normal", "low", jobs=10)
    first = harness.submit(priority="high")
    assert harness.take_many(3)[0] == first
    urgent = harness.submit(priority="high")
    assert harness.take() == urgent


def test_endless_urgent_jobs_leave_a_tenth_to_the_others(harness: LedgerHarness) -> None:
    # Given a job of the lowest level each ten claims, while the others never run dry
    low = harness.submit_many(10, priority="low")
    backlogs(harness, "high", "normal", jobs=5)
    # When
    taken = []
    for _ in range(100):
        taken += harness.take_many(1)
        harness.submit(priority="high")
        harness.submit(priority="normal")
    # Then none of them waited longer than its share says
    places = [taken.index(job_id) for job_id in low]
    assert all(later - earlier <= 10 for earlier, later in zip([0, *places], places, strict=False))


def test_an_urgent_job_now_and_then_waits_one_claim_at_most(harness: LedgerHarness) -> None:
    backlogs(harness, "normal", "low")
    for _ in range(30):
        harness.take_many(2)
        urgent = harness.submit(priority="high")
        assert urgent in harness.take_many(2)


# --- tenants ------------------------------------------------------------------------------------------


def test_tenants_are_served_by_turns(harness: LedgerHarness) -> None:
    owner = tenants(harness, "ada", "bob", None)
    taken = [owner[job_id] for job_id in harness.take_many(30)]
    rounds = [set(taken[start : start + 3]) for start in range(0, 30, 3)]
    assert rounds == [{"ada", "bob", ""}] * 10


@pytest.mark.parametrize("only", ["aaa", "zzz", None])
def test_a_tenant_s_only_job_waits_for_one_of_a_thousand_others(
    harness: LedgerHarness, only: str | None
) -> None:
    harness.submit_many(MANY, tenant="many")
    harness.take_many(5)
    job_id = harness.submit(tenant=only)
    assert job_id in harness.take_many(2)


def test_a_new_tenant_waits_a_round_at_most_and_overtakes_nobody_due(
    harness: LedgerHarness,
) -> None:
    # Given three tenants, of which one was served in this round
    owner = tenants(harness, "bob", "cleo", "dora")
    (first,) = harness.take_many(1)
    due = {"bob", "cleo", "dora"} - {owner[first]}
    # When
    owner |= tenants(harness, "ada")
    taken = [owner[job_id] for job_id in harness.take_many(4)]
    # Then
    assert set(taken[:2]) == due
    assert "ada" in taken


def test_who_comes_back_again_and_again_gains_no_turn(harness: LedgerHarness) -> None:
    """With one job at a time a tenant is new at each: it is served as often as one with a backlog."""
    tenants(harness, "bob", "cleo", jobs=50)
    single = harness.submit(tenant="ada")
    served = 0
    for _ in range(90):
        if single in harness.take_many(1):
            served += 1
            single = harness.submit(tenant="ada")
    assert 25 <= served <= 31


def test_a_tenant_s_urgent_jobs_cost_it_its_own_turns(harness: LedgerHarness) -> None:
    """Or a tenant would gain by calling all its jobs urgent."""
    owner = {
        job_id: name
        for name, level in (("ada", "high"), ("bob", "normal"), ("cleo", "low"))
        for job_id in harness.submit_many(20, priority=level, tenant=name)
    }
    taken = [owner[job_id] for job_id in harness.take_many(30)]
    assert Counter(taken) == {"ada": 10, "bob": 10, "cleo": 10}


def test_levels_are_shared_within_each_tenant(harness: LedgerHarness) -> None:
    place_of = {
        job_id: (name, level)
        for name in ("ada", "bob")
        for level in WEIGHTS
        for job_id in harness.submit_many(60, priority=level, tenant=name)
    }
    taken = Counter(place_of[job_id] for job_id in harness.take_many(200))
    assert taken == {
        (name, level): 10 * weight for name in ("ada", "bob") for level, weight in WEIGHTS.items()
    }


def test_a_tenant_without_ready_jobs_leaves_at_its_turn(harness: LedgerHarness) -> None:
    canceled, expired = harness.submit(tenant="ada"), harness.submit(tenant="bob")
    delayed = harness.submit(tenant="cleo")
    assert harness.turns() == ["ada", "bob", "cleo"]
    harness.cancel(canceled)
    harness.time_is_up(expired)
    harness.sweep()
    harness.release(delayed, harness.claim(delayed), delay_s=60)
    assert not harness.take_many(1)
    assert harness.turns() == []
    assert [name for name in harness.key_names() if ":ready:" in name] == []
    # And comes back with it
    harness.backoff_passes(delayed)
    harness.sweep()
    assert harness.turns() == ["cleo"]


# --- ages ---------------------------------------------------------------------------------------------


def test_a_tenant_s_oldest_job_is_next(harness: LedgerHarness) -> None:
    jobs = harness.submit_many(20, tenant="ada")
    assert harness.take_many(20) == jobs


def test_age_is_told_by_redis_clock_not_by_names(harness: LedgerHarness) -> None:
    older = harness.submit("z")
    while harness.now_ms() <= harness.record(older).created_ms:
        pass
    newer = harness.submit("a")
    assert harness.take_many(2) == [older, newer]


@pytest.mark.parametrize("delay_s", [0.0, 60.0])
def test_a_released_job_goes_to_the_front(harness: LedgerHarness, delay_s: float) -> None:
    # Given the oldest job in a worker's hands, and a backlog
    first, *_ = harness.submit_many(20)
    token = harness.claim(first)
    harness.take_many(5)
    # When it is given back, and its back-off has passed
    harness.release(first, token, delay_s=delay_s)
    harness.backoff_passes(first)
    harness.sweep()
    # Then
    assert harness.take_many(1) == [first]


def test_a_swept_job_goes_to_the_front(harness: LedgerHarness) -> None:
    first, *_ = harness.submit_many(20)
    harness.take_many(5)
    harness.lease_runs_out(first)
    assert harness.sweep().reaped == 1
    assert harness.try_claim().job_id == first
