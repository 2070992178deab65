"""Quotas: how many jobs of a model, and of one tenant, may be queued; and counts that never drift."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support import ledger_harness
from support.ledger_harness import LedgerHarness

from maskq.contract import JobStatus
from maskq.ledger import calls
from maskq.ledger.calls import Idempotency, Limits, SubmitOutcome

harness = ledger_harness.harness

ONE_EACH = Limits(max_queued_per_tenant=1)


# --- a model's ----------------------------------------------------------------------------------------


def test_queued_jobs_of_all_priorities_and_those_backing_off_fill_the_queue(
    harness: LedgerHarness,
) -> None:
    # Given one job on each of two priorities and one that backs off
    harness.submit(priority="high")
    harness.submit(priority="low", tenant="ada")
    job_id, token = harness.claimed_job()
    harness.release(job_id, token, delay_s=60)
    before = harness.everything()
    # When
    refused = harness.try_submit("refused", limits=Limits(max_queued=3))
    # Then
    assert refused == calls.Submitted(SubmitOutcome.FULL, "refused")
    assert harness.everything() == before
    assert harness.try_submit(limits=Limits(max_queued=4)).outcome is SubmitOutcome.ACCEPTED


def test_running_and_ended_jobs_and_other_models_do_not_fill_the_queue(
    harness: LedgerHarness,
) -> None:
    harness.claimed_job()
    ended, token = harness.claimed_job()
    harness.succeed(ended, token)
    harness.cancel(harness.submit())
    harness.serve("another")
    harness.submit(model="another")
    accepted = harness.try_submit(model="demo", limits=Limits(max_queued=1))
    assert accepted.outcome is SubmitOutcome.ACCEPTED


def test_0_is_no_limit(harness: LedgerHarness) -> None:
    for _ in range(3):
        harness.submit(tenant="ada", limits=Limits(max_queued=0, max_queued_per_tenant=0))


def test_a_known_job_is_told_even_when_there_is_no_room(harness: LedgerHarness) -> None:
    key = Idempotency(key="k", fingerprint="f")
    job_id = harness.submit(tenant="ada", idempotency=key)
    for limits in (Limits(max_queued=1), ONE_EACH):
        for again in (
            harness.try_submit(job_id, tenant="ada", limits=limits),
            harness.try_submit(tenant="ada", limits=limits, idempotency=key),
        ):
            assert again == calls.Submitted(SubmitOutcome.EXISTS, job_id)


# --- a tenant's ---------------------------------------------------------------------------------------


def test_a_tenant_s_queued_jobs_fill_its_own_quota_only(harness: LedgerHarness) -> None:
    # Given as many jobs as may be, ready and backing off
    limits = Limits(max_queued_per_tenant=2)
    harness.submit(tenant="ada", priority="low", limits=limits)
    job_id, token = harness.claimed_job(tenant="ada", limits=limits)
    harness.release(job_id, token, delay_s=60)
    before = harness.everything()
    # When
    refused = harness.try_submit("refused", tenant="ada", priority="high", limits=limits)
    # Then
    assert refused == calls.Submitted(SubmitOutcome.TENANT_FULL, "refused")
    assert harness.everything() == before
    harness.submit(tenant="bob", limits=limits)


def test_who_has_no_name_has_no_quota(harness: LedgerHarness) -> None:
    for _ in range(3):
        harness.submit(limits=ONE_EACH)
    assert harness.queued() == {"": 3}


def test_a_tenant_s_quota_is_each_model_s_own(harness: LedgerHarness) -> None:
    harness.serve("another")
    for model in ("demo", "another"):
        harness.submit(tenant="ada", model=model, limits=ONE_EACH)
        assert harness.queued(model) == {"": 1, "ada": 1}


def test_a_full_queue_is_told_before_a_tenant_s_quota(harness: LedgerHarness) -> None:
    harness.submit(tenant="ada")
    limits = Limits(max_queued=1, max_queued_per_tenant=1)
    assert harness.try_submit(tenant="ada", limits=limits).outcome is SubmitOutcome.FULL


# --- counts -------------------------------------------------------------------------------------------


def _claimed_next(harness: LedgerHarness, job_id: str) -> None:
    assert harness.take() == job_id


def _claimed_by_name(harness: LedgerHarness, job_id: str) -> None:
    harness.claim(job_id)


def _canceled(harness: LedgerHarness, job_id: str) -> None:
    harness.cancel(job_id)


def _canceled_in_its_back_off(harness: LedgerHarness, job_id: str) -> None:
    harness.release(job_id, harness.claim(job_id), delay_s=60)
    harness.cancel(job_id)


def _expired_at_a_sweep(harness: LedgerHarness, job_id: str) -> None:
    harness.time_is_up(job_id)
    assert harness.sweep().due == 1


def _expired_in_its_back_off(harness: LedgerHarness, job_id: str) -> None:
    harness.release(job_id, harness.claim(job_id), delay_s=60)
    _expired_at_a_sweep(harness, job_id)


def _expired_at_a_claim(harness: LedgerHarness, job_id: str) -> None:
    harness.time_is_up(job_id)
    assert harness.take() is None


def _expired_at_a_claim_by_name(harness: LedgerHarness, job_id: str) -> None:
    harness.time_is_up(job_id)
    harness.try_claim(job_id=job_id)


def _claimed_alone(harness: LedgerHarness, job_id: str) -> None:
    harness.claim(job_id)
    harness.lease_runs_out(job_id)
    harness.sweep()
    assert harness.try_claim().job_id == job_id
    assert harness.queued()["ada"] == 1
    harness.claim(job_id, exclusive=True)


def _failed_at_its_last_release(harness: LedgerHarness, job_id: str) -> None:
    for _ in range(3):
        harness.release(job_id, harness.claim(job_id))


def _lost_for_the_last_time(harness: LedgerHarness, job_id: str) -> None:
    while harness.record(job_id).status is JobStatus.QUEUED:
        harness.claim(job_id, exclusive=True)
        harness.lease_runs_out(job_id)
        harness.sweep()


WAYS_OUT = {
    way.__name__.removeprefix("_"): way
    for way in (
        _claimed_next,
        _claimed_by_name,
        _claimed_alone,
        _canceled,
        _canceled_in_its_back_off,
        _expired_at_a_sweep,
        _expired_in_its_back_off,
        _expired_at_a_claim,
        _expired_at_a_claim_by_name,
        _failed_at_its_last_release,
        _lost_for_the_last_time,
    )
}


@pytest.mark.parametrize("way", WAYS_OUT.values(), ids=WAYS_OUT)
def test_every_way_out_of_queued_makes_room_for_another(
    harness: LedgerHarness, way: Callable[[LedgerHarness, str], None]
) -> None:
    job_id = harness.submit(tenant="ada", limits=ONE_EACH)
    assert harness.queued() == {"": 1, "ada": 1}
    way(harness, job_id)
    # The tenant's field is gone: a million tenants that came once leave nothing
    assert harness.queued() == {"": 0}
    assert harness.submit(tenant="ada", limits=ONE_EACH)


@pytest.mark.parametrize("delay_s", [0.0, 60.0])
def test_every_way_back_to_queued_counts(harness: LedgerHarness, delay_s: float) -> None:
    released, swept = (harness.claimed_job(tenant="ada") for _ in range(2))
    assert harness.queued() == {"": 0}
    harness.release(*released, delay_s=delay_s)
    harness.lease_runs_out(swept[0])
    harness.sweep()
    assert harness.queued() == {"": 2, "ada": 2}
    # A job that comes back is never refused: the quota is for new ones
    assert harness.try_submit(tenant="ada", limits=ONE_EACH).outcome is SubmitOutcome.TENANT_FULL
    # And the end of a back-off counts nothing twice
    harness.backoff_passes(released[0])
    harness.sweep()
    assert harness.queued() == {"": 2, "ada": 2}
