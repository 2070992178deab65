"""claim: of all who hold a ticket each gets another job, and nobody one that is not to be had."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from support import ledger_harness
from support.ledger_harness import AWAY, LEASE_S, LedgerHarness

from maskq.contract import FailureCode, JobStatus
from maskq.contract.ids import new_token
from maskq.ledger.calls import Claimed, ClaimOutcome

harness = ledger_harness.harness

NONE = Claimed(ClaimOutcome.NONE)
LOOKS = 100  # expired jobs that one claim clears away


def suspect(harness: LedgerHarness) -> str:
    """A job that lost its worker in company: it runs only alone from then on."""
    job_id, _ = harness.claimed_job()
    harness.lease_runs_out(job_id)
    assert harness.sweep().reaped == 1
    return job_id


def test_the_next_job_is_claimed_with_its_record(harness: LedgerHarness) -> None:
    # Given
    job_id = harness.submit(run_timeout_s=50, metadata={"k": "v"})
    before = harness.now_ms()
    # When
    assert harness.pop()
    claimed = harness.try_claim("token-1")
    # Then
    assert claimed.outcome is ClaimOutcome.CLAIMED
    record = claimed.record
    assert record == harness.record(job_id)
    assert record is not None
    assert (record.status, record.attempt, record.charges) == (JobStatus.RUNNING, 1, 0)
    assert record.request.metadata == {"k": "v"}
    assert record.started_ms is not None
    assert before <= record.started_ms <= harness.now_ms()
    assert harness.indexes(job_id) == {"leases", "deadlines"}
    assert harness.score(job_id, "leases") == record.started_ms + LEASE_S * 1000
    assert harness.score(job_id, "deadlines") == record.started_ms + 50_000
    assert harness.kinds(job_id) == ["maskq.job.queued", "maskq.job.running"]
    assert (harness.raw(job_id)["token"], harness.raw(job_id)["owner"]) == ("token-1", "worker-1")


def test_a_ticket_gets_a_job_of_its_own_model_only(harness: LedgerHarness) -> None:
    harness.serve("another")
    other, own = harness.submit(model="another"), harness.submit(model="demo")
    assert [harness.take(), harness.take(model="another")] == [own, other]
    assert harness.try_claim(model="never served") == NONE


# --- nothing to be had --------------------------------------------------------------------------------


def test_a_ticket_too_many_gets_nothing(harness: LedgerHarness) -> None:
    """Doubled by the broker, or its job was taken for the ticket before."""
    job_id = harness.submit()
    harness.redis.lpush(harness.queue, *harness.redis.lrange(harness.queue, 0, -1))
    assert [harness.take(), harness.take()] == [job_id, None]
    assert harness.record(job_id).attempt == 1


def test_the_ticket_of_a_canceled_job_gets_the_next_job_or_nothing(harness: LedgerHarness) -> None:
    canceled, kept = harness.submit(), harness.submit()
    harness.cancel(canceled)
    assert [harness.take(), harness.take()] == [kept, None]


def test_where_nothing_waits_claims_write_nothing_but_that_the_turn_has_ended(
    harness: LedgerHarness,
) -> None:
    job_id, _ = harness.claimed_job()
    delayed, token = harness.claimed_job()
    harness.release(delayed, token, delay_s=60)
    before = harness.everything_but_turns()
    assert harness.try_claim() == NONE
    assert harness.everything_but_turns() == before
    before = harness.everything()
    assert harness.try_claim() == harness.try_claim(exclusive=True) == NONE
    assert harness.everything() == before
    assert harness.record(job_id).status is JobStatus.RUNNING


def test_a_job_whose_lease_ran_out_is_not_to_be_had_until_it_is_swept(
    harness: LedgerHarness,
) -> None:
    """The fence is the token, never the time."""
    job_id, _ = harness.claimed_job()
    harness.lease_runs_out(job_id)
    assert harness.try_claim() == NONE
    assert harness.try_claim(job_id=job_id) == NONE


def test_the_winner_s_token_does_not_open_an_ended_job(harness: LedgerHarness) -> None:
    job_id = harness.submit()
    harness.try_claim("t")
    harness.succeed(job_id, "t")
    before = harness.everything()
    assert harness.try_claim("t") == harness.try_claim("t", job_id=job_id) == NONE
    assert harness.everything() == before


@pytest.mark.parametrize("exclusive", [False, True])
def test_a_job_that_backs_off_is_not_to_be_had_by_its_name_either(
    harness: LedgerHarness, exclusive: bool
) -> None:
    job_id, token = harness.claimed_job()
    harness.release(job_id, token, delay_s=60)
    before = harness.everything()
    # When / Then
    assert harness.try_claim(job_id=job_id, exclusive=exclusive) == NONE
    assert harness.everything() == before
    # When its time has come
    harness.backoff_passes(job_id)
    assert harness.claim(job_id)
    assert harness.indexes(job_id) == {"leases", "deadlines"}
    assert harness.record(job_id).not_before_ms is None


def test_an_id_without_a_record_is_nothing(harness: LedgerHarness) -> None:
    before = harness.everything()
    assert harness.try_claim(job_id="never") == NONE
    assert harness.everything() == before


def test_a_ready_job_without_a_record_does_not_stand_in_the_way(harness: LedgerHarness) -> None:
    """Somebody deleted its key by hand: it is the oldest, and would be looked at for ever."""
    gone, job_id = harness.submit(), harness.submit()
    harness.redis.delete(harness.key("job", gone))
    assert harness.take() == job_id
    assert (harness.ready(), harness.queued()) == ([], {"": 0})
    assert (harness.take(), harness.tickets()) == (None, 0)


# --- jobs that expire ---------------------------------------------------------------------------------


def test_a_job_past_its_queue_ttl_expires_at_the_claim_which_gets_the_next(
    harness: LedgerHarness,
) -> None:
    late, job_id = harness.submit(queue_ttl_s=60), harness.submit()
    harness.time_is_up(late)
    assert harness.take() == job_id
    record = harness.record(late)
    assert record.status is JobStatus.EXPIRED
    assert record.error is not None
    assert record.error.code is FailureCode.EXPIRED
    assert (record.attempt, harness.indexes(late)) == (0, {"ended"})
    assert harness.kinds(late) == ["maskq.job.queued", "maskq.job.expired"]
    assert harness.take() is None


def test_a_job_past_its_queue_ttl_expires_at_a_claim_by_name(harness: LedgerHarness) -> None:
    job_id = harness.submit()
    harness.time_is_up(job_id)
    assert harness.try_claim(job_id=job_id) == NONE
    assert harness.record(job_id).status is JobStatus.EXPIRED


def test_a_job_of_a_tiny_queue_ttl_expires_by_redis_clock(harness: LedgerHarness) -> None:
    job_id = harness.submit(queue_ttl_s=0.001)
    while harness.now_ms() <= harness.record(job_id).created_ms + 1:
        pass
    assert harness.take() is None
    assert harness.record(job_id).status is JobStatus.EXPIRED


def test_of_many_expired_jobs_one_claim_clears_some_and_leaves_a_ticket(
    harness: LedgerHarness,
) -> None:
    """Redis is not held long, and whoever takes that ticket goes on."""
    # Given more of them than one claim looks at, and a job behind them whose ticket alone is left
    expired = harness.submit_many(LOOKS + 20)
    for job_id in expired:
        harness.time_is_up(job_id)
    job_id = harness.submit()
    harness.redis.ltrim(harness.queue, 0, 0)
    # When / Then
    assert (harness.take(), harness.tickets()) == (None, 1)
    assert harness.queued() == {"": 21}
    assert (harness.take(), harness.tickets()) == (job_id, 0)
    assert {harness.record(one).status for one in expired} == {JobStatus.EXPIRED}


# --- with a ticket of its own -------------------------------------------------------------------------


def test_who_goes_on_takes_ticket_and_job_in_one_step(harness: LedgerHarness) -> None:
    first, second = harness.submit(), harness.submit()
    record = harness.try_claim(with_ticket=True).record
    assert record is not None
    assert (record.id, harness.tickets(), harness.queued()) == (first, 1, {"": 1})
    assert harness.take() == second


def test_without_a_ticket_nothing_is_claimed(harness: LedgerHarness) -> None:
    """Somebody else holds it, and is on his way to the job."""
    job_id = harness.submit()
    assert harness.pop()
    assert harness.try_claim(with_ticket=True) == NONE
    assert harness.record(job_id).status is JobStatus.QUEUED


def test_a_claim_with_a_ticket_sent_again_takes_no_second_one(harness: LedgerHarness) -> None:
    harness.submit_many(3)
    answers = [harness.try_claim("t", with_ticket=True) for _ in range(2)]
    assert answers[0] == answers[1]
    assert (harness.tickets(), harness.queued()) == (2, {"": 2})


def test_a_message_that_is_no_ticket_is_left_to_celery(harness: LedgerHarness) -> None:
    job_id = harness.submit()
    harness.redis.rpush(harness.queue, "no ticket")
    assert harness.try_claim(with_ticket=True) == NONE
    assert harness.redis.lindex(harness.queue, -1) == "no ticket"
    assert harness.record(job_id).status is JobStatus.QUEUED


# --- alone --------------------------------------------------------------------------------------------


def test_a_job_that_lost_a_worker_runs_only_alone(harness: LedgerHarness) -> None:
    # Given
    job_id = suspect(harness)
    # When a worker that runs other jobs asks
    assert harness.pop()
    assert harness.try_claim() == Claimed(ClaimOutcome.ALONE, job_id=job_id)
    # Then nothing was started, and the job waits for it, or for another should it die
    record = harness.record(job_id)
    assert (record.status, record.attempt) == (JobStatus.QUEUED, 1)
    assert harness.indexes(job_id) == {"waiting", "deadlines"}
    waits = (harness.score(job_id, "waiting") or 0) - harness.now_ms()
    assert LEASE_S * 1000 < waits <= 2 * LEASE_S * 1000
    # When it asks for this one, alone
    assert harness.claim(job_id, exclusive=True)
    # Then
    assert harness.record(job_id).attempt == 2
    assert harness.indexes(job_id) == {"leases", "deadlines"}
    assert harness.queued() == {"": 0}


def test_while_one_worker_makes_room_others_take_what_is_behind(harness: LedgerHarness) -> None:
    job_id = suspect(harness)
    behind = harness.submit()
    assert harness.try_claim().job_id == job_id
    assert harness.take() == behind
    assert harness.try_claim() == NONE


def test_who_is_alone_gets_the_suspect_at_once(harness: LedgerHarness) -> None:
    job_id = suspect(harness)
    record = harness.try_claim(exclusive=True).record
    assert record is not None
    assert (record.id, record.attempt) == (job_id, 2)


def test_a_worker_that_dies_before_it_is_alone_leaves_the_job_to_the_sweeper(
    harness: LedgerHarness,
) -> None:
    # Given
    job_id = suspect(harness)
    assert harness.pop()
    assert harness.try_claim().outcome is ClaimOutcome.ALONE
    assert harness.sweep().sent == 0
    # When
    harness.backoff_passes(job_id)
    # Then
    assert harness.sweep().sent == 1
    assert (harness.ready(), harness.tickets()) == ([job_id], 1)
    assert harness.indexes(job_id) == {"ready", "deadlines"}


def test_a_job_made_room_for_may_be_canceled_or_taken_meanwhile(harness: LedgerHarness) -> None:
    canceled = suspect(harness)
    assert harness.try_claim().job_id == canceled
    harness.cancel(canceled)
    taken = suspect(harness)
    assert harness.try_claim().job_id == taken
    harness.claim(taken, exclusive=True)
    for job_id in (canceled, taken):
        assert harness.try_claim(job_id=job_id, exclusive=True) == NONE


def test_an_exclusive_claim_of_any_job_is_granted(harness: LedgerHarness) -> None:
    harness.submit()
    assert harness.try_claim(exclusive=True).outcome is ClaimOutcome.CLAIMED


# --- attempts -----------------------------------------------------------------------------------------


def test_every_claim_raises_the_attempt(harness: LedgerHarness) -> None:
    job_id = harness.submit()
    for attempt in range(1, 6):
        assert harness.take() == job_id
        assert harness.record(job_id).attempt == attempt
        harness.release(job_id, harness.raw(job_id)["token"], charged=False)


def test_of_many_threads_each_gets_another_job(harness: LedgerHarness) -> None:
    jobs = harness.submit_many(40)
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(lambda _: harness.take(), range(60)))
    assert sorted(filter(None, taken)) == jobs
    assert {harness.record(job_id).attempt for job_id in jobs} == {1}


def test_of_many_threads_one_gets_the_job_by_its_name(harness: LedgerHarness) -> None:
    job_ids = [harness.submit() for _ in range(10)]

    def ask(job_id: str) -> bool:
        return harness.try_claim(job_id=job_id).record is not None

    with ThreadPoolExecutor(8) as pool:
        for job_id in job_ids:
            assert sum(pool.map(ask, [job_id] * 8)) == 1
            assert harness.record(job_id).attempt == 1


def test_the_record_of_a_retry_says_why_the_last_attempt_was_given_back(
    harness: LedgerHarness,
) -> None:
    job_id, token = harness.claimed_job()
    harness.release(job_id, token)
    again = harness.try_claim().record
    assert again is not None
    assert again.error == AWAY


# --- sent twice, later --------------------------------------------------------------------------------


def test_a_claim_is_remembered_as_long_as_it_may_be_sent_again(harness: LedgerHarness) -> None:
    harness.submit()
    harness.try_claim("t")
    assert 55_000 < harness.redis.pttl(harness.key("claim", "t")) <= 60_000


def test_a_claim_sent_again_gets_no_second_job_once_the_first_is_lost(
    harness: LedgerHarness,
) -> None:
    job_id, behind = harness.submit(), harness.submit()
    assert harness.try_claim("t").record is not None
    harness.release(job_id, "t", delay_s=60)
    assert harness.try_claim("t") == NONE
    assert harness.try_claim(new_token()).record == harness.record(behind)
