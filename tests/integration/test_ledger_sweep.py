"""sweep: leases, deadlines, back-offs and lost tickets, and no backlog is ever sent twice."""

from __future__ import annotations

import pytest

from maskq.contract import FailureCode, JobStatus
from maskq.ledger import calls
from maskq.ledger.calls import ClaimOutcome, Swept

from . import ledger_desk
from .ledger_desk import LEASE_S, NOTHING_SWEPT, Desk

desk = ledger_desk.desk


def swept(**counts: int) -> Swept:
    zeros = {"reaped": 0, "due": 0, "sent": 0, "sent_again": 0, "answered_again": 0}
    return Swept(**(zeros | {"swept": 1} | counts))


# --- who sweeps ---------------------------------------------------------------------------------------


def test_one_sweep_in_400_ms_does_the_work(desk: Desk) -> None:
    assert desk.sweep(after_ms=400) == NOTHING_SWEPT
    assert desk.sweep(after_ms=None) == swept(swept=0)
    assert desk.sweep(after_ms=200) == swept(swept=0)


def test_the_first_sweep_of_a_new_server_is_never_too_early(desk: Desk) -> None:
    desk.sweep()
    assert desk.sweep(after_ms=None, new_server=True) == NOTHING_SWEPT


def test_sweeps_go_on_when_redis_clock_was_set_back(desk: Desk) -> None:
    """By NTP, or by a replica that took over: nobody may wait until the old time comes again."""
    # Given a sweep of an hour ahead, and a job whose ticket is lost
    job_id = desk.submit()
    desk.redis.delete(desk.queue)
    assert desk.sweep(after_ms=-3_600_000) == NOTHING_SWEPT
    desk.marks_age(-3_600_000)
    # When
    assert desk.sweep(after_ms=1000).sent_again == 1
    # Then
    assert desk.take() == job_id


# --- leases -------------------------------------------------------------------------------------------


def test_a_lease_that_holds_is_left_alone(desk: Desk) -> None:
    job_id, token = desk.claimed_job()
    before = desk.raw(job_id)
    assert desk.sweep() == NOTHING_SWEPT
    assert desk.raw(job_id) == before
    assert desk.succeed(job_id, token)


def test_a_job_that_died_in_company_is_queued_uncharged_to_run_alone(desk: Desk) -> None:
    # Given
    job_id, token = desk.claimed_job()
    desk.lease_runs_out(job_id)
    # When
    assert desk.sweep() == swept(reaped=1)
    # Then
    record = desk.record(job_id)
    assert (record.status, record.attempt, record.charges) == (JobStatus.QUEUED, 1, 0)
    assert record.error is not None
    assert record.error.code is FailureCode.WORKER_LOST
    assert desk.places(job_id) == {"ready", "deadlines"}
    assert desk.tickets() == 1
    assert desk.kinds(job_id)[-1] == "maskq.job.queued"
    assert desk.renew({job_id: token}) == {token}
    assert desk.try_claim().outcome is ClaimOutcome.ALONE


def test_a_job_that_died_alone_is_charged(desk: Desk) -> None:
    job_id, _ = desk.claimed_job(exclusive=True)
    desk.lease_runs_out(job_id)
    assert desk.sweep().reaped == 1
    record = desk.record(job_id)
    assert (record.status, record.charges) == (JobStatus.QUEUED, 1)


def test_a_job_that_kills_every_worker_fails_after_max_attempts_alone(desk: Desk) -> None:
    # Given
    job_id = desk.submit(max_attempts=2)
    deaths = 0
    # When
    while desk.record(job_id).status is JobStatus.QUEUED:
        if desk.try_claim().outcome is ClaimOutcome.ALONE:
            desk.claim(job_id, exclusive=True)
        desk.lease_runs_out(job_id)
        assert desk.sweep().reaped == 1
        deaths += 1
    # Then one death in company and two alone
    record = desk.record(job_id)
    assert (deaths, record.attempt, record.charges) == (3, 3, 2)
    assert record.status is JobStatus.FAILED
    assert record.error is not None
    assert record.error.code is FailureCode.WORKER_LOST
    assert "attempt 3" in record.error.message
    assert desk.places(job_id) == {"ended"}
    assert desk.kinds(job_id).count("maskq.job.failed") == 1


