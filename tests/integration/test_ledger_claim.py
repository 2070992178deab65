"""claim: of all who hold a message, at most one gets the job."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from maskq.contract import FailureCode, JobStatus
from maskq.contract.ids import new_token
from maskq.ledger.calls import Claimed, ClaimOutcome

from . import ledger_desk
from .ledger_desk import AWAY, LEASE_S, Desk

desk = ledger_desk.desk


def test_a_queued_job_is_claimed_with_its_record(desk: Desk) -> None:
    # Given
    job_id = desk.submit(run_timeout_s=50, metadata={"k": "v"})
    before = desk.now_ms()
    # When
    claimed = desk.try_claim(desk.pop() or "", "token-1")
    # Then
    assert claimed.outcome is ClaimOutcome.CLAIMED
    record = claimed.record
    assert record == desk.record(job_id)
    assert record is not None
    assert (record.status, record.attempt, record.charges) == (JobStatus.RUNNING, 1, 0)
    assert record.request.metadata == {"k": "v"}
    assert record.started_ms is not None
    assert before <= record.started_ms <= desk.now_ms()
    assert desk.places(job_id) == {"leases", "deadlines"}
    assert desk.score(job_id, "leases") == record.started_ms + LEASE_S * 1000
    assert desk.score(job_id, "deadlines") == record.started_ms + 50_000
    assert desk.kinds(job_id) == ["maskq.job.queued", "maskq.job.running"]
    assert (desk.raw(job_id)["token"], desk.raw(job_id)["owner"]) == ("token-1", "worker-1")


def test_an_id_without_a_record_is_unknown(desk: Desk) -> None:
    before = desk.everything()
    assert desk.try_claim("never", "t") == Claimed(ClaimOutcome.UNKNOWN)
    assert desk.everything() == before


def test_a_job_that_runs_elsewhere_is_held(desk: Desk) -> None:
    job_id, _ = desk.claimed_job()
    before = desk.everything()
    assert desk.try_claim(job_id, new_token()) == Claimed(ClaimOutcome.HELD)
    assert desk.everything() == before


def test_a_job_whose_lease_ran_out_is_held_until_it_is_swept(desk: Desk) -> None:
    """The fence is the token, never the time."""
    job_id, _ = desk.claimed_job()
    desk.lease_runs_out(job_id)
    assert desk.try_claim(job_id, new_token()).outcome is ClaimOutcome.HELD


def test_an_ended_job_is_not_run_again(desk: Desk) -> None:
    job_id, token = desk.claimed_job()
    desk.succeed(job_id, token)
    before = desk.everything()
    assert desk.try_claim(job_id, new_token()) == Claimed(ClaimOutcome.ENDED)
    assert desk.everything() == before


def test_the_winner_s_token_does_not_open_an_ended_job(desk: Desk) -> None:
    job_id, token = desk.claimed_job()
    desk.succeed(job_id, token)
    assert desk.try_claim(job_id, token).outcome is ClaimOutcome.ENDED


def test_a_job_that_backs_off_is_too_early(desk: Desk) -> None:
    # Given a second message of a job that backs off
    job_id, token = desk.claimed_job()
    desk.release(job_id, token, delay_s=60)
    before = desk.everything()
    # When / Then
    assert desk.try_claim(job_id, new_token()) == Claimed(ClaimOutcome.EARLY)
    assert desk.everything() == before
    # When its time has come, a message is as good as the sweeper's
    desk.backoff_passes(job_id)
    assert desk.try_claim(job_id, new_token()).outcome is ClaimOutcome.CLAIMED
    assert desk.places(job_id) == {"leases", "deadlines"}
    assert desk.record(job_id).not_before_ms is None


def test_a_job_past_its_queue_ttl_expires_at_the_claim(desk: Desk) -> None:
    job_id = desk.submit(queue_ttl_s=60)
    desk.time_is_up(job_id)
    assert desk.try_claim(job_id, new_token()) == Claimed(ClaimOutcome.EXPIRED)
    record = desk.record(job_id)
    assert record.status is JobStatus.EXPIRED
    assert record.error is not None
    assert record.error.code is FailureCode.EXPIRED
    assert (record.attempt, desk.places(job_id)) == (0, {"ended"})
    assert desk.kinds(job_id) == ["maskq.job.queued", "maskq.job.expired"]
    assert desk.try_claim(job_id, new_token()).outcome is ClaimOutcome.ENDED


def test_a_job_of_a_tiny_queue_ttl_expires_by_redis_clock(desk: Desk) -> None:
    job_id = desk.submit(queue_ttl_s=0.001)
    while desk.now_ms() <= desk.record(job_id).created_ms + 1:
        pass
    assert desk.try_claim(job_id, new_token()).outcome is ClaimOutcome.EXPIRED


def test_a_job_that_lost_a_worker_runs_only_alone(desk: Desk) -> None:
    # Given
    job_id, _ = desk.claimed_job()
    desk.lease_runs_out(job_id)
    assert desk.sweep().reaped == 1
    token = new_token()
    # When a worker that runs other jobs asks
    assert desk.try_claim(job_id, token) == Claimed(ClaimOutcome.ALONE)
    # Then nothing was started, and the job waits for it, or for another should it die
    record = desk.record(job_id)
    assert (record.status, record.attempt) == (JobStatus.QUEUED, 1)
    assert desk.places(job_id) == {"waiting", "deadlines"}
    waits = (desk.score(job_id, "waiting", desk.queue) or 0) - desk.now_ms()
    assert LEASE_S * 1000 < waits <= 2 * LEASE_S * 1000
    # When it asks again, alone
    claimed = desk.try_claim(job_id, token, exclusive=True)
    # Then
    assert claimed.outcome is ClaimOutcome.CLAIMED
    assert desk.record(job_id).attempt == 2
    assert desk.places(job_id) == {"leases", "deadlines"}


def test_a_worker_that_dies_before_it_is_alone_leaves_the_job_to_the_sweeper(desk: Desk) -> None:
    # Given
    job_id, _ = desk.claimed_job()
    desk.lease_runs_out(job_id)
    desk.sweep()
    desk.pop()
    assert desk.try_claim(job_id, new_token()).outcome is ClaimOutcome.ALONE
    # When
    desk.backoff_passes(job_id)
    # Then
    assert desk.sweep().sent == 1
    assert desk.waiting_ids() == [job_id]
    assert desk.places(job_id) == {"sent", "deadlines"}


def test_an_exclusive_claim_of_any_job_is_granted(desk: Desk) -> None:
    job_id = desk.submit()
    assert desk.try_claim(job_id, "t", exclusive=True).outcome is ClaimOutcome.CLAIMED


def test_every_claim_raises_the_attempt(desk: Desk) -> None:
    job_id = desk.submit()
    for attempt in range(1, 6):
        token = desk.claim(job_id)
        assert desk.record(job_id).attempt == attempt
        desk.release(job_id, token, charged=False)


def test_of_many_threads_one_gets_the_job(desk: Desk) -> None:
    job_ids = [desk.submit() for _ in range(10)]

    def ask(job_id: str) -> bool:
        return desk.try_claim(job_id, new_token()).record is not None

    with ThreadPoolExecutor(8) as pool:
        for job_id in job_ids:
            assert sum(pool.map(ask, [job_id] * 8)) == 1
            assert desk.record(job_id).attempt == 1


def test_the_record_of_a_retry_says_why_the_last_attempt_was_given_back(desk: Desk) -> None:
    job_id, token = desk.claimed_job()
    desk.release(job_id, token)
    again = desk.try_claim(job_id, new_token()).record
    assert again is not None
    assert again.error == AWAY
