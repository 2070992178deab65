"""finish: one token ends a job, once, and everything that follows is in the same transaction."""

from __future__ import annotations

from support import ledger_harness
from support.ledger_harness import AWAY, BROKEN, RESULT, LedgerHarness

from maskq.contract import JobStatus
from maskq.ledger import Ledger, calls, keys

harness = ledger_harness.harness


def test_a_result_ends_the_job(harness: LedgerHarness) -> None:
    job_id, token = harness.claimed_job()
    assert harness.succeed(job_id, token)
    record = harness.record(job_id)
    assert (record.status, record.result, record.error) == (JobStatus.SUCCEEDED, RESULT, None)
    assert record.ended_ms is not None
    assert harness.indexes(job_id) == {"ended"}
    assert harness.kinds(job_id)[-1] == "maskq.job.succeeded"


def test_a_reason_ends_the_job(harness: LedgerHarness) -> None:
    job_id, token = harness.claimed_job()
    assert harness.fail(job_id, token)
    record = harness.record(job_id)
    assert (record.status, record.result, record.error) == (JobStatus.FAILED, None, BROKEN)
    assert harness.indexes(job_id) == {"ended"}
    assert harness.kinds(job_id)[-1] == "maskq.job.failed"


def test_success_wipes_the_reason_of_an_earlier_attempt(harness: LedgerHarness) -> None:
    job_id, token = harness.claimed_job()
    harness.release(job_id, token)
    assert harness.record(job_id).error == AWAY
    harness.succeed(job_id, harness.claim(job_id))
    assert harness.record(job_id).error is None


def test_a_record_is_kept_for_its_retention_after_it_ended(harness: LedgerHarness) -> None:
    job_id = harness.submit(limits=calls.Limits(retention_s=100))
    assert harness.redis.pttl(harness.key("job", job_id)) == -1
    harness.succeed(job_id, harness.claim(job_id))
    assert 99_000 < harness.redis.pttl(harness.key("job", job_id)) <= 100_000


def test_who_waits_for_the_job_or_its_batch_is_woken_by_the_transaction(
    harness: LedgerHarness, redis_url: str
) -> None:
    job_id = harness.submit(batch=calls.BatchMembership(batch_id="b", total=2))
    other = Ledger(redis_url, harness.prefix)
    with other.redis.pubsub(ignore_subscribe_messages=True) as pubsub:
        pubsub.subscribe(
            keys.wake(job_id).within(harness.prefix), keys.wake("b").within(harness.prefix)
        )
        for _ in range(2):
            pubsub.get_message(timeout=30)
        harness.succeed(job_id, harness.claim(job_id))
        heard = [pubsub.get_message(timeout=30) for _ in range(2)]
    other.close()
    said = {message["channel"]: message["data"] for message in heard if message}
    assert said == {
        keys.wake(job_id).within(harness.prefix): "succeeded",
        keys.wake("b").within(harness.prefix): job_id,
    }


def test_a_finish_sent_twice_is_done_once(harness: LedgerHarness) -> None:
    job_id, token = harness.claimed_job()
    assert harness.succeed(job_id, token)
    before = harness.everything()
    assert harness.succeed(job_id, token)
    assert harness.everything() == before


def test_a_finish_into_the_other_state_is_lost(harness: LedgerHarness) -> None:
    job_id, token = harness.claimed_job()
    harness.succeed(job_id, token)
    before = harness.everything()
    assert not harness.fail(job_id, token)
    assert harness.everything() == before


def test_a_token_that_never_held_the_job_finishes_nothing(harness: LedgerHarness) -> None:
    job_id, _ = harness.claimed_job()
    before = harness.everything()
    for token in ("other", "", " "):
        assert not harness.succeed(job_id, token)
        assert not harness.fail(job_id, token)
    assert harness.everything() == before


def test_the_empty_token_finishes_no_job_that_was_taken_back(harness: LedgerHarness) -> None:
    """'' stands in the record where nobody holds the job."""
    job_id, token = harness.claimed_job()
    harness.release(job_id, token, delay_s=60)
    canceled, _ = harness.claimed_job()
    harness.cancel(canceled)
    before = harness.everything()
    for one in (job_id, canceled):
        assert not harness.succeed(one, "")
        assert not harness.fail(one, "")
        assert harness.renew({one: ""}) == {""}
    assert harness.everything() == before


def test_a_holder_that_was_swept_finishes_nothing_even_while_the_job_waits(
    harness: LedgerHarness,
) -> None:
    job_id, token = harness.claimed_job()
    harness.lease_runs_out(job_id)
    harness.sweep()
    assert not harness.succeed(job_id, token)
    assert harness.record(job_id).status is JobStatus.QUEUED


def test_of_two_attempts_only_the_latest_finishes(harness: LedgerHarness) -> None:
    # Given a stalled worker whose job was given to another
    job_id, stalled = harness.claimed_job()
    harness.lease_runs_out(job_id)
    harness.sweep()
    current = harness.claim(job_id, exclusive=True)
    # When / Then
    assert not harness.succeed(job_id, stalled)
    assert harness.succeed(job_id, current)
    assert not harness.succeed(job_id, stalled)
    assert harness.kinds(job_id).count("maskq.job.succeeded") == 1


def test_a_lease_that_ran_out_unswept_does_not_hinder_the_finish(harness: LedgerHarness) -> None:
    job_id, token = harness.claimed_job()
    harness.lease_runs_out(job_id)
    assert harness.succeed(job_id, token)
    assert harness.sweep().reaped == 0


def test_the_last_charged_holder_is_not_told_that_its_failure_was_recorded(
    harness: LedgerHarness,
) -> None:
    """The job ended `failed`, but by the sweeper's word: this token's call is not one sent twice."""
    job_id, token = harness.claimed_job(exclusive=True, max_attempts=1)
    harness.lease_runs_out(job_id)
    harness.sweep()
    assert harness.record(job_id).status is JobStatus.FAILED
    assert not harness.fail(job_id, token)


def test_a_job_that_failed_at_its_release_is_not_failed_again(harness: LedgerHarness) -> None:
    job_id, token = harness.claimed_job(max_attempts=1)
    assert harness.release(job_id, token) is calls.ReleaseOutcome.FAILED
    assert not harness.fail(job_id, token)
    assert harness.record(job_id).error == AWAY


def test_an_unknown_job_is_lost(harness: LedgerHarness) -> None:
    before = harness.everything()
    assert not harness.succeed("never", "t")
    assert not harness.fail("never", "")
    assert harness.everything() == before
