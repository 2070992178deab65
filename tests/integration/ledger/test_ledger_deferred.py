"""Jobs that may not run yet, as Celery's eta and expires make them: they wait in the ledger."""

from __future__ import annotations

import pytest
from support import ledger_harness
from support.ledger_harness import LedgerHarness

from maskq import FailureCode, JobStatus
from maskq.ledger.calls import ClaimOutcome, Limits

harness = ledger_harness.harness
HOUR_MS = 3_600_000


def defer(harness: LedgerHarness, *, in_ms: int = HOUR_MS, expires_ms: int = 0) -> str:
    head = '{"properties":{"delivery_tag":'
    return harness.submit(
        limits=Limits(queue_ttl_s=60), celery_head=head, in_ms=in_ms, expires_ms=expires_ms
    )


def test_a_deferred_job_waits_without_a_ticket_and_then_runs(harness: LedgerHarness) -> None:
    # Given
    job_id = defer(harness)
    record = harness.record(job_id)
    assert (record.status, harness.tickets()) == (JobStatus.QUEUED, 0)
    assert harness.indexes(job_id) == {"waiting", "deadlines"}
    assert harness.kinds(job_id) == ["maskq.job.queued"]
    # When sweeps come by too early, or a worker asks for it by name
    assert harness.settle().sent == 0
    assert harness.try_claim(job_id=job_id).outcome is ClaimOutcome.NONE
    # Then it is still there, and is taken once its time has come
    harness.backoff_passes(job_id)
    assert harness.sweep().sent == 1
    assert harness.take() == job_id
    assert harness.record(job_id).not_before_ms is None


def test_the_time_in_the_queue_counts_from_when_it_may_run(harness: LedgerHarness) -> None:
    job_id = defer(harness)
    assert (
        harness.score(job_id, "deadlines") == (harness.record(job_id).not_before_ms or 0) + 60_000
    )
    harness.time_is_up(job_id)
    assert harness.sweep().due == 1
    record = harness.record(job_id)
    assert record.status is JobStatus.EXPIRED
    assert record.error
    assert record.error.code is FailureCode.EXPIRED
    assert harness.indexes(job_id) == {"ended"}
    assert harness.queued() == {"": 0}


@pytest.mark.parametrize("in_ms", [-HOUR_MS, 0, HOUR_MS])
@pytest.mark.parametrize("expires_in_ms", [-5000, 30_000, 2 * HOUR_MS])
def test_it_expires_at_the_earlier_of_both_times(
    harness: LedgerHarness, in_ms: int, expires_in_ms: int
) -> None:
    now_ms = harness.now_ms()
    job_id = defer(harness, in_ms=in_ms, expires_ms=now_ms + expires_in_ms)
    by_queue_ttl = now_ms + max(in_ms, 0) + 60_000
    expected = min(by_queue_ttl, now_ms + expires_in_ms)
    assert harness.score(job_id, "deadlines") == pytest.approx(expected, abs=2000)


def test_what_has_expired_already_is_never_begun_and_its_caller_told(
    harness: LedgerHarness,
) -> None:
    job_id = defer(harness, in_ms=0, expires_ms=harness.now_ms() - 1)
    assert harness.take() is None
    assert harness.record(job_id).status is JobStatus.EXPIRED
    assert harness.redis.llen(harness.prefix) == 1  # the answer
    assert harness.kinds(job_id) == ["maskq.job.queued", "maskq.job.expired"]


def test_a_deferred_job_is_canceled_like_any_other(harness: LedgerHarness) -> None:
    job_id = defer(harness)
    assert harness.cancel(job_id) is JobStatus.CANCELED
    assert harness.indexes(job_id) == {"ended"}
    assert harness.queued() == {"": 0}
    assert harness.redis.llen(harness.prefix) == 1


def test_a_time_that_has_passed_defers_nothing(harness: LedgerHarness) -> None:
    job_id = defer(harness, in_ms=-HOUR_MS)
    assert harness.take() == job_id


def test_years_ahead_are_kept_as_they_are(harness: LedgerHarness) -> None:
    far_ms = 253_402_300_799_000  # the end of 9999
    job_id = defer(harness, in_ms=far_ms - harness.now_ms())
    assert harness.record(job_id).not_before_ms == pytest.approx(far_ms, abs=2000)
    assert harness.settle().sent == 0


def test_an_answer_that_celery_never_takes_is_not_sent_for_ever(harness: LedgerHarness) -> None:
    """What Celery cannot store, or send on, would come again every 15 s until the record goes."""
    # Given an answer that is taken off the list each time and never confirmed
    job_id = defer(harness)
    harness.cancel(job_id)
    sent = 0
    for _ in range(30):
        sent += harness.redis.delete(harness.prefix)
        harness.redis.zadd(harness.key("answers"), {job_id: 1}, xx=True)
        harness.sweep()
    # Then it was sent once, and 20 times more
    assert sent == 21
    assert harness.redis.zscore(harness.key("answers"), job_id) is None


def test_a_reminder_brings_no_deleted_record_back(harness: LedgerHarness) -> None:
    harness.redis.zadd(harness.key("answers"), {"gone": 1})
    harness.sweep()
    assert harness.raw("gone") == {}
