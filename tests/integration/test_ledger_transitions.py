"""Every state against every call: what is not drawn in contract/jobs.py is refused and writes nothing.

And every call sent twice, as after a lost answer: the same answer, and nothing is written again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from maskq.contract import JobStatus
from maskq.contract.ids import new_id, new_token
from maskq.ledger.calls import (
    BatchMembership,
    Claimed,
    ClaimOutcome,
    Idempotency,
    ReleaseOutcome,
    SubmitOutcome,
)

from . import ledger_desk
from .ledger_desk import Desk

desk = ledger_desk.desk


@dataclass(frozen=True)
class Case:
    """A job in some state, and a token that held it once (or none ever did)."""

    job_id: str
    token: str


def _never_submitted(desk: Desk) -> Case:
    return Case(new_id(), new_token())


def _queued(desk: Desk) -> Case:
    return Case(desk.submit(), new_token())


def _queued_again(desk: Desk) -> Case:
    case = Case(*desk.claimed_job())
    desk.lease_runs_out(case.job_id)
    assert desk.sweep().reaped == 1
    return case


def _backing_off(desk: Desk) -> Case:
    case = Case(*desk.claimed_job())
    desk.release(case.job_id, case.token, delay_s=60)
    return case


def _held_elsewhere(desk: Desk) -> Case:
    case = _queued_again(desk)
    desk.claim(case.job_id, exclusive=True)
    return case


def _succeeded(desk: Desk) -> Case:
    case = Case(*desk.claimed_job())
    desk.succeed(case.job_id, case.token)
    return case


def _succeeded_elsewhere(desk: Desk) -> Case:
    case = _queued_again(desk)
    desk.succeed(case.job_id, desk.claim(case.job_id, exclusive=True))
    return case


def _failed(desk: Desk) -> Case:
    case = Case(*desk.claimed_job())
    desk.fail(case.job_id, case.token)
    return case


def _failed_elsewhere(desk: Desk) -> Case:
    case = _queued_again(desk)
    desk.fail(case.job_id, desk.claim(case.job_id, exclusive=True))
    return case


def _failed_at_release(desk: Desk) -> Case:
    case = Case(*desk.claimed_job(max_attempts=1))
    assert desk.release(case.job_id, case.token) is ReleaseOutcome.FAILED
    return case


def _timed_out(desk: Desk) -> Case:
    case = Case(*desk.claimed_job())
    desk.time_is_up(case.job_id)
    assert desk.sweep().due == 1
    return case


def _worker_lost(desk: Desk) -> Case:
    case = Case(*desk.claimed_job(exclusive=True, max_attempts=1))
    desk.lease_runs_out(case.job_id)
    assert desk.sweep().reaped == 1
    return case


def _canceled(desk: Desk) -> Case:
    case = Case(*desk.claimed_job())
    desk.cancel(case.job_id)
    return case


def _expired(desk: Desk) -> Case:
    case = _queued_again(desk)
    desk.time_is_up(case.job_id)
    assert desk.sweep().due == 1
    return case


STATES: dict[str, Callable[[Desk], Case]] = {
    make.__name__.removeprefix("_"): make
    for make in (
        _never_submitted,
        _queued,
        _queued_again,
        _backing_off,
        _held_elsewhere,
        _succeeded,
        _succeeded_elsewhere,
        _failed,
        _failed_elsewhere,
        _failed_at_release,
        _timed_out,
        _worker_lost,
        _canceled,
        _expired,
    )
}
ENDED = {
    name: JobStatus(status)
    for name, status in {
        "succeeded": "succeeded",
        "succeeded_elsewhere": "succeeded",
        "failed": "failed",
        "failed_elsewhere": "failed",
        "failed_at_release": "failed",
        "timed_out": "failed",
        "worker_lost": "failed",
        "canceled": "canceled",
        "expired": "expired",
    }.items()
}

Ask = Callable[[Desk, Case], Any]
TO_BE_HAD = {"queued", "queued_again"}
CLAIMS = ("take", "take_alone", "claim", "claim_alone")  # the next job, or this one
CALLS: dict[str, Ask] = {
    "submit": lambda desk, case: desk.try_submit(case.job_id, priority="low").outcome,
    "take": lambda desk, case: desk.try_claim().outcome,
    "take_alone": lambda desk, case: desk.try_claim(exclusive=True).outcome,
    "claim": lambda desk, case: desk.try_claim(job_id=case.job_id).outcome,
    "claim_alone": lambda desk, case: desk.try_claim(job_id=case.job_id, exclusive=True).outcome,
    "renew": lambda desk, case: desk.renew({case.job_id: case.token}) == {case.token},
    "succeed": lambda desk, case: desk.succeed(case.job_id, case.token),
    "fail": lambda desk, case: desk.fail(case.job_id, case.token),
    "release": lambda desk, case: desk.release(case.job_id, case.token),
    "cancel": lambda desk, case: desk.cancel(case.job_id),
    "delete": lambda desk, case: desk.delete(case.job_id),
    "sweep": lambda desk, case: desk.sweep(after_ms=None),
}


def refusals() -> dict[tuple[str, str], Any]:
    """What each call answers in each state where it must change nothing."""
    table: dict[tuple[str, str], Any] = {}
    for state in STATES:
        table[state, "renew"] = True
        table[state, "succeed"] = False
        table[state, "fail"] = False
        table[state, "release"] = ReleaseOutcome.LOST
        table[state, "submit"] = SubmitOutcome.EXISTS
        table[state, "delete"] = "queued"
        if state not in TO_BE_HAD:
            table |= {(state, claim): ClaimOutcome.NONE for claim in CLAIMS}
    for state, status in ENDED.items():
        table[state, "cancel"] = status
        del table[state, "delete"]
    table["held_elsewhere", "delete"] = "running"
    table["never_submitted", "delete"] = "unknown"
    table["never_submitted", "cancel"] = None
    del table["never_submitted", "submit"]
    # The holder's own call, sent once more: the first answer again.
    table["succeeded", "succeed"] = True
    table["failed", "fail"] = True
    table["backing_off", "release"] = ReleaseOutcome.QUEUED
    table["failed_at_release", "release"] = ReleaseOutcome.FAILED
    return table


REFUSALS = refusals()
# Drawn transitions; the tests of each call look at them.
ALLOWED = {
    ("never_submitted", "submit"),
    *((state, claim) for state in TO_BE_HAD for claim in CLAIMS),
    *((state, "cancel") for state in (*TO_BE_HAD, "backing_off", "held_elsewhere")),
    *((state, "delete") for state in ENDED),
}


def test_the_tables_name_every_pair_of_state_and_call() -> None:
    pairs = {(state, call) for state in STATES for call in CALLS if call != "sweep"}
    assert set(REFUSALS) | ALLOWED == pairs
    assert set(REFUSALS) & ALLOWED == set()


@pytest.mark.parametrize(("state", "call"), REFUSALS, ids="-".join)
def test_what_is_not_drawn_is_refused_and_nothing_is_written(
    desk: Desk, state: str, call: str
) -> None:
    # Given
    case = STATES[state](desk)
    before = desk.everything()
    # When
    answer = CALLS[call](desk, case)
    # Then
    assert answer == REFUSALS[state, call]
    assert desk.everything() == before


@pytest.mark.parametrize("state", ENDED)
def test_no_sweep_changes_what_has_ended(desk: Desk, state: str) -> None:
    # Given an ended job that every set of the ledger still names, as if a script had forgotten to
    case = STATES[state](desk)
    record, events = desk.raw(case.job_id), desk.events()
    for name in ("leases", "deadlines", "waiting"):
        desk.redis.zadd(desk.key(name), {case.job_id: 1})
    # When
    desk.settle()
    # Then
    assert (desk.raw(case.job_id), desk.events()) == (record, events)
    assert desk.places(case.job_id) == {"ended"}


# --- sent twice ---------------------------------------------------------------------------------------


def without(everything: dict[str, Any], times: str) -> dict[str, Any]:
    """All but the set in which a call sent again may put a later time."""
    return {name: value for name, value in everything.items() if name != times}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"tenant": "ada"},
        {"idempotency": Idempotency(key="k", fingerprint="f")},
        {"batch": BatchMembership(batch_id="b", total=1)},
        {"celery_head": "{"},
    ],
    ids=["plain", "tenant", "idempotency", "batch", "celery"],
)
def test_submit_sent_twice_stands_once(desk: Desk, options: dict[str, Any]) -> None:
    """The caller takes `exists` of its own fresh id for the acceptance that it is."""
    job_id = new_id()
    first = desk.try_submit(job_id, **options)
    before = desk.everything()
    again = desk.try_submit(job_id, **options)
    assert (first.outcome, again.outcome) == (SubmitOutcome.ACCEPTED, SubmitOutcome.EXISTS)
    assert first.job_id == again.job_id
    assert desk.everything() == before


@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("by_name", [False, True])
def test_claim_sent_twice_is_one_attempt_of_one_job(
    desk: Desk, by_name: bool, exclusive: bool
) -> None:
    """Though another one would be next by then."""
    job_id, _ = desk.submit(), desk.submit()
    wanted = job_id if by_name else ""
    first = desk.try_claim("t", job_id=wanted, exclusive=exclusive)
    before = desk.everything()
    assert desk.try_claim("t", job_id=wanted, exclusive=exclusive) == first
    assert desk.everything() == before


@pytest.mark.parametrize("by_name", [False, True])
def test_claim_of_an_expired_job_sent_twice_ends_it_once(desk: Desk, by_name: bool) -> None:
    job_id = desk.submit()
    desk.time_is_up(job_id)
    wanted = job_id if by_name else ""
    first = desk.try_claim("t", job_id=wanted)
    ended = desk.raw(job_id), desk.events()
    assert desk.try_claim("t", job_id=wanted) == first
    assert (desk.raw(job_id), desk.events()) == ended
    assert desk.record(job_id).status is JobStatus.EXPIRED


@pytest.mark.parametrize("by_name", [False, True])
def test_claim_answered_alone_sent_twice_names_the_same_job(desk: Desk, by_name: bool) -> None:
    """Another one is not taken instead: the first would wait for a worker that knows nothing of it."""
    case, _ = _queued_again(desk), desk.submit()
    wanted = case.job_id if by_name else ""
    first = desk.try_claim("t", job_id=wanted)
    assert first == Claimed(ClaimOutcome.ALONE, job_id=case.job_id)
    before = desk.everything()
    assert desk.try_claim("t", job_id=wanted) == first
    assert desk.everything() == before
    assert desk.places(case.job_id) == {"waiting", "deadlines"}


def test_renew_sent_twice_answers_the_same(desk: Desk) -> None:
    job_id, token = desk.claimed_job()
    held = {job_id: token, "never": "lost"}
    leases = desk.key("leases")
    first = desk.renew(held)
    before = without(desk.everything(), leases)
    assert desk.renew(held) == first == {"lost"}
    assert without(desk.everything(), leases) == before


@pytest.mark.parametrize("call", ["succeed", "fail", "cancel"])
def test_an_end_sent_twice_is_one_event(desk: Desk, call: str) -> None:
    case = Case(*desk.claimed_job(batch=BatchMembership(batch_id="b", total=1), celery_head="{"))
    first = CALLS[call](desk, case)
    before = desk.everything()
    assert CALLS[call](desk, case) == first
    assert desk.everything() == before
    assert desk.kinds("b") == ["maskq.batch.completed"]


@pytest.mark.parametrize("charged", [True, False])
@pytest.mark.parametrize("delay_s", [0.0, 60.0])
@pytest.mark.parametrize("max_attempts", [1, 2])
def test_release_sent_twice_is_one_charge_and_one_ticket(
    desk: Desk, charged: bool, delay_s: float, max_attempts: int
) -> None:
    job_id, token = desk.claimed_job(max_attempts=max_attempts)
    first = desk.release(job_id, token, charged=charged, delay_s=delay_s)
    before = desk.everything()
    assert desk.release(job_id, token, charged=charged, delay_s=delay_s) is first
    assert desk.everything() == before


def test_sweep_sent_twice_works_once(desk: Desk) -> None:
    job_id, _ = desk.claimed_job()
    desk.lease_runs_out(job_id)
    assert desk.sweep().reaped == 1
    before = desk.everything()
    assert desk.sweep(after_ms=None).swept == 0
    assert desk.everything() == before