def test_leases_of_many_workers_are_swept_up_to_the_cap_oldest_first(desk: Desk) -> None:
    # Given
    jobs = [desk.claimed_job()[0] for _ in range(5)]
    for age, job_id in enumerate(jobs):
        desk.redis.zadd(desk.key("leases"), {job_id: 1000 - age})
    # When / Then
    assert desk.sweep(cap=2).reaped == 2
    assert [desk.record(job_id).status.value for job_id in jobs] == ["running"] * 3 + ["queued"] * 2
    assert desk.sweep(cap=2).reaped == 2
    assert desk.sweep(cap=2).reaped == 1


def test_a_lease_of_a_job_without_record_is_dropped(desk: Desk) -> None:
    job_id, _ = desk.claimed_job()
    desk.lease_runs_out(job_id)
    desk.time_is_up(job_id)
    desk.redis.delete(desk.key("job", job_id))
    desk.sweep()
    assert desk.places(job_id) == set()
    assert desk.sweep() == NOTHING_SWEPT


@pytest.mark.parametrize(
    "gap",
    [
        {"after_ms": int(LEASE_S * 500) + 50},
        {"after_ms": 3_600_000},
        {"after_ms": -3_600_000},
        {"after_ms": 1000, "new_server": True},
    ],
    ids=["half a lease", "an hour", "clock set back", "Redis restarted"],
)
def test_after_an_outage_holders_have_one_lease_of_grace(desk: Desk, gap: dict[str, int]) -> None:
    # Given a holder that could not renew, and a lease of another that ends far from now
    job_id, token = desk.claimed_job()
    other, _ = desk.claimed_job()
    desk.renew({other: desk.raw(other)["token"]}, lease_s=10 * LEASE_S)
    far = desk.score(other, "leases")
    desk.lease_runs_out(job_id)
    # When
    assert desk.sweep(**gap) == NOTHING_SWEPT
    # Then
    left_ms = (desk.score(job_id, "leases") or 0) - desk.now_ms()
    assert LEASE_S * 1000 - 1000 < left_ms <= LEASE_S * 1000
    assert desk.score(other, "leases") == far
    # And it is given once
    desk.lease_runs_out(job_id)
    assert desk.sweep().reaped == 1
    assert not desk.succeed(job_id, token)


def test_the_first_sweep_ever_gives_grace(desk: Desk) -> None:
    job_id, _ = desk.claimed_job()
    desk.lease_runs_out(job_id)
    assert desk.sweep(after_ms=None) == NOTHING_SWEPT
    assert desk.record(job_id).status is JobStatus.RUNNING


@pytest.mark.parametrize("lease_s", [0.1, 1.0, 2.0])
def test_sweeps_a_second_apart_reap_the_shortest_lease_too(desk: Desk, lease_s: float) -> None:
    """A second is the sweepers' own rhythm: taken for an outage, no lease would ever run out."""
    job_id, _ = desk.claimed_job()
    desk.lease_runs_out(job_id)
    assert desk.sweep(after_ms=1100, lease_s=lease_s).reaped == 1


# --- deadlines ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("backs_off", [False, True])
def test_a_queued_job_past_its_ttl_expires(desk: Desk, backs_off: bool) -> None:
    # Given
    job_id = desk.submit()
    if backs_off:
        desk.release(job_id, desk.claim(job_id), delay_s=60)
    desk.time_is_up(job_id)
    # When
    assert desk.sweep() == swept(due=1)
    # Then
    record = desk.record(job_id)
    assert record.status is JobStatus.EXPIRED
    assert record.error is not None
    assert record.error.code is FailureCode.EXPIRED
    assert desk.places(job_id) == {"ended"}
    assert desk.kinds(job_id)[-1] == "maskq.job.expired"
    assert desk.redis.pttl(desk.key("job", job_id)) > 0


def test_a_running_job_past_its_timeout_fails_and_its_holder_is_fenced_off(desk: Desk) -> None:
    # Given
    job_id, token = desk.claimed_job()
    desk.time_is_up(job_id)
    # When
    assert desk.sweep() == swept(due=1)
    # Then
    record = desk.record(job_id)
    assert record.status is JobStatus.FAILED
    assert record.error is not None
    assert record.error.code is FailureCode.TIMEOUT
    assert desk.places(job_id) == {"ended"}
    assert desk.renew({job_id: token}) == {token}
    assert not desk.succeed(job_id, token)
    assert not desk.fail(job_id, token)


