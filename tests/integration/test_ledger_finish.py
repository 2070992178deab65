"""finish: one token ends a job, once, and everything that follows is in the same transaction."""

from __future__ import annotations

from maskq.contract import JobStatus
from maskq.ledger import Ledger, calls, keys

from . import ledger_desk
from .ledger_desk import AWAY, BROKEN, RESULT, Desk

desk = ledger_desk.desk


def test_a_result_ends_the_job(desk: Desk) -> None:
    job_id, token = desk.claimed_job()
    assert desk.succeed(job_id, token)
    record = desk.record(job_id)
    assert (record.status, record.result, record.error) == (JobStatus.SUCCEEDED, RESULT, None)
    assert record.ended_ms is not None
    assert desk.places(job_id) == {"ended"}
    assert desk.kinds(job_id)[-1] == "maskq.job.succeeded"


def test_a_reason_ends_the_job(desk: Desk) -> None:
    job_id, token = desk.claimed_job()
    assert desk.fail(job_id, token)
    record = desk.record(job_id)
    assert (record.status, record.result, record.error) == (JobStatus.FAILED, None, BROKEN)
    assert desk.places(job_id) == {"ended"}
    assert desk.kinds(job_id)[-1] == "maskq.job.failed"


def test_success_wipes_the_reason_of_an_earlier_attempt(desk: Desk) -> None:
    job_id, token = desk.claimed_job()
    desk.release(job_id, token)
    assert desk.record(job_id).error == AWAY
    desk.succeed(job_id, desk.claim(job_id))
    assert desk.record(job_id).error is None


def test_a_record_is_kept_for_its_retention_after_it_ended(desk: Desk) -> None:
    job_id = desk.submit(limits=calls.Limits(retention_s=100))
    assert desk.redis.pttl(desk.key("job", job_id)) == -1
    desk.succeed(job_id, desk.claim(job_id))
    assert 99_000 < desk.redis.pttl(desk.key("job", job_id)) <= 100_000


def test_who_waits_for_the_job_or_its_batch_is_woken_by_the_transaction(
    desk: Desk, redis_url: str
) -> None:
    job_id = desk.submit(batch=calls.BatchMembership(batch_id="b", total=2))
    other = Ledger(redis_url)
    with other.redis.pubsub(ignore_subscribe_messages=True) as pubsub:
        pubsub.subscribe(keys.wake(desk.prefix, job_id), keys.wake(desk.prefix, "b"))
        for _ in range(2):
            pubsub.get_message(timeout=1)
        desk.succeed(job_id, desk.claim(job_id))
        heard = [pubsub.get_message(timeout=1) for _ in range(2)]
    other.close()
    said = {message["channel"]: message["data"] for message in heard if message}
    assert said == {
        keys.wake(desk.prefix, job_id): "succeeded",
        keys.wake(desk.prefix, "b"): job_id,
    }


def test_a_finish_sent_twice_is_done_once(desk: Desk) -> None:
    job_id, token = desk.claimed_job()
    assert desk.succeed(job_id, token)
    before = desk.everything()
    assert desk.succeed(job_id, token)
    assert desk.everything() == before


def test_a_finish_into_the_other_state_is_lost(desk: Desk) -> None:
    job_id, token = desk.claimed_job()
    desk.succeed(job_id, token)
    before = desk.everything()
    assert not desk.fail(job_id, token)
    assert desk.everything() == before


def test_a_token_that_never_held_the_job_finishes_nothing(desk: Desk) -> None:
    job_id, _ = desk.claimed_job()
    before = desk.everything()
    for token in ("other", "", " "):
        assert not desk.succeed(job_id, token)
        assert not desk.fail(job_id, token)
    assert desk.everything() == before


def test_the_empty_token_finishes_no_job_that_was_taken_back(desk: Desk) -> None:
    """'' stands in the record where nobody holds the job."""
    job_id, token = desk.claimed_job()
    desk.release(job_id, token, delay_s=60)
    canceled, _ = desk.claimed_job()
    desk.cancel(canceled)
    before = desk.everything()
    for one in (job_id, canceled):
        assert not desk.succeed(one, "")
        assert not desk.fail(one, "")
        assert desk.renew({one: ""}) == {""}
    assert desk.everything() == before


def test_a_holder_that_was_swept_finishes_nothing_even_while_the_job_waits(desk: Desk) -> None:
    job_id, token = desk.claimed_job()
    desk.lease_runs_out(job_id)
    desk.sweep()
    assert not desk.succeed(job_id, token)
    assert desk.record(job_id).status is JobStatus.QUEUED


def test_of_two_attempts_only_the_latest_finishes(desk: Desk) -> None:
    # Given a stalled worker whose job was given to another
    job_id, stalled = desk.claimed_job()
    desk.lease_runs_out(job_id)
    desk.sweep()
    current = desk.claim(job_id, exclusive=True)
    # When / Then
    assert not desk.succeed(job_id, stalled)
    assert desk.succeed(job_id, current)
    assert not desk.succeed(job_id, stalled)
    assert desk.kinds(job_id).count("maskq.job.succeeded") == 1


def test_a_lease_that_ran_out_unswept_does_not_hinder_the_finish(desk: Desk) -> None:
    job_id, token = desk.claimed_job()
    desk.lease_runs_out(job_id)
    assert desk.succeed(job_id, token)
    assert desk.sweep().reaped == 0


def test_the_last_charged_holder_is_not_told_that_its_failure_was_recorded(desk: Desk) -> None:
    """The job ended `failed`, but by the sweeper's word: this token's call is not one sent twice."""
    job_id, token = desk.claimed_job(exclusive=True, max_attempts=1)
    desk.lease_runs_out(job_id)
    desk.sweep()
    assert desk.record(job_id).status is JobStatus.FAILED
    assert not desk.fail(job_id, token)


def test_a_job_that_failed_at_its_release_is_not_failed_again(desk: Desk) -> None:
    job_id, token = desk.claimed_job(max_attempts=1)
    assert desk.release(job_id, token) is calls.ReleaseOutcome.FAILED
    assert not desk.fail(job_id, token)
    assert desk.record(job_id).error == AWAY


def test_an_unknown_job_is_lost(desk: Desk) -> None:
    before = desk.everything()
    assert not desk.succeed("never", "t")
    assert not desk.fail("never", "")
    assert desk.everything() == before
