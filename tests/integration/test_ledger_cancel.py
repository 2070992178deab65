"""cancel: from any state that is not an end, at once and for good."""

from __future__ import annotations

import pytest

from maskq.contract import FailureCode, JobStatus
from maskq.ledger.calls import ClaimOutcome, ReleaseOutcome

from . import ledger_desk
from .ledger_desk import NOTHING_SWEPT, Desk

desk = ledger_desk.desk


def test_a_queued_job_is_canceled_and_its_ticket_finds_nothing(desk: Desk) -> None:
    job_id = desk.submit()
    assert desk.cancel(job_id) is JobStatus.CANCELED
    record = desk.record(job_id)
    assert record.status is JobStatus.CANCELED
    assert record.error is not None
    assert record.error.code is FailureCode.CANCELED
    assert desk.places(job_id) == {"ended"}
    assert desk.kinds(job_id) == ["maskq.job.queued", "maskq.job.canceled"]
    assert (desk.ready(), desk.queued()) == ([], {"": 0})
    assert (desk.take(), desk.tickets()) == (None, 0)
    assert desk.try_claim(job_id=job_id).outcome is ClaimOutcome.NONE


def test_a_job_that_backs_off_is_canceled_and_never_sent(desk: Desk) -> None:
    job_id, token = desk.claimed_job()
    desk.release(job_id, token, delay_s=60)
    assert desk.cancel(job_id) is JobStatus.CANCELED
    assert desk.places(job_id) == {"ended"}
    assert desk.record(job_id).not_before_ms is None
    assert desk.sweep() == NOTHING_SWEPT


def test_a_running_job_is_fenced_off_before_its_commit(desk: Desk) -> None:
    # Given
    job_id, token = desk.claimed_job()
    # When
    assert desk.cancel(job_id) is JobStatus.CANCELED
    # Then whatever its holder says is lost
    before = desk.everything()
    assert not desk.succeed(job_id, token)
    assert not desk.fail(job_id, token)
    assert desk.release(job_id, token) is ReleaseOutcome.LOST
    assert desk.renew({job_id: token}) == {token}
    assert desk.everything() == before
    assert desk.places(job_id) == {"ended"}
    assert desk.sweep() == NOTHING_SWEPT


@pytest.mark.parametrize("state", ["succeeded", "failed", "canceled", "expired"])
def test_an_ended_job_keeps_its_state(desk: Desk, state: str) -> None:
    # Given
    job_id, token = desk.claimed_job()
    match state:
        case "succeeded":
            desk.succeed(job_id, token)
        case "failed":
            desk.fail(job_id, token)
        case "canceled":
            desk.cancel(job_id)
        case "expired":
            job_id = desk.submit()
            desk.time_is_up(job_id)
            desk.sweep()
    before = desk.everything()
    # When / Then
    assert desk.cancel(job_id) == state
    assert desk.everything() == before


def test_an_unknown_job_is_none(desk: Desk) -> None:
    before = desk.everything()
    assert desk.cancel("never") is None
    assert desk.everything() == before