def test_a_running_job_is_not_touched_by_its_queue_ttl(desk: Desk) -> None:
    job_id, token = desk.claimed_job(queue_ttl_s=0.2)
    while desk.now_ms() <= desk.record(job_id).created_ms + 200:
        pass
    assert desk.sweep() == NOTHING_SWEPT
    assert desk.succeed(job_id, token)


def test_each_attempt_has_its_own_run_timeout(desk: Desk) -> None:
    job_id, token = desk.claimed_job(run_timeout_s=50)
    desk.time_is_up(job_id)
    desk.release(job_id, token)
    desk.claim(job_id)
    assert desk.sweep() == NOTHING_SWEPT


def test_a_backlog_that_expires_is_worked_off_up_to_the_cap(desk: Desk) -> None:
    jobs = [desk.submit() for _ in range(5)]
    for job_id in jobs:
        desk.time_is_up(job_id)
    assert [desk.sweep(cap=2).due for _ in range(4)] == [2, 2, 1, 0]
    assert {desk.record(job_id).status for job_id in jobs} == {JobStatus.EXPIRED}


# --- back-offs ----------------------------------------------------------------------------------------


def test_back_offs_that_passed_are_sent_up_to_the_cap_the_rest_next_time(desk: Desk) -> None:
    jobs = []
    for _ in range(3):
        job_id, token = desk.claimed_job()
        desk.release(job_id, token, delay_s=60)
        desk.backoff_passes(job_id)
        jobs.append(job_id)
    assert [desk.sweep(cap=2).sent for _ in range(3)] == [2, 1, 0]
    assert (desk.ready(), desk.tickets()) == (jobs, 3)


def test_a_back_off_without_record_is_dropped(desk: Desk) -> None:
    job_id, token = desk.claimed_job()
    desk.release(job_id, token, delay_s=60)
    desk.backoff_passes(job_id)
    desk.redis.delete(desk.key("job", job_id))
    desk.sweep()
    assert desk.score(job_id, "waiting") is None
    assert (desk.ready(), desk.tickets()) == ([], 0)


# --- lost tickets -------------------------------------------------------------------------------------


def lose(desk: Desk, count: int = 1) -> None:
    """Tickets vanish, as with a worker that took them and died before it asked."""
    assert all(desk.pop() for _ in range(count))


def test_a_ticket_lost_from_an_empty_list_is_sent_again_after_the_grace_time(desk: Desk) -> None:
    # Given
    job_id = desk.submit()
    lose(desk)
    # When / Then the first look notes that there is a job without a ticket
    assert desk.sweep() == NOTHING_SWEPT
    desk.marks_age(4000)
    assert desk.sweep() == NOTHING_SWEPT
    desk.marks_age(1000)
    assert desk.sweep() == swept(sent_again=1)
    assert desk.places(job_id) == {"ready", "deadlines"}
    assert (desk.tickets(), desk.take()) == (1, job_id)


def test_a_ticket_lost_out_of_a_backlog_is_sent_again_once(desk: Desk) -> None:
    jobs = desk.submit_many(5)
    lose(desk)
    assert desk.sweep() == NOTHING_SWEPT
    desk.marks_age()
    assert desk.sweep() == swept(sent_again=1)
    for _ in range(5):
        desk.marks_age()
        assert desk.sweep() == NOTHING_SWEPT
    assert [desk.take() for _ in range(6)] == [*jobs, None]


def test_a_ticket_lost_after_the_note_waits_for_the_next_one(desk: Desk) -> None:
    desk.submit_many(2)
    lose(desk)
    desk.sweep()
    lose(desk)
    for _ in range(2):
        desk.marks_age()
        assert desk.sweep() == swept(sent_again=1)
    assert desk.tickets() == 2


def test_a_ticket_that_was_just_taken_is_not_lost(desk: Desk) -> None:
    """Its claim comes within the grace time."""
    desk.submit_many(3)
    desk.pop()
    assert desk.sweep() == NOTHING_SWEPT
    assert desk.try_claim().record is not None
    desk.marks_age()
    assert desk.sweep() == NOTHING_SWEPT


