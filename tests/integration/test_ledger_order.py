"""Which job is next: high, normal and low by their weights, tenants by turns, the oldest first."""

from __future__ import annotations

from collections import Counter

import pytest

from . import ledger_desk
from .ledger_desk import Desk

desk = ledger_desk.desk

WEIGHTS = {"high": 6, "normal": 3, "low": 1}
MANY = 1000


def backlogs(desk: Desk, *levels: str, jobs: int = 100) -> dict[str, str]:
    """The level of each job, of as many jobs on each level."""
    return {job_id: level for level in levels for job_id in desk.submit_many(jobs, priority=level)}


def tenants(desk: Desk, *names: str | None, jobs: int = 10) -> dict[str, str]:
    """The tenant of each job, of as many jobs each; '' who has no name."""
    return {job_id: name or "" for name in names for job_id in desk.submit_many(jobs, tenant=name)}


# --- levels -------------------------------------------------------------------------------------------


def test_three_levels_share_six_to_three_to_one(desk: Desk) -> None:
    level_of = backlogs(desk, "low", "normal", "high")
    taken = [level_of[job_id] for job_id in desk.take_many(100)]
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
    desk: Desk, levels: tuple[str, str], shares: dict[str, int]
) -> None:
    level_of = backlogs(desk, *levels)
    assert Counter(level_of[job_id] for job_id in desk.take_many(sum(shares.values()))) == shares


@pytest.mark.parametrize("level", WEIGHTS)
def test_a_level_that_waits_alone_has_every_claim(desk: Desk, level: str) -> None:
    jobs = desk.submit_many(20, priority=level)
    assert desk.take_many(30) == jobs


def test_shares_are_each_model_s_own(desk: Desk) -> None:
    level_of = backlogs(desk, "high", "low", jobs=7)
    desk.serve("another")
    others = desk.submit_many(7, priority="low", model="another")
    for other in others:
        assert desk.take(model="another") == other
    assert [level_of[job_id] for job_id in desk.take_many(7)].count("low") == 1


def test_an_urgent_job_behind_a_thousand_others_is_the_very_next(desk: Desk) -> None:
    desk.submit_many(MANY, priority="low")
    assert desk.take()
    urgent = desk.submit(priority="high")
    assert desk.take() == urgent
    # Its ticket stands behind theirs, and one of those did for it
    assert desk.tickets() == MANY - 1


@pytest.mark.parametrize("pause", [1, 2, 3, 7])
def test_urgent_jobs_now_and_then_never_wait(desk: Desk, pause: int) -> None:
    backlogs(desk, "normal", "low", jobs=60)
    for _ in range(12):
        desk.take_many(pause)
        urgent = desk.submit(priority="high")
        assert desk.take() == urgent


def test_a_level_gathers_no_claims_while_it_is_empty(desk: Desk) -> None:
    """Or the first jobs after a quiet hour would hold up everybody else."""
    desk.submit_many(200, priority="low")
    desk.take_many(100)
    level_of = backlogs(desk, "high", jobs=20)
    taken = [level_of.get(job_id, "low") for job_id in desk.take_many(15)]
    assert Counter(taken) == {"high": 13, "low": 2}
    assert [Counter(part)["low"] for part in (taken[:8], taken[8:])] == [1, 1]


def test_a_level_keeps_no_debt_either(desk: Desk) -> None:
    """What it had while it had jobs is settled: after a pause it begins like any other."""
    backlogs(desk, "normal", "low", jobs=10)
    first = desk.submit(priority="high")
    assert desk.take_many(3)[0] == first
    urgent = desk.submit(priority="high")
    assert desk.take() == urgent


def test_endless_urgent_jobs_leave_a_tenth_to_the_others(desk: Desk) -> None:
    # Given a job of the lowest level each ten claims, while the others never run dry
    low = desk.submit_many(10, priority="low")
    backlogs(desk, "high", "normal", jobs=5)
    # When
    taken = []
    for _ in range(100):
        taken += desk.take_many(1)
        desk.submit(priority="high")
        desk.submit(priority="normal")
    # Then none of them waited longer than its share says
    places = [taken.index(job_id) for job_id in low]
    assert all(later - earlier <= 10 for earlier, later in zip([0, *places], places, strict=False))


