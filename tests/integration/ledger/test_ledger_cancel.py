"""cancel: from any state that is not an end, at once and for good."""

from __future__ import annotations

import pytest
from support import ledger_harness
from support.ledger_harness import NOTHING_SWEPT, LedgerHarness

from maskq.contract import FailureCode, JobStatus
from maskq.ledger.calls import ClaimOutcome, ReleaseOutcome

harness = ledger_harness.harness


def test_a_queued_job_is_canceled_and_its_ticket_finds_nothing(harness: LedgerHarness) -> None:
    job_id = harness.submit()
    assert harness.cancel(job_id) is JobStatus.CANCELED
    record = harness.record(job_id)
    assert record.status is JobStatus.CANCELED
    assert record.error is not None
    assert record.error.code is FailureCode.CANCELED
    assert harness.indexes(job_id) == {"ended"}
    assert harness.kinds(job_id) == ["maskq.job.queued", "maskq.job.canceled"]
    assert (harness.ready(), harness.queued()) == ([], {"": 0})
    assert (harness.take(), harness.tickets()) == (None, 0)
    assert harness.try_claim(job_id=job_id).outcome is ClaimOutcome.NONE


def test_a_job_that_backs_off_is_canceled_and_never_sent(harness: LedgerHarness) -> None:
    job_id, token = harness.claimed_job()
    harness.release(job_id, token, delay_s=60)
    assert harness.cancel(job_id) is JobStatus.CANCELED
    assert harness.indexes(job_id) == {"ended"}
    assert harness.record(job_id).not_before_ms is None
    assert harness.sweep() == NOTHING_SWEPT


def test_a_running_job_is_fenced_off_before_its_commit(harness: LedgerHarness) -> None:
    # Given
    job_id, token = harness.claimed_job()
    # When
    assert harness.cancel(job_id) is JobStatus.CANCELED
    # Then whatever its holder says is lost
    before = harness.everything()
    assert not harness.succeed(job_id, token)
    assert not harness.fail(job_id, token)
    assert harness.release(job_id, token) is ReleaseOutcome.LOST
    assert harness.renew({job_id: token}) == {token}
    assert harness.everything() == before
    assert harness.indexes(job_id) == {"ended"}
    assert harness.sweep() == NOTHING_SWEPT


@pytest.mark.parametrize("state", ["succeeded", "failed", "canceled", "expired"])
def test_an_ended_job_keeps_its_state(harness: LedgerHarness, state: str) -> None:
    # Given
    job_id, token = harness.claimed_job()
    match state:
        case "succeeded":
            harness.succeed(job_id, token)
        case "failed":
            harness.fail(job_id, token)
        case "canceled":
            harness.cancel(job_id)
        case "expired":
            job_id = harness.submit()
            harness.time_is_up(job_id)
            harness.sweep()
    before = harness.everything()
    # When / Then
    assert harness.cancel(job_id) == state
    assert harness.everything() == before


def test_an_unknown_job_is_none(harness: LedgerHarness) -> None:
    before = harness.everything()
    assert harness.cancel("never") is None
    assert harness.everything() == before