def test_workers_always_seen_with_a_ticket_in_hand_cost_one_each_in_all(desk: Desk) -> None:
    """The sweeper cannot tell theirs from lost ones; what it sends too many does not add up."""
    jobs, in_hand = desk.submit_many(60), 3
    lose(desk, in_hand)
    taken = []
    while desk.ready():
        desk.marks_age()
        desk.sweep()
        assert desk.tickets() <= len(desk.ready())
        taken += desk.take_many(in_hand)
        for _ in range(in_hand):
            desk.pop()
    assert taken == jobs
    assert desk.tickets() <= in_hand


def test_a_backlog_without_workers_is_never_sent_again(desk: Desk) -> None:
    """For hours: a sweep a second, the grace time long over at each."""
    for priority in ("high", "normal", "low"):
        for tenant in (None, "ada", "bob"):
            desk.submit_many(3, priority=priority, tenant=tenant)
    before = desk.messages()
    for _ in range(30):
        desk.marks_age(60_000)
        assert desk.sweep() == NOTHING_SWEPT
    assert desk.messages() == before


def test_a_backlog_whose_tickets_are_all_lost_gets_one_each_and_no_more(desk: Desk) -> None:
    jobs = desk.submit_many(20)
    desk.redis.delete(desk.queue)
    sent = 0
    for _ in range(30):
        desk.marks_age(60_000)
        sent += desk.sweep().sent_again
    assert (sent, desk.tickets()) == (20, 20)
    assert [desk.take() for _ in range(20)] == jobs


def test_a_backlog_that_is_worked_off_is_never_sent_again(desk: Desk) -> None:
    jobs = desk.submit_many(40)
    while desk.take():
        desk.marks_age(60_000)
        assert desk.sweep().sent_again == 0
    assert desk.tickets() == 0
    assert {desk.record(job_id).attempt for job_id in jobs} == {1}


def test_doubled_tickets_double_nothing(desk: Desk) -> None:
    """Restored by the broker, or sent once more: they find nothing, and nothing is sent for them."""
    jobs = desk.submit_many(10)
    desk.redis.rpush(desk.queue, *desk.redis.lrange(desk.queue, 0, -1))
    assert desk.settle().sent_again == 0
    assert [desk.take() for _ in range(20)] == [*jobs, *[None] * 10]
    assert desk.settle().sent_again == 0
    assert {desk.record(job_id).attempt for job_id in jobs} == {1}


def test_the_ticket_of_a_canceled_job_stands_in_for_a_lost_one(desk: Desk) -> None:
    canceled, *kept = desk.submit_many(4)
    desk.cancel(canceled)
    lose(desk)
    assert desk.settle().sent_again == 0
    assert [desk.take() for _ in range(3)] == kept


def test_jobs_that_have_no_ticket_yet_miss_none(desk: Desk) -> None:
    """Those that back off, and those for which a worker makes room."""
    delayed, token = desk.claimed_job()
    desk.release(delayed, token, delay_s=60)
    offered, _ = desk.claimed_job()
    desk.lease_runs_out(offered)
    desk.sweep()
    assert desk.pop()
    assert desk.try_claim().job_id == offered
    for _ in range(3):
        assert desk.settle().sent_again == 0
    assert desk.tickets() == 0


def test_tickets_of_one_model_do_not_hide_those_lost_of_another(desk: Desk) -> None:
    job_id = desk.submit()
    desk.serve("another")
    desk.submit_many(3, model="another")
    lose(desk)
    assert desk.settle().sent_again == 1
    assert (desk.tickets("another"), desk.take()) == (3, job_id)


def test_a_lost_ticket_of_a_retry_is_sent_again_too(desk: Desk) -> None:
    job_id, token = desk.claimed_job()
    desk.release(job_id, token)
    lose(desk)
    assert desk.settle().sent_again == 1
    assert desk.take() == job_id


def test_a_ticket_lost_again_and_again_is_sent_again_and_again(desk: Desk) -> None:
    job_id = desk.submit()
    for _ in range(5):
        lose(desk)
        assert desk.settle().sent_again == 1
    assert desk.record(job_id).attempt == 0


def test_lost_tickets_are_sent_again_up_to_the_cap_and_none_is_forgotten(desk: Desk) -> None:
    jobs = desk.submit_many(5)
    lose(desk, 5)
    assert desk.sweep(cap=2) == NOTHING_SWEPT
    sent = []
    for _ in range(4):
        desk.marks_age()
        sent.append(desk.sweep(cap=2).sent_again)
    assert sent == [2, 2, 1, 0]
    assert [desk.take() for _ in range(5)] == jobs


