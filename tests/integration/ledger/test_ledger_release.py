"""release: back to the queue, now or later, at the job's expense or not."""

from __future__ import annotations

import pytest
from support import ledger_harness
from support.ledger_harness import AWAY, BROKEN, NOTHING_SWEPT, LedgerHarness
from support.waiting import until

from maskq.contract import JobStatus
from maskq.ledger.calls import ReleaseOutcome

harness = ledger_harness.harness


@pytest.mark.parametrize("charged", [True, False])
def test_a_released_job_is_queued_with_a_fresh_ticket(
    harness: LedgerHarness, charged: bool
) -> None:
    # Given
    job_id, token = harness.claimed_job()
    deadline = harness.raw(job_id)["queue_deadline_ms"]
    # When
    assert harness.release(job_id, token, charged=charged) is ReleaseOutcome.QUEUED
    # Then
    record = harness.record(job_id)
    assert (record.status, record.attempt) == (JobStatus.QUEUED, 1)
    assert record.charges == int(charged)
    assert (record.error, record.not_before_ms) == (AWAY, None)
    assert harness.indexes(job_id) == {"ready", "deadlines"}
    assert harness.score(job_id, "deadlines") == float(deadline)
    assert harness.tickets() == 1
    assert harness.kinds(job_id)[-1] == "maskq.job.queued"
    assert harness.take() == job_id


def test_a_released_job_goes_to_its_own_place(harness: LedgerHarness) -> None:
    """Model, level and tenant are the job's for good."""
    harness.serve("another")
    job_id, token = harness.submit(priority="low", tenant="ada", model="another"), "t"
    assert harness.try_claim(token, model="another").record is not None
    harness.release(job_id, token)
    assert harness.ready("low", "ada", "another") == [job_id]
    assert harness.turns("another") == ["ada"]
    assert (harness.tickets(), harness.tickets("another")) == (0, 2)


def test_a_delayed_job_waits_without_a_ticket_until_the_sweeper_sends_one(
    harness: LedgerHarness,
) -> None:
    # Given
    job_id, token = harness.claimed_job()
    before = harness.now_ms()
    # When
    assert harness.release(job_id, token, delay_s=60) is ReleaseOutcome.QUEUED
    # Then
    not_before = harness.record(job_id).not_before_ms
    assert not_before is not None
    assert before + 60_000 <= not_before <= harness.now_ms() + 60_000
    assert harness.score(job_id, "waiting") == not_before
    assert harness.indexes(job_id) == {"waiting", "deadlines"}
    assert (harness.take(), harness.try_claim().record) == (None, None)
    assert harness.sweep() == NOTHING_SWEPT
    # When
    harness.backoff_passes(job_id)
    # Then
    assert harness.sweep().sent == 1
    assert harness.indexes(job_id) == {"ready", "deadlines"}
    assert harness.record(job_id).not_before_ms is None
    assert harness.tickets() == 1
    assert harness.sweep() == NOTHING_SWEPT
    assert harness.take() == job_id


def test_a_delay_is_over_by_redis_clock(harness: LedgerHarness) -> None:
    job_id, token = harness.claimed_job()
    harness.release(job_id, token, delay_s=0.02)
    not_before = harness.record(job_id).not_before_ms or 0
    until(lambda: harness.now_ms() >= not_before)
    assert harness.sweep().sent == 1


def test_the_last_charge_fails_the_job_with_its_reason(harness: LedgerHarness) -> None:
    # Given
    job_id, token = harness.claimed_job(max_attempts=2)
    assert harness.release(job_id, token) is ReleaseOutcome.QUEUED
    token = harness.claim(job_id)
    tickets = harness.tickets()
    # When
    assert harness.release(job_id, token, BROKEN, delay_s=60) is ReleaseOutcome.FAILED
    # Then
    record = harness.record(job_id)
    assert (record.status, record.charges, record.error) == (JobStatus.FAILED, 2, BROKEN)
    assert harness.indexes(job_id) == {"ended"}
    assert harness.tickets() == tickets
    assert harness.kinds(job_id)[-1] == "maskq.job.failed"
    assert harness.redis.pttl(harness.key("job", job_id)) > 0


def test_uncharged_releases_never_fail_the_job(harness: LedgerHarness) -> None:
    job_id = harness.submit(max_attempts=1)
    for _ in range(10):
        token = harness.claim(job_id)
        assert harness.release(job_id, token, charged=False) is ReleaseOutcome.QUEUED
    record = harness.record(job_id)
    assert (record.attempt, record.charges) == (10, 0)


@pytest.mark.parametrize("max_attempts", [1, 2])
def test_a_release_sent_twice_charges_once_and_answers_the_same(
    harness: LedgerHarness, max_attempts: int
) -> None:
    job_id, token = harness.claimed_job(max_attempts=max_attempts)
    answer = harness.release(job_id, token)
    before = harness.everything()
    assert harness.release(job_id, token) is answer
    assert harness.everything() == before


def test_a_release_sent_twice_does_not_take_the_job_from_its_next_holder(
    harness: LedgerHarness,
) -> None:
    job_id, first = harness.claimed_job()
    harness.release(job_id, first)
    second = harness.claim(job_id)
    before = harness.everything()
    assert harness.release(job_id, first) is ReleaseOutcome.QUEUED
    assert harness.everything() == before
    assert harness.succeed(job_id, second)


@pytest.mark.parametrize("token", ["other", ""])
def test_a_token_that_does_not_hold_the_job_releases_nothing(
    harness: LedgerHarness, token: str
) -> None:
    job_id, _ = harness.claimed_job()
    waits = harness.submit()
    before = harness.everything()
    assert harness.release(job_id, token) is ReleaseOutcome.LOST
    assert harness.release(waits, token) is ReleaseOutcome.LOST
    assert harness.release("never", token) is ReleaseOutcome.LOST
    assert harness.everything() == before


def test_a_holder_that_was_swept_releases_nothing(harness: LedgerHarness) -> None:
    job_id, token = harness.claimed_job()
    harness.lease_runs_out(job_id)
    harness.sweep()
    before = harness.everything()
    assert harness.release(job_id, token) is ReleaseOutcome.LOST
    assert harness.everything() == before


def test_a_job_released_past_its_queue_ttl_is_not_started_again(harness: LedgerHarness) -> None:
    """The first deadline stays: a caller who gave up by then is not surprised by a late mask."""
    job_id, token = harness.claimed_job(queue_ttl_s=60)
    harness.redis.hset(harness.key("job", job_id), "queue_deadline_ms", harness.now_ms() - 1)
    assert harness.release(job_id, token) is ReleaseOutcome.QUEUED
    assert harness.sweep().due == 1
    assert harness.record(job_id).status is JobStatus.EXPIRED
