"""What a job waits for, in one sentence and a reason for programs."""

from __future__ import annotations

import re

import pytest
from support import ledger_harness
from support.ledger_harness import AWAY, MODEL, LedgerHarness

from maskq.contract.models import ServingWorker
from maskq.contract.queueing.waiting import Waiting, WaitReason
from maskq.ledger.calls import models
from maskq.ledger.calls.queueing import tenants, waiting

harness = ledger_harness.harness


@pytest.fixture
def worker(harness: LedgerHarness) -> ServingWorker:
    serving = ServingWorker(
        model=MODEL, revision="1", owner="host:1", labels=150, backend="cpu", since_ms=1
    )
    harness.ledger.run(models.register(serving))
    return serving


def why(harness: LedgerHarness, job_id: str) -> Waiting:
    found = harness.ledger.run(waiting.why(job_id))
    assert found is not None
    assert found.text.startswith(f"job {job_id} ")
    return found


def said(found: Waiting, reason: WaitReason, text: str) -> None:
    assert found.reason is reason
    assert re.search(text, found.text), found.text


@pytest.mark.usefixtures("worker")
def test_a_job_waits_for_its_turn(harness: LedgerHarness) -> None:
    first, *_ = harness.submit_many(3, tenant="ada")
    harness.submit_many(2, tenant="bob")
    last = harness.submit(tenant="ada")
    found = why(harness, last)
    said(found, WaitReason.TURN, r"5 jobs before it \(3 jobs of its own tenant and 2 jobs of other")
    assert (found.position, found.position_in_tenant, found.workers) == (5, 3, 1)
    assert (found.model, found.tenant) == (MODEL, "ada")
    said(why(harness, first), WaitReason.TURN, "is the next to start")


def test_without_a_worker_it_waits_for_one(harness: LedgerHarness) -> None:
    found = why(harness, harness.submit())
    said(found, WaitReason.NO_WORKER, "none serves model demo now")
    assert (found.position, found.workers) == (0, 0)


def test_all_workers_claim_nothing_while_their_store_is_away(
    harness: LedgerHarness, worker: ServingWorker
) -> None:
    job_id = harness.submit()
    harness.ledger.run(waiting.note_store_away(MODEL, worker.owner))
    said(
        why(harness, job_id), WaitReason.STORE_AWAY, "object store of the only worker of model demo"
    )
    # While another worker goes on, it waits for its turn alone
    other = worker.model_copy(update={"owner": "host:2"})
    harness.ledger.run(models.register(other))
    assert why(harness, job_id).reason is WaitReason.TURN
    harness.ledger.run(waiting.note_store_away(MODEL, other.owner))
    said(why(harness, job_id), WaitReason.STORE_AWAY, "all 2 workers")


@pytest.mark.usefixtures("worker")
def test_its_tenant_runs_as_many_jobs_as_it_may(harness: LedgerHarness) -> None:
    harness.ledger.run(tenants.change("ada", {"max_running": 2}))
    *_, last = harness.submit_many(5, tenant="ada")
    while harness.take():
        pass
    found = why(harness, last)
    said(found, WaitReason.TENANT_CAP, "tenant ada runs 2 jobs, as many as it may")
    assert found.max_running == 2
    harness.ledger.run(tenants.change("ada", {"max_running": 0}))
    said(why(harness, last), WaitReason.TENANT_CAP, "tenant ada is paused")


@pytest.mark.usefixtures("worker")
def test_it_backs_off_after_an_attempt(harness: LedgerHarness) -> None:
    job_id = harness.submit()
    harness.release(job_id, harness.claim(job_id), AWAY, delay_s=60)
    found = why(harness, job_id)
    said(
        found,
        WaitReason.BACK_OFF,
        r"runs again in \d+ s: attempt 1 ended with store_unavailable: S3",
    )
    assert found.delay_s == pytest.approx(60, abs=20)
    assert found.position is None


@pytest.mark.usefixtures("worker")
def test_it_was_submitted_to_start_later(harness: LedgerHarness) -> None:
    found = why(harness, harness.submit(in_ms=3_600_000))
    said(found, WaitReason.NOT_BEFORE, r"was submitted to start in 3\d{3} s or later")


@pytest.mark.usefixtures("worker")
def test_it_runs_alone_after_its_worker_died(harness: LedgerHarness) -> None:
    job_id, _ = harness.claimed_job()
    harness.lease_runs_out(job_id)
    harness.sweep()
    assert harness.take() is None  # a worker makes room for it
    said(why(harness, job_id), WaitReason.RUNS_ALONE, "has finished its other jobs")


def test_it_runs_or_has_ended(harness: LedgerHarness) -> None:
    job_id, token = harness.claimed_job()
    said(why(harness, job_id), WaitReason.RUNNING, "runs on worker worker-1, attempt 1")
    harness.succeed(job_id, token)
    said(why(harness, job_id), WaitReason.ENDED, "it has succeeded")
    canceled = harness.submit()
    harness.cancel(canceled)
    said(why(harness, canceled), WaitReason.ENDED, "it was canceled")


def test_an_unknown_job_waits_for_nothing(harness: LedgerHarness) -> None:
    assert harness.ledger.run(waiting.why("unknown")) is None


def test_asking_changes_nothing(harness: LedgerHarness) -> None:
    harness.submit_many(3, tenant="ada")
    job_id = harness.submit()
    before = harness.everything()
    why(harness, job_id)
    assert harness.everything() == before
