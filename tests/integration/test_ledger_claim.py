"""claim: of all who hold a ticket each gets another job, and nobody one that is not to be had."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from maskq.contract import FailureCode, JobStatus
from maskq.contract.ids import new_token
from maskq.ledger.calls import Claimed, ClaimOutcome

from . import ledger_desk
from .ledger_desk import AWAY, LEASE_S, Desk

desk = ledger_desk.desk

NONE = Claimed(ClaimOutcome.NONE)
LOOKS = 100  # expired jobs that one claim clears away


def suspect(desk: Desk) -> str:
    """A job that lost its worker in company: it runs only alone from then on."""
    job_id, _ = desk.claimed_job()
    desk.lease_runs_out(job_id)
    assert desk.sweep().reaped == 1
    return job_id


def test_the_next_job_is_claimed_with_its_record(desk: Desk) -> None:
    # Given
    job_id = desk.submit(run_timeout_s=50, metadata={"k": "v"})
    before = desk.now_ms()
    # When
    assert desk.pop()
    claimed = desk.try_claim("token-1")
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


def test_a_ticket_gets_a_job_of_its_own_model_only(desk: Desk) -> None:
    desk.serve("another")
    other, own = desk.submit(model="another"), desk.submit(model="demo")
    assert [desk.take(), desk.take(model="another")] == [own, other]
    assert desk.try_claim(model="never served") == NONE


# --- nothing to be had --------------------------------------------------------------------------------


def test_a_ticket_too_many_gets_nothing(desk: Desk) -> None:
    """Doubled by the broker, or its job was taken for the ticket before."""
    job_id = desk.submit()
    desk.redis.lpush(desk.queue, *desk.redis.lrange(desk.queue, 0, -1))
    assert [desk.take(), desk.take()] == [job_id, None]
    assert desk.record(job_id).attempt == 1


def test_the_ticket_of_a_canceled_job_gets_the_next_job_or_nothing(desk: Desk) -> None:
    canceled, kept = desk.submit(), desk.submit()
    desk.cancel(canceled)
    assert [desk.take(), desk.take()] == [kept, None]


def test_where_nothing_waits_a_claim_writes_nothing(desk: Desk) -> None:
    job_id, _ = desk.claimed_job()
    delayed, token = desk.claimed_job()
    desk.release(delayed, token, delay_s=60)
    before = desk.everything()
    assert desk.try_claim() == desk.try_claim(exclusive=True) == NONE
    assert desk.everything() == before
    assert desk.record(job_id).status is JobStatus.RUNNING


def test_a_job_whose_lease_ran_out_is_not_to_be_had_until_it_is_swept(desk: Desk) -> None:
    """The fence is the token, never the time."""
    job_id, _ = desk.claimed_job()
    desk.lease_runs_out(job_id)
    assert desk.try_claim() == NONE
    assert desk.try_claim(job_id=job_id) == NONE


def test_the_winner_s_token_does_not_open_an_ended_job(desk: Desk) -> None:
    job_id = desk.submit()
    desk.try_claim("t")
    desk.succeed(job_id, "t")
    before = desk.everything()
    assert desk.try_claim("t") == desk.try_claim("t", job_id=job_id) == NONE
    assert desk.everything() == before


@pytest.mark.parametrize("exclusive", [False, True])
def test_a_job_that_backs_off_is_not_to_be_had_by_its_name_either(
    desk: Desk, exclusive: bool
) -> None:
    job_id, token = desk.claimed_job()
    desk.release(job_id, token, delay_s=60)
    before = desk.everything()
    # When / Then
    assert desk.try_claim(job_id=job_id, exclusive=exclusive) == NONE
    assert desk.everything() == before
    # When its time has come
    desk.backoff_passes(job_id)
    assert desk.claim(job_id)
    assert desk.places(job_id) == {"leases", "deadlines"}
    assert desk.record(job_id).not_before_ms is None


def test_an_id_without_a_record_is_nothing(desk: Desk) -> None:
    before = desk.everything()
    assert desk.try_claim(job_id="never") == NONE
    assert desk.everything() == before


def test_a_ready_job_without_a_record_does_not_stand_in_the_way(desk: Desk) -> None:
    """Somebody deleted its key by hand: it is the oldest, and would be looked at for ever."""
    gone, job_id = desk.submit(), desk.submit()
    desk.redis.delete(desk.key("job", gone))
    assert desk.take() == job_id
    assert (desk.ready(), desk.queued()) == ([], {"": 0})
    assert (desk.take(), desk.tickets()) == (None, 0)


# --- jobs that expire ---------------------------------------------------------------------------------


def test_a_job_past_its_queue_ttl_expires_at_the_claim_which_gets_the_next(desk: Desk) -> None:
    late, job_id = desk.submit(queue_ttl_s=60), desk.submit()
    desk.time_is_up(late)
    assert desk.take() == job_id
    record = desk.record(late)
    assert record.status is JobStatus.EXPIRED
    assert record.error is not None
    assert record.error.code is FailureCode.EXPIRED
    assert (record.attempt, desk.places(late)) == (0, {"ended"})
    assert desk.kinds(late) == ["maskq.job.queued", "maskq.job.expired"]
    assert desk.take() is None


def test_a_job_past_its_queue_ttl_expires_at_a_claim_by_name(desk: Desk) -> None:
    job_id = desk.submit()
    desk.time_is_up(job_id)
    assert desk.try_claim(job_id=job_id) == NONE
    assert desk.record(job_id).status is JobStatus.EXPIRED


def test_a_job_of_a_tiny_queue_ttl_expires_by_redis_clock(desk: Desk) -> None:
    job_id = desk.submit(queue_ttl_s=0.001)
    while desk.now_ms() <= desk.record(job_id).created_ms + 1:
        pass
    assert desk.take() is None
    assert desk.record(job_id).status is JobStatus.EXPIRED


def test_of_many_expired_jobs_one_claim_clears_some_and_leaves_a_ticket(desk: Desk) -> None:
    """Redis is not held long, and whoever takes that ticket goes on."""
    # Given more of them than one claim looks at, and a job behind them whose ticket alone is left
    expired = desk.submit_many(LOOKS + 20)
    for job_id in expired:
        desk.time_is_up(job_id)
    job_id = desk.submit()
    desk.redis.ltrim(desk.queue, 0, 0)
    # When / Then
    assert (desk.take(), desk.tickets()) == (None, 1)
    assert desk.queued() == {"": 21}
    assert (desk.take(), desk.tickets()) == (job_id, 0)
    assert {desk.record(one).status for one in expired} == {JobStatus.EXPIRED}


# --- with a ticket of its own -------------------------------------------------------------------------


def test_who_goes_on_takes_ticket_and_job_in_one_step(desk: Desk) -> None:
    first, second = desk.submit(), desk.submit()
    record = desk.try_claim(with_ticket=True).record
    assert record is not None
    assert (record.id, desk.tickets(), desk.queued()) == (first, 1, {"": 1})
    assert desk.take() == second


def test_without_a_ticket_nothing_is_claimed(desk: Desk) -> None:
    """Somebody else holds it, and is on his way to the job."""
    job_id = desk.submit()
    assert desk.pop()
    assert desk.try_claim(with_ticket=True) == NONE
    assert desk.record(job_id).status is JobStatus.QUEUED


def test_a_claim_with_a_ticket_sent_again_takes_no_second_one(desk: Desk) -> None:
    desk.submit_many(3)
    answers = [desk.try_claim("t", with_ticket=True) for _ in range(2)]
    assert answers[0] == answers[1]
    assert (desk.tickets(), desk.queued()) == (2, {"": 2})


def test_a_message_that_is_no_ticket_is_left_to_celery(desk: Desk) -> None:
    job_id = desk.submit()
    desk.redis.rpush(desk.queue, "no ticket")
    assert desk.try_claim(with_ticket=True) == NONE
    assert desk.redis.lindex(desk.queue, -1) == "no ticket"
    assert desk.record(job_id).status is JobStatus.QUEUED


# --- alone --------------------------------------------------------------------------------------------


def test_a_job_that_lost_a_worker_runs_only_alone(desk: Desk) -> None:
    # Given
    job_id = suspect(desk)
    # When a worker that runs other jobs asks
    assert desk.pop()
    assert desk.try_claim() == Claimed(ClaimOutcome.ALONE, job_id=job_id)
    # Then nothing was started, and the job waits for it, or for another should it die
    record = desk.record(job_id)
    assert (record.status, record.attempt) == (JobStatus.QUEUED, 1)
    assert desk.places(job_id) == {"waiting", "deadlines"}
    waits = (desk.score(job_id, "waiting") or 0) - desk.now_ms()
    assert LEASE_S * 1000 < waits <= 2 * LEASE_S * 1000
    # When it asks for this one, alone
    assert desk.claim(job_id, exclusive=True)
    # Then
    assert desk.record(job_id).attempt == 2
    assert desk.places(job_id) == {"leases", "deadlines"}
    assert desk.queued() == {"": 0}


def test_while_one_worker_makes_room_others_take_what_is_behind(desk: Desk) -> None:
    job_id = suspect(desk)
    behind = desk.submit()
    assert desk.try_claim().job_id == job_id
    assert desk.take() == behind
    assert desk.try_claim() == NONE


def test_who_is_alone_gets_the_suspect_at_once(desk: Desk) -> None:
    job_id = suspect(desk)
    record = desk.try_claim(exclusive=True).record
    assert record is not None
    assert (record.id, record.attempt) == (job_id, 2)


def test_a_worker_that_dies_before_it_is_alone_leaves_the_job_to_the_sweeper(desk: Desk) -> None:
    # Given
    job_id = suspect(desk)
    assert desk.pop()
    assert desk.try_claim().outcome is ClaimOutcome.ALONE
    assert desk.sweep().sent == 0
    # When
    desk.backoff_passes(job_id)
    # Then
    assert desk.sweep().sent == 1
    assert (desk.ready(), desk.tickets()) == ([job_id], 1)
    assert desk.places(job_id) == {"ready", "deadlines"}


def test_a_job_made_room_for_may_be_canceled_or_taken_meanwhile(desk: Desk) -> None:
    canceled = suspect(desk)
    assert desk.try_claim().job_id == canceled
    desk.cancel(canceled)
    taken = suspect(desk)
    assert desk.try_claim().job_id == taken
    desk.claim(taken, exclusive=True)
    for job_id in (canceled, taken):
        assert desk.try_claim(job_id=job_id, exclusive=True) == NONE


def test_an_exclusive_claim_of_any_job_is_granted(desk: Desk) -> None:
    desk.submit()
    assert desk.try_claim(exclusive=True).outcome is ClaimOutcome.CLAIMED


# --- attempts -----------------------------------------------------------------------------------------


def test_every_claim_raises_the_attempt(desk: Desk) -> None:
    job_id = desk.submit()
    for attempt in range(1, 6):
        assert desk.take() == job_id
        assert desk.record(job_id).attempt == attempt
        desk.release(job_id, desk.raw(job_id)["token"], charged=False)


def test_of_many_threads_each_gets_another_job(desk: Desk) -> None:
    jobs = desk.submit_many(40)
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(lambda _: desk.take(), range(60)))
    assert sorted(filter(None, taken)) == jobs
    assert {desk.record(job_id).attempt for job_id in jobs} == {1}


def test_of_many_threads_one_gets_the_job_by_its_name(desk: Desk) -> None:
    job_ids = [desk.submit() for _ in range(10)]

    def ask(job_id: str) -> bool:
        return desk.try_claim(job_id=job_id).record is not None

    with ThreadPoolExecutor(8) as pool:
        for job_id in job_ids:
            assert sum(pool.map(ask, [job_id] * 8)) == 1
            assert desk.record(job_id).attempt == 1


def test_the_record_of_a_retry_says_why_the_last_attempt_was_given_back(desk: Desk) -> None:
    job_id, token = desk.claimed_job()
    desk.release(job_id, token)
    again = desk.try_claim().record
    assert again is not None
    assert again.error == AWAY


# --- sent twice, later --------------------------------------------------------------------------------


def test_a_claim_is_remembered_as_long_as_it_may_be_sent_again(desk: Desk) -> None:
    desk.submit()
    desk.try_claim("t")
    assert 55_000 < desk.redis.pttl(desk.key("claim", "t")) <= 60_000


def test_a_claim_sent_again_gets_no_second_job_once_the_first_is_lost(desk: Desk) -> None:
    job_id, behind = desk.submit(), desk.submit()
    assert desk.try_claim("t").record is not None
    desk.release(job_id, "t", delay_s=60)
    assert desk.try_claim("t") == NONE
    assert desk.try_claim(new_token()).record == desk.record(behind)