def test_a_restored_ledger_without_any_list_is_brought_back_to_work(desk: Desk) -> None:
    """Redis came back from a copy in which the lists are older than the records."""
    jobs = [desk.submit(priority=p) for p in ("high", "normal", "low", "normal")]
    jobs.append(desk.submit(tenant="ada"))
    desk.redis.delete(desk.queue)
    assert desk.settle().sent_again == 5
    assert {desk.take() for _ in range(5)} == {*jobs}


# --- answers to Celery callers, and old records -------------------------------------------------------


HEAD = '{"properties":{"delivery_tag":'


def test_a_caller_that_was_not_answered_is_answered_again(desk: Desk) -> None:
    # Given an answer that was taken from the list 15 s ago and never stored
    job_id = desk.submit(celery_head=HEAD)
    desk.succeed(job_id, desk.claim(job_id))
    assert desk.redis.llen(desk.prefix) == 1
    answers = desk.key("answers")
    # When it is still on the list, or was taken a moment ago, nobody is reminded
    desk.redis.zincrby(answers, -15_000, job_id)
    assert desk.sweep().answered_again == 0
    first = desk.redis.rpop(desk.prefix)
    desk.redis.zadd(answers, {job_id: desk.now_ms() - 14_000})
    assert desk.sweep().answered_again == 0
    # Then
    desk.redis.zincrby(answers, -1001, job_id)
    assert desk.sweep().answered_again == 1
    second = desk.redis.rpop(desk.prefix)
    assert second is not None
    assert second != first
    assert second.startswith(HEAD)
    # And again, until somebody says that it is done
    assert desk.sweep().answered_again == 0
    desk.redis.zincrby(answers, -16_000, job_id)
    assert desk.sweep().answered_again == 1
    desk.redis.delete(desk.prefix)
    desk.ledger.run(calls.answered(desk.prefix, job_id))
    assert desk.sweep().answered_again == 0


def test_reminders_are_capped_and_end_with_the_record(desk: Desk) -> None:
    jobs = [desk.submit(celery_head=HEAD) for _ in range(3)]
    for job_id in jobs:
        desk.cancel(job_id)
        desk.redis.zadd(desk.key("answers"), {job_id: 1})
    desk.redis.delete(desk.prefix, desk.key("job", jobs[0]))
    assert desk.sweep(cap=2).answered_again == 2
    assert desk.redis.zcard(desk.key("answers")) == 2
    assert desk.redis.llen(desk.prefix) == 1


def test_records_past_their_retention_leave_the_listings(desk: Desk) -> None:
    # Given two records that are gone and one that is not
    gone = [desk.submit() for _ in range(2)]
    kept = desk.submit()
    for job_id in (*gone, kept):
        desk.succeed(job_id, desk.claim(job_id))
    for place, job_id in enumerate((*gone, kept)):
        desk.redis.zadd(desk.key("created"), {job_id: place})
        desk.redis.zadd(desk.key("ended"), {job_id: place})
    desk.redis.delete(*(desk.key("job", job_id) for job_id in gone))
    # When
    desk.sweep()
    # Then
    assert desk.redis.zrange(desk.key("created"), 0, -1) == [kept]
    assert desk.redis.zrange(desk.key("ended"), 0, -1) == [kept]


def test_webhooks_past_their_retention_leave_the_listing(desk: Desk) -> None:
    # Given two webhooks whose rows are gone and one whose row is not
    for job_id in ("1", "2", "3"):
        desk.submit(job_id, webhook="https://example.com/hook")
        desk.succeed(job_id, desk.claim(job_id))
    *gone, kept = desk.redis.zrange(desk.key("deliveries"), 0, -1)
    desk.redis.delete(*(desk.key("delivery", one) for one in gone))
    # When
    desk.sweep()
    # Then
    assert desk.redis.zrange(desk.key("deliveries"), 0, -1) == [kept]


def test_a_sweep_of_nothing_writes_nothing_but_its_own_time(desk: Desk) -> None:
    desk.submit()
    desk.claimed_job(tenant="ada")
    desk.sweep()
    before = desk.everything()
    desk.sweep()
    after = desk.everything()
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed <= {desk.key("sweeper")}
