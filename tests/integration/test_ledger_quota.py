"""Quotas: how many jobs of a model, and of one tenant, may be queued; and counts that never drift."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from maskq.contract import JobStatus
from maskq.ledger import calls
from maskq.ledger.calls import Idempotency, Limits, SubmitOutcome

from . import ledger_desk
from .ledger_desk import Desk

desk = ledger_desk.desk

ONE_EACH = Limits(max_queued_per_tenant=1)


# --- a model's ----------------------------------------------------------------------------------------


def test_queued_jobs_of_all_priorities_and_those_backing_off_fill_the_queue(desk: Desk) -> None:
    # Given one job on each of two priorities and one that backs off
    desk.submit(priority="high")
    desk.submit(priority="low", tenant="ada")
    job_id, token = desk.claimed_job()
    desk.release(job_id, token, delay_s=60)
    before = desk.everything()
    # When
    refused = desk.try_submit("refused", limits=Limits(max_queued=3))
    # Then
    assert refused == calls.Submitted(SubmitOutcome.FULL, "refused")
    assert desk.everything() == before
    assert desk.try_submit(limits=Limits(max_queued=4)).outcome is SubmitOutcome.ACCEPTED


def test_running_and_ended_jobs_and_other_models_do_not_fill_the_queue(desk: Desk) -> None:
    desk.claimed_job()
    ended, token = desk.claimed_job()
    desk.succeed(ended, token)
    desk.cancel(desk.submit())
    desk.serve("another")
    desk.submit(model="another")
    accepted = desk.try_submit(model="demo", limits=Limits(max_queued=1))
    assert accepted.outcome is SubmitOutcome.ACCEPTED


def test_0_is_no_limit(desk: Desk) -> None:
    for _ in range(3):
        desk.submit(tenant="ada", limits=Limits(max_queued=0, max_queued_per_tenant=0))


def test_a_known_job_is_told_even_when_there_is_no_room(desk: Desk) -> None:
    key = Idempotency(key="k", fingerprint="f")
    job_id = desk.submit(tenant="ada", idempotency=key)
    for limits in (Limits(max_queued=1), ONE_EACH):
        for again in (
            desk.try_submit(job_id, tenant="ada", limits=limits),
            desk.try_submit(tenant="ada", limits=limits, idempotency=key),
        ):
            assert again == calls.Submitted(SubmitOutcome.EXISTS, job_id)


# --- a tenant's ---------------------------------------------------------------------------------------


def test_a_tenant_s_queued_jobs_fill_its_own_quota_only(desk: Desk) -> None:
    # Given as many jobs as may be, ready and backing off
    limits = Limits(max_queued_per_tenant=2)
    desk.submit(tenant="ada", priority="low", limits=limits)
    job_id, token = desk.claimed_job(tenant="ada", limits=limits)
    desk.release(job_id, token, delay_s=60)
    before = desk.everything()
    # When
    refused = desk.try_submit("refused", tenant="ada", priority="high", limits=limits)
    # Then
    assert refused == calls.Submitted(SubmitOutcome.TENANT_FULL, "refused")
    assert desk.everything() == before
    desk.submit(tenant="bob", limits=limits)


def test_who_has_no_name_has_no_quota(desk: Desk) -> None:
    for _ in range(3):
        desk.submit(limits=ONE_EACH)
    assert desk.queued() == {"": 3}


def test_a_tenant_s_quota_is_each_model_s_own(desk: Desk) -> None:
    desk.serve("another")
    for model in ("demo", "another"):
        desk.submit(tenant="ada", model=model, limits=ONE_EACH)
        assert desk.queued(model) == {"": 1, "ada": 1}


def test_a_full_queue_is_told_before_a_tenant_s_quota(desk: Desk) -> None:
    desk.submit(tenant="ada")
    limits = Limits(max_queued=1, max_queued_per_tenant=1)
    assert desk.try_submit(tenant="ada", limits=limits).outcome is SubmitOutcome.FULL


# --- counts -------------------------------------------------------------------------------------------


def _claimed_next(desk: Desk, job_id: str) -> None:
    assert desk.take() == job_id


def _claimed_by_name(desk: Desk, job_id: str) -> None:
    desk.claim(job_id)


def _canceled(desk: Desk, job_id: str) -> None:
    desk.cancel(job_id)


def _canceled_in_its_back_off(desk: Desk, job_id: str) -> None:
    desk.release(job_id, desk.claim(job_id), delay_s=60)
    desk.cancel(job_id)


def _expired_at_a_sweep(desk: Desk, job_id: str) -> None:
    desk.time_is_up(job_id)
    assert desk.sweep().due == 1


def _expired_in_its_back_off(desk: Desk, job_id: str) -> None:
    desk.release(job_id, desk.claim(job_id), delay_s=60)
    _expired_at_a_sweep(desk, job_id)


def _expired_at_a_claim(desk: Desk, job_id: str) -> None:
    desk.time_is_up(job_id)
    assert desk.take() is None


def _expired_at_a_claim_by_name(desk: Desk, job_id: str) -> None:
    desk.time_is_up(job_id)
    desk.try_claim(job_id=job_id)


def _claimed_alone(desk: Desk, job_id: str) -> None:
    desk.claim(job_id)
    desk.lease_runs_out(job_id)
    desk.sweep()
    assert desk.try_claim().job_id == job_id
    assert desk.queued()["ada"] == 1
    desk.claim(job_id, exclusive=True)


def _failed_at_its_last_release(desk: Desk, job_id: str) -> None:
    for _ in range(3):
        desk.release(job_id, desk.claim(job_id))


def _lost_for_the_last_time(desk: Desk, job_id: str) -> None:
    while desk.record(job_id).status is JobStatus.QUEUED:
        desk.claim(job_id, exclusive=True)
        desk.lease_runs_out(job_id)
        desk.sweep()


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
    desk: Desk, way: Callable[[Desk, str], None]
) -> None:
    job_id = desk.submit(tenant="ada", limits=ONE_EACH)
    assert desk.queued() == {"": 1, "ada": 1}
    way(desk, job_id)
    # The tenant's field is gone: a million tenants that came once leave nothing
    assert desk.queued() == {"": 0}
    assert desk.submit(tenant="ada", limits=ONE_EACH)


@pytest.mark.parametrize("delay_s", [0.0, 60.0])
def test_every_way_back_to_queued_counts(desk: Desk, delay_s: float) -> None:
    released, swept = (desk.claimed_job(tenant="ada") for _ in range(2))
    assert desk.queued() == {"": 0}
    desk.release(*released, delay_s=delay_s)
    desk.lease_runs_out(swept[0])
    desk.sweep()
    assert desk.queued() == {"": 2, "ada": 2}
    # A job that comes back is never refused: the quota is for new ones
    assert desk.try_submit(tenant="ada", limits=ONE_EACH).outcome is SubmitOutcome.TENANT_FULL
    # And the end of a back-off counts nothing twice
    desk.backoff_passes(released[0])
    desk.sweep()
    assert desk.queued() == {"": 2, "ada": 2}
