"""release: back to the queue, now or later, at the job's expense or not."""

from __future__ import annotations

import time

import pytest

from maskq.contract import JobStatus
from maskq.ledger.calls import ReleaseOutcome

from . import ledger_desk
from .ledger_desk import AWAY, BROKEN, NOTHING_SWEPT, Desk

desk = ledger_desk.desk


@pytest.mark.parametrize("charged", [True, False])
def test_a_released_job_is_queued_with_a_fresh_ticket(desk: Desk, charged: bool) -> None:
    # Given
    job_id, token = desk.claimed_job()
    deadline = desk.raw(job_id)["queue_deadline_ms"]
    # When
    assert desk.release(job_id, token, charged=charged) is ReleaseOutcome.QUEUED
    # Then
    record = desk.record(job_id)
    assert (record.status, record.attempt) == (JobStatus.QUEUED, 1)
    assert record.charges == int(charged)
    assert (record.error, record.not_before_ms) == (AWAY, None)
    assert desk.places(job_id) == {"ready", "deadlines"}
    assert desk.score(job_id, "deadlines") == float(deadline)
    assert desk.tickets() == 1
    assert desk.kinds(job_id)[-1] == "maskq.job.queued"
    assert desk.take() == job_id


def test_a_released_job_goes_to_its_own_place(desk: Desk) -> None:
    """Model, level and tenant are the job's for good."""
    desk.serve("another")
    job_id, token = desk.submit(priority="low", tenant="ada", model="another"), "t"
    assert desk.try_claim(token, model="another").record is not None
    desk.release(job_id, token)
    assert desk.ready("low", "ada", "another") == [job_id]
    assert desk.turns("low", "another") == ["ada"]
    assert (desk.tickets(), desk.tickets("another")) == (0, 2)


def test_a_delayed_job_waits_without_a_ticket_until_the_sweeper_sends_one(desk: Desk) -> None:
    # Given
    job_id, token = desk.claimed_job()
    before = desk.now_ms()
    # When
    assert desk.release(job_id, token, delay_s=60) is ReleaseOutcome.QUEUED
    # Then
    not_before = desk.record(job_id).not_before_ms
    assert not_before is not None
    assert before + 60_000 <= not_before <= desk.now_ms() + 60_000
    assert desk.score(job_id, "waiting") == not_before
    assert desk.places(job_id) == {"waiting", "deadlines"}
    assert (desk.take(), desk.try_claim().record) == (None, None)
    assert desk.sweep() == NOTHING_SWEPT
    # When
    desk.backoff_passes(job_id)
    # Then
    assert desk.sweep().sent == 1
    assert desk.places(job_id) == {"ready", "deadlines"}
    assert desk.record(job_id).not_before_ms is None
    assert desk.tickets() == 1
    assert desk.sweep() == NOTHING_SWEPT
    assert desk.take() == job_id


def test_a_delay_is_over_by_redis_clock(desk: Desk) -> None:
    job_id, token = desk.claimed_job()
    desk.release(job_id, token, delay_s=0.02)
    not_before = desk.record(job_id).not_before_ms or 0
    while desk.now_ms() < not_before:
        time.sleep(0.005)
    assert desk.sweep().sent == 1


def test_the_last_charge_fails_the_job_with_its_reason(desk: Desk) -> None:
    # Given
    job_id, token = desk.claimed_job(max_attempts=2)
    assert desk.release(job_id, token) is ReleaseOutcome.QUEUED
    token = desk.claim(job_id)
    tickets = desk.tickets()
    # When
    assert desk.release(job_id, token, BROKEN, delay_s=60) is ReleaseOutcome.FAILED
    # Then
    record = desk.record(job_id)
    assert (record.status, record.charges, record.error) == (JobStatus.FAILED, 2, BROKEN)
    assert desk.places(job_id) == {"ended"}
    assert desk.tickets() == tickets
    assert desk.kinds(job_id)[-1] == "maskq.job.failed"
    assert desk.redis.pttl(desk.key("job", job_id)) > 0


def test_uncharged_releases_never_fail_the_job(desk: Desk) -> None:
    job_id = desk.submit(max_attempts=1)
    for _ in range(10):
        token = desk.claim(job_id)
        assert desk.release(job_id, token, charged=False) is ReleaseOutcome.QUEUED
    record = desk.record(job_id)
    assert (record.attempt, record.charges) == (10, 0)


@pytest.mark.parametrize("max_attempts", [1, 2])
def test_a_release_sent_twice_charges_once_and_answers_the_same(
    desk: Desk, max_attempts: int
) -> None:
    job_id, token = desk.claimed_job(max_attempts=max_attempts)
    answer = desk.release(job_id, token)
    before = desk.everything()
    assert desk.release(job_id, token) is answer
    assert desk.everything() == before


def test_a_release_sent_twice_does_not_take_the_job_from_its_next_holder(desk: Desk) -> None:
    job_id, first = desk.claimed_job()
    desk.release(job_id, first)
    second = desk.claim(job_id)
    before = desk.everything()
    assert desk.release(job_id, first) is ReleaseOutcome.QUEUED
    assert desk.everything() == before
    assert desk.succeed(job_id, second)


@pytest.mark.parametrize("token", ["other", ""])
def test_a_token_that_does_not_hold_the_job_releases_nothing(desk: Desk, token: str) -> None:
    job_id, _ = desk.claimed_job()
    waits = desk.submit()
    before = desk.everything()
    assert desk.release(job_id, token) is ReleaseOutcome.LOST
    assert desk.release(waits, token) is ReleaseOutcome.LOST
    assert desk.release("never", token) is ReleaseOutcome.LOST
    assert desk.everything() == before


def test_a_holder_that_was_swept_releases_nothing(desk: Desk) -> None:
    job_id, token = desk.claimed_job()
    desk.lease_runs_out(job_id)
    desk.sweep()
    before = desk.everything()
    assert desk.release(job_id, token) is ReleaseOutcome.LOST
    assert desk.everything() == before


def test_a_job_released_past_its_queue_ttl_is_not_started_again(desk: Desk) -> None:
    """The first deadline stays: a caller who gave up by then is not surprised by a late mask."""
    job_id, token = desk.claimed_job(queue_ttl_s=60)
    desk.redis.hset(desk.key("job", job_id), "queue_deadline_ms", desk.now_ms() - 1)
    assert desk.release(job_id, token) is ReleaseOutcome.QUEUED
    assert desk.sweep().due == 1
    assert desk.record(job_id).status is JobStatus.EXPIRED