def test_an_urgent_job_now_and_then_waits_one_claim_at_most(desk: Desk) -> None:
    backlogs(desk, "normal", "low")
    for _ in range(30):
        desk.take_many(2)
        urgent = desk.submit(priority="high")
        assert urgent in desk.take_many(2)


# --- tenants ------------------------------------------------------------------------------------------


def test_tenants_are_served_by_turns(desk: Desk) -> None:
    owner = tenants(desk, "ada", "bob", None)
    taken = [owner[job_id] for job_id in desk.take_many(30)]
    rounds = [set(taken[start : start + 3]) for start in range(0, 30, 3)]
    assert rounds == [{"ada", "bob", ""}] * 10


@pytest.mark.parametrize("only", ["aaa", "zzz", None])
def test_a_tenant_s_only_job_waits_for_one_of_a_thousand_others(
    desk: Desk, only: str | None
) -> None:
    desk.submit_many(MANY, tenant="many")
    desk.take_many(5)
    job_id = desk.submit(tenant=only)
    assert job_id in desk.take_many(2)


def test_a_new_tenant_waits_a_round_at_most_and_overtakes_nobody_due(desk: Desk) -> None:
    # Given three tenants, of which one was served in this round
    owner = tenants(desk, "bob", "cleo", "dora")
    (first,) = desk.take_many(1)
    due = {"bob", "cleo", "dora"} - {owner[first]}
    # When
    owner |= tenants(desk, "ada")
    taken = [owner[job_id] for job_id in desk.take_many(4)]
    # Then
    assert set(taken[:2]) == due
    assert "ada" in taken


def test_who_comes_back_again_and_again_gains_no_turn(desk: Desk) -> None:
    """With one job at a time a tenant is new at each: it is served as often as one with a backlog."""
    tenants(desk, "bob", "cleo", jobs=50)
    single = desk.submit(tenant="ada")
    served = 0
    for _ in range(90):
        if single in desk.take_many(1):
            served += 1
            single = desk.submit(tenant="ada")
    assert 25 <= served <= 31


def test_turns_are_each_level_s_own(desk: Desk) -> None:
    """A tenant's urgent jobs do not cost it the turns of its others."""
    high = desk.submit_many(2, priority="high", tenant="ada")
    normal = [desk.submit(tenant=name) for name in ("ada", "bob")]
    assert set(desk.take_many(4)) == {*high, *normal}
    assert (desk.turns("high"), desk.turns("normal")) == ([], [])


def test_a_tenant_leaves_the_turns_with_its_last_ready_job(desk: Desk) -> None:
    canceled, expired = desk.submit(tenant="ada"), desk.submit(tenant="bob")
    delayed = desk.submit(tenant="cleo")
    assert desk.turns() == ["ada", "bob", "cleo"]
    desk.cancel(canceled)
    desk.time_is_up(expired)
    desk.sweep()
    desk.release(delayed, desk.claim(delayed), delay_s=60)
    assert desk.turns() == []
    assert [name for name in desk.key_names() if ":ready:" in name] == []
    # And comes back with it
    desk.backoff_passes(delayed)
    desk.sweep()
    assert desk.turns() == ["cleo"]


# --- ages ---------------------------------------------------------------------------------------------


def test_a_tenant_s_oldest_job_is_next(desk: Desk) -> None:
    jobs = desk.submit_many(20, tenant="ada")
    assert desk.take_many(20) == jobs


def test_age_is_told_by_redis_clock_not_by_names(desk: Desk) -> None:
    older = desk.submit("z")
    while desk.now_ms() <= desk.record(older).created_ms:
        pass
    newer = desk.submit("a")
    assert desk.take_many(2) == [older, newer]


@pytest.mark.parametrize("delay_s", [0.0, 60.0])
def test_a_released_job_goes_to_the_front(desk: Desk, delay_s: float) -> None:
    # Given the oldest job in a worker's hands, and a backlog
    first, *_ = desk.submit_many(20)
    token = desk.claim(first)
    desk.take_many(5)
    # When it is given back, and its back-off has passed
    desk.release(first, token, delay_s=delay_s)
    desk.backoff_passes(first)
    desk.sweep()
    # Then
    assert desk.take_many(1) == [first]


def test_a_swept_job_goes_to_the_front(desk: Desk) -> None:
    first, *_ = desk.submit_many(20)
    desk.take_many(5)
    desk.lease_runs_out(first)
    assert desk.sweep().reaped == 1
    assert desk.try_claim().job_id == first
