"""Every state against every call: what statuses.py does not draw is refused and writes nothing.

And every call sent twice, as after a lost answer: the same answer, and nothing is written again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from support import ledger_harness
from support.ledger_harness import LedgerHarness

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

harness = ledger_harness.harness


@dataclass(frozen=True)
class Case:
    """A job in some state, and a token that held it once (or none ever did)."""

    job_id: str
    token: str


def _never_submitted(harness: LedgerHarness) -> Case:
    return Case(new_id(), new_token())


def _queued(harness: LedgerHarness) -> Case:
    return Case(harness.submit(), new_token())


def _queued_again(harness: LedgerHarness) -> Case:
    case = Case(*harness.claimed_job())
    harness.lease_runs_out(case.job_id)
    assert harness.sweep().reaped == 1
    return case


def _backing_off(harness: LedgerHarness) -> Case:
    case = Case(*harness.claimed_job())
    harness.release(case.job_id, case.token, delay_s=60)
    return case


def _held_elsewhere(harness: LedgerHarness) -> Case:
    case = _queued_again(harness)
    harness.claim(case.job_id, exclusive=True)
    return case


def _succeeded(harness: LedgerHarness) -> Case:
    case = Case(*harness.claimed_job())
    harness.succeed(case.job_id, case.token)
    return case


def _succeeded_elsewhere(harness: LedgerHarness) -> Case:
    case = _queued_again(harness)
    harness.succeed(case.job_id, harness.claim(case.job_id, exclusive=True))
    return case


def _failed(harness: LedgerHarness) -> Case:
    case = Case(*harness.claimed_job())
    harness.fail(case.job_id, case.token)
    return case


def _failed_elsewhere(harness: LedgerHarness) -> Case:
    case = _queued_again(harness)
    harness.fail(case.job_id, harness.claim(case.job_id, exclusive=True))
    return case


def _failed_at_release(harness: LedgerHarness) -> Case:
    case = Case(*harness.claimed_job(max_attempts=1))
    assert harness.release(case.job_id, case.token) is ReleaseOutcome.FAILED
    return case


def _timed_out(harness: LedgerHarness) -> Case:
    case = Case(*harness.claimed_job())
    harness.time_is_up(case.job_id)
    assert harness.sweep().due == 1
    return case


def _worker_lost(harness: LedgerHarness) -> Case:
    case = Case(*harness.claimed_job(exclusive=True, max_attempts=1))
    harness.lease_runs_out(case.job_id)
    assert harness.sweep().reaped == 1
    return case


def _canceled(harness: LedgerHarness) -> Case:
    case = Case(*harness.claimed_job())
    harness.cancel(case.job_id)
    return case


def _expired(harness: LedgerHarness) -> Case:
    case = _queued_again(harness)
    harness.time_is_up(case.job_id)
    assert harness.sweep().due == 1
    return case


STATES: dict[str, Callable[[LedgerHarness], Case]] = {
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

Ask = Callable[[LedgerHarness, Case], Any]
TO_BE_HAD = {"queued", "queued_again"}
CLAIMS = ("take", "take_alone", "claim", "claim_alone")  # the next job, or this one
CALLS: dict[str, Ask] = {
    "submit": lambda harness, case: harness.try_submit(case.job_id, priority="low").outcome,
    "take": lambda harness, case: harness.try_claim().outcome,
    "take_alone": lambda harness, case: harness.try_claim(exclusive=True).outcome,
    "claim": lambda harness, case: harness.try_claim(job_id=case.job_id).outcome,
    "claim_alone": lambda harness, case: (
        harness.try_claim(job_id=case.job_id, exclusive=True).outcome
    ),
    "renew": lambda harness, case: harness.renew({case.job_id: case.token}) == {case.token},
    "succeed": lambda harness, case: harness.succeed(case.job_id, case.token),
    "fail": lambda harness, case: harness.fail(case.job_id, case.token),
    "release": lambda harness, case: harness.release(case.job_id, case.token),
    "cancel": lambda harness, case: harness.cancel(case.job_id),
    "delete": lambda harness, case: harness.delete(case.job_id),
    "sweep": lambda harness, case: harness.sweep(after_ms=None),
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


@pytest.mark.parametrize(("state", "call"), REFUSALS)
def test_what_is_not_drawn_is_refused_and_nothing_is_written(
    harness: LedgerHarness, state: str, call: str
) -> None:
    # Given
    case = STATES[state](harness)
    before = harness.everything_but_turns()
    # When
    answer = CALLS[call](harness, case)
    # Then
    assert answer == REFUSALS[state, call]
    assert harness.everything_but_turns() == before
    # And asked again, it does not even end a turn
    before = harness.everything()
    assert CALLS[call](harness, case) == answer
    assert harness.everything() == before


@pytest.mark.parametrize("state", ENDED)
def test_no_sweep_changes_what_has_ended(harness: LedgerHarness, state: str) -> None:
    # Given an ended job that every set of the ledger still names, as if a script had forgotten to
    case = STATES[state](harness)
    record, events = harness.raw(case.job_id), harness.events()
    for name in ("leases", "deadlines", "waiting"):
        harness.redis.zadd(harness.key(name), {case.job_id: 1})
    # When
    harness.settle()
    # Then
    assert (harness.raw(case.job_id), harness.events()) == (record, events)
    assert harness.indexes(case.job_id) == {"ended"}


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
def test_submit_sent_twice_stands_once(harness: LedgerHarness, options: dict[str, Any]) -> None:
    """The caller takes `exists` of its own fresh id for the acceptance that it is."""
    job_id = new_id()
    first = harness.try_submit(job_id, **options)
    before = harness.everything()
    again = harness.try_submit(job_id, **options)
    assert (first.outcome, again.outcome) == (SubmitOutcome.ACCEPTED, SubmitOutcome.EXISTS)
    assert first.job_id == again.job_id
    assert harness.everything() == before


@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("by_name", [False, True])
def test_claim_sent_twice_is_one_attempt_of_one_job(
    harness: LedgerHarness, by_name: bool, exclusive: bool
) -> None:
    """Though another one would be next by then."""
    job_id, _ = harness.submit(), harness.submit()
    wanted = job_id if by_name else ""
    first = harness.try_claim("t", job_id=wanted, exclusive=exclusive)
    before = harness.everything()
    assert harness.try_claim("t", job_id=wanted, exclusive=exclusive) == first
    assert harness.everything() == before


@pytest.mark.parametrize("by_name", [False, True])
def test_claim_of_an_expired_job_sent_twice_ends_it_once(
    harness: LedgerHarness, by_name: bool
) -> None:
    job_id = harness.submit()
    harness.time_is_up(job_id)
    wanted = job_id if by_name else ""
    first = harness.try_claim("t", job_id=wanted)
    ended = harness.raw(job_id), harness.events()
    assert harness.try_claim("t", job_id=wanted) == first
    assert (harness.raw(job_id), harness.events()) == ended
    assert harness.record(job_id).status is JobStatus.EXPIRED


@pytest.mark.parametrize("by_name", [False, True])
def test_claim_answered_alone_sent_twice_names_the_same_job(
    harness: LedgerHarness, by_name: bool
) -> None:
    """Another one is not taken instead: the first would wait for a worker that knows nothing of it."""
    case, _ = _queued_again(harness), harness.submit()
    wanted = case.job_id if by_name else ""
    first = harness.try_claim("t", job_id=wanted)
    assert first == Claimed(ClaimOutcome.ALONE, job_id=case.job_id)
    before = harness.everything()
    assert harness.try_claim("t", job_id=wanted) == first
    assert harness.everything() == before
    assert harness.indexes(case.job_id) == {"waiting", "deadlines"}


def test_renew_sent_twice_answers_the_same(harness: LedgerHarness) -> None:
    job_id, token = harness.claimed_job()
    held = {job_id: token, "never": "lost"}
    leases = harness.key("leases")
    first = harness.renew(held)
    before = without(harness.everything(), leases)
    assert harness.renew(held) == first == {"lost"}
    assert without(harness.everything(), leases) == before


@pytest.mark.parametrize("call", ["succeed", "fail", "cancel"])
def test_an_end_sent_twice_is_one_event(harness: LedgerHarness, call: str) -> None:
    case = Case(*harness.claimed_job(batch=BatchMembership(batch_id="b", total=1), celery_head="{"))
    first = CALLS[call](harness, case)
    before = harness.everything()
    assert CALLS[call](harness, case) == first
    assert harness.everything() == before
    assert harness.kinds("b") == ["maskq.batch.completed"]


@pytest.mark.parametrize("charged", [True, False])
@pytest.mark.parametrize("delay_s", [0.0, 60.0])
@pytest.mark.parametrize("max_attempts", [1, 2])
def test_release_sent_twice_is_one_charge_and_one_ticket(
    harness: LedgerHarness, charged: bool, delay_s: float, max_attempts: int
) -> None:
    job_id, token = harness.claimed_job(max_attempts=max_attempts)
    first = harness.release(job_id, token, charged=charged, delay_s=delay_s)
    before = harness.everything()
    assert harness.release(job_id, token, charged=charged, delay_s=delay_s) is first
    assert harness.everything() == before


def test_sweep_sent_twice_works_once(harness: LedgerHarness) -> None:
    job_id, _ = harness.claimed_job()
    harness.lease_runs_out(job_id)
    assert harness.sweep().reaped == 1
    before = harness.everything()
    assert harness.sweep(after_ms=None).swept == 0
    assert harness.everything() == before
