"""sweep: leases, deadlines, back-offs and lost tickets, and no backlog is ever sent twice."""

from __future__ import annotations

import pytest
from support import ledger_harness
from support.ledger_harness import LEASE_S, MODEL, NOTHING_SWEPT, LedgerHarness
from support.waiting import until

from maskq.contract import FailureCode, JobStatus
from maskq.ledger import calls, keys
from maskq.ledger.calls import ClaimOutcome, Swept

harness = ledger_harness.harness


def swept(**counts: int) -> Swept:
    zeros = {"reaped": 0, "due": 0, "sent": 0, "sent_again": 0, "answered_again": 0}
    return Swept(**(zeros | {"swept": 1} | counts))


# --- who sweeps ---------------------------------------------------------------------------------------


def test_one_sweep_in_400_ms_does_the_work(harness: LedgerHarness) -> None:
    assert harness.sweep(after_ms=400) == NOTHING_SWEPT
    # `until`: after a stall of 400 ms a sweep works again, and the next one does not
    until(lambda: harness.sweep(after_ms=None) == swept(swept=0), within_s=10)
    until(lambda: harness.sweep(after_ms=200) == swept(swept=0), within_s=10)


def test_one_sweeper_in_400_ms_gets_the_turn(harness: LedgerHarness) -> None:
    turns = harness.ledger.run_many([calls.sweep_turn()] * 3)
    assert turns == [True, False, False]
    left_ms = harness.redis.pttl(keys.sweep_turn().within(harness.prefix))
    assert left_ms == -2 or 0 <= left_ms <= 400  # -2: the 400 ms are over


def test_the_first_sweep_of_a_new_server_is_never_too_early(harness: LedgerHarness) -> None:
    harness.sweep()
    assert harness.sweep(after_ms=None, new_server=True) == NOTHING_SWEPT


def test_sweeps_go_on_when_redis_clock_was_set_back(harness: LedgerHarness) -> None:
    """By NTP, or by a replica that took over: nobody may wait until the old time comes again."""
    # Given a sweep of an hour ahead, and a job whose ticket is lost
    job_id = harness.submit()
    harness.redis.delete(harness.queue)
    assert harness.sweep(after_ms=-3_600_000) == NOTHING_SWEPT
    harness.marks_age(-3_600_000)
    # When
    assert harness.sweep(after_ms=1000).sent_again == 1
    # Then
    assert harness.take() == job_id


# --- leases -------------------------------------------------------------------------------------------


def test_a_lease_that_holds_is_left_alone(harness: LedgerHarness) -> None:
    job_id, token = harness.claimed_job()
    before = harness.raw(job_id)
    assert harness.sweep() == NOTHING_SWEPT
    assert harness.raw(job_id) == before
    assert harness.succeed(job_id, token)


def test_a_job_that_died_in_company_is_queued_uncharged_to_run_alone(
    harness: LedgerHarness,
) -> None:
    # Given
    job_id, token = harness.claimed_job()
    harness.lease_runs_out(job_id)
    # When
    assert harness.sweep() == swept(reaped=1)
    # Then
    record = harness.record(job_id)
    assert (record.status, record.attempt, record.charges) == (JobStatus.QUEUED, 1, 0)
    assert record.error is not None
    assert record.error.code is FailureCode.WORKER_LOST
    assert harness.indexes(job_id) == {"ready", "deadlines"}
    assert harness.tickets() == 1
    assert harness.kinds(job_id)[-1] == "maskq.job.queued"
    assert harness.renew({job_id: token}) == {token}
    assert harness.try_claim().outcome is ClaimOutcome.ALONE


def test_a_job_that_died_alone_is_charged(harness: LedgerHarness) -> None:
    job_id, _ = harness.claimed_job(exclusive=True)
    harness.lease_runs_out(job_id)
    assert harness.sweep().reaped == 1
    record = harness.record(job_id)
    assert (record.status, record.charges) == (JobStatus.QUEUED, 1)


def test_a_job_that_kills_every_worker_fails_after_max_attempts_alone(
    harness: LedgerHarness,
) -> None:
    # Given
    job_id = harness.submit(max_attempts=2)
    deaths = 0
    # When
    while harness.record(job_id).status is JobStatus.QUEUED:
        if harness.try_claim().outcome is ClaimOutcome.ALONE:
            harness.claim(job_id, exclusive=True)
        harness.lease_runs_out(job_id)
        assert harness.sweep().reaped == 1
        deaths += 1
    # Then one death in company and two alone
    record = harness.record(job_id)
    assert (deaths, record.attempt, record.charges) == (3, 3, 2)
    assert record.status is JobStatus.FAILED
    assert record.error is not None
    assert record.error.code is FailureCode.WORKER_LOST
    assert "attempt 3" in record.error.message
    assert harness.indexes(job_id) == {"ended"}
    assert harness.kinds(job_id).count("maskq.job.failed") == 1


def test_leases_of_many_workers_are_swept_up_to_the_cap_oldest_first(
    harness: LedgerHarness,
) -> None:
    # Given
    jobs = [harness.claimed_job()[0] for _ in range(5)]
    for age, job_id in enumerate(jobs):
        harness.redis.zadd(harness.key("leases"), {job_id: 1000 - age})
    # When / Then
    assert harness.sweep(cap=2).reaped == 2
    assert [harness.record(job_id).status.value for job_id in jobs] == ["running"] * 3 + [
        "queued"
    ] * 2
    assert harness.sweep(cap=2).reaped == 2
    assert harness.sweep(cap=2).reaped == 1


def test_a_lease_of_a_job_without_record_is_dropped(harness: LedgerHarness) -> None:
    job_id, _ = harness.claimed_job()
    harness.lease_runs_out(job_id)
    harness.time_is_up(job_id)
    harness.redis.delete(harness.key("job", job_id))
    harness.sweep()
    assert harness.indexes(job_id) == set()
    assert harness.sweep() == NOTHING_SWEPT


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
def test_after_an_outage_holders_have_one_lease_of_grace(
    harness: LedgerHarness, gap: dict[str, int]
) -> None:
    # Given a holder that could not renew, and a lease of another that ends far from now
    job_id, token = harness.claimed_job()
    other, _ = harness.claimed_job()
    harness.renew({other: harness.raw(other)["token"]}, lease_s=10 * LEASE_S)
    far = harness.score(other, "leases")
    harness.lease_runs_out(job_id)
    # When
    assert harness.sweep(**gap) == NOTHING_SWEPT
    # Then
    left_ms = (harness.score(job_id, "leases") or 0) - harness.now_ms()
    assert LEASE_S * 1000 - 1000 < left_ms <= LEASE_S * 1000
    assert harness.score(other, "leases") == far
    # And it is given once
    harness.lease_runs_out(job_id)
    assert harness.sweep().reaped == 1
    assert not harness.succeed(job_id, token)


def test_the_first_sweep_ever_gives_grace(harness: LedgerHarness) -> None:
    job_id, _ = harness.claimed_job()
    harness.lease_runs_out(job_id)
    assert harness.sweep(after_ms=None) == NOTHING_SWEPT
    assert harness.record(job_id).status is JobStatus.RUNNING


@pytest.mark.parametrize("lease_s", [0.1, 1.0, 2.0])
def test_sweeps_a_second_apart_reap_the_shortest_lease_too(
    harness: LedgerHarness, lease_s: float
) -> None:
    """A second is the sweepers' own rhythm: taken for an outage, no lease would ever run out."""
    job_id, _ = harness.claimed_job()
    harness.lease_runs_out(job_id)
    assert harness.sweep(after_ms=1100, lease_s=lease_s).reaped == 1


# --- deadlines ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("backs_off", [False, True])
def test_a_queued_job_past_its_ttl_expires(harness: LedgerHarness, backs_off: bool) -> None:
    # Given
    job_id = harness.submit()
    if backs_off:
        harness.release(job_id, harness.claim(job_id), delay_s=60)
    harness.time_is_up(job_id)
    # When
    assert harness.sweep() == swept(due=1)
    # Then
    record = harness.record(job_id)
    assert record.status is JobStatus.EXPIRED
    assert record.error is not None
    assert record.error.code is FailureCode.EXPIRED
    assert harness.indexes(job_id) == {"ended"}
    assert harness.kinds(job_id)[-1] == "maskq.job.expired"
    assert harness.redis.pttl(harness.key("job", job_id)) > 0


def test_a_running_job_past_its_timeout_fails_and_its_holder_is_fenced_off(
    harness: LedgerHarness,
) -> None:
    # Given
    job_id, token = harness.claimed_job()
    harness.time_is_up(job_id)
    # When
    assert harness.sweep() == swept(due=1)
    # Then
    record = harness.record(job_id)
    assert record.status is JobStatus.FAILED
    assert record.error is not None
    assert record.error.code is FailureCode.TIMEOUT
    assert harness.indexes(job_id) == {"ended"}
    assert harness.renew({job_id: token}) == {token}
    assert not harness.succeed(job_id, token)
    assert not harness.fail(job_id, token)


def test_a_running_job_is_not_touched_by_its_queue_ttl(harness: LedgerHarness) -> None:
    job_id, token = harness.claimed_job(queue_ttl_s=2)
    until(lambda: harness.now_ms() > harness.record(job_id).created_ms + 2000)
    assert harness.sweep() == NOTHING_SWEPT
    assert harness.succeed(job_id, token)


def test_each_attempt_has_its_own_run_timeout(harness: LedgerHarness) -> None:
    job_id, token = harness.claimed_job(run_timeout_s=50)
    harness.time_is_up(job_id)
    harness.release(job_id, token)
    harness.claim(job_id)
    assert harness.sweep() == NOTHING_SWEPT


def test_a_backlog_that_expires_is_worked_off_up_to_the_cap(harness: LedgerHarness) -> None:
    jobs = [harness.submit() for _ in range(5)]
    for job_id in jobs:
        harness.time_is_up(job_id)
    assert [harness.sweep(cap=2).due for _ in range(4)] == [2, 2, 1, 0]
    assert {harness.record(job_id).status for job_id in jobs} == {JobStatus.EXPIRED}


# --- back-offs ----------------------------------------------------------------------------------------


def test_back_offs_that_passed_are_sent_up_to_the_cap_the_rest_next_time(
    harness: LedgerHarness,
) -> None:
    jobs = []
    for _ in range(3):
        job_id, token = harness.claimed_job()
        harness.release(job_id, token, delay_s=60)
        harness.backoff_passes(job_id)
        jobs.append(job_id)
    assert [harness.sweep(cap=2).sent for _ in range(3)] == [2, 1, 0]
    assert (harness.ready(), harness.tickets()) == (jobs, 3)


def test_a_back_off_without_record_is_dropped(harness: LedgerHarness) -> None:
    job_id, token = harness.claimed_job()
    harness.release(job_id, token, delay_s=60)
    harness.backoff_passes(job_id)
    harness.redis.delete(harness.key("job", job_id))
    harness.sweep()
    assert harness.score(job_id, "waiting") is None
    assert (harness.ready(), harness.tickets()) == ([], 0)


# --- lost tickets -------------------------------------------------------------------------------------


def lose(harness: LedgerHarness, count: int = 1) -> None:
    """Tickets vanish, as with a worker that took them and died before it asked."""
    assert all(harness.pop() for _ in range(count))


def test_a_ticket_lost_from_an_empty_list_is_sent_again_after_the_grace_time(
    harness: LedgerHarness,
) -> None:
    # Given
    job_id = harness.submit()
    lose(harness)
    # When / Then the first look notes that there is a job without a ticket
    assert harness.sweep() == NOTHING_SWEPT
    harness.marks_age(4000)
    assert harness.sweep() == NOTHING_SWEPT
    harness.marks_age(1000)
    assert harness.sweep() == swept(sent_again=1)
    assert harness.indexes(job_id) == {"ready", "deadlines"}
    assert (harness.tickets(), harness.take()) == (1, job_id)


def test_a_lost_ticket_is_found_although_the_count_of_queued_jobs_is_wrong(
    harness: LedgerHarness,
) -> None:
    harness.submit()
    lose(harness)
    harness.redis.hset(harness.key(f"queue:{MODEL}"), "queued", 0)  # it should never be
    for _ in range(500):  # every twelfth look, about once a minute, counts the jobs themselves
        harness.marks_age()
        if harness.sweep().sent_again:
            return
    pytest.fail("the ticket was not sent again")


def test_of_many_tenants_the_models_checked_longest_ago_come_first(harness: LedgerHarness) -> None:
    # Given three models with lost tickets of more tenants each than half a sweep counts
    names = ("a", "b", "c")
    for model in names:
        harness.serve(model)
        for number in range(600):
            harness.submit(model=model, tenant=f"t{number}")
        harness.redis.delete(f"{harness.prefix}.{model}")
    # When sweeps run, then two models are checked at a time, and no model is left out
    checked = [f"queue:{model}" for model in names]
    for wanted in (2, 3):
        harness.sweep(cap=5)
        assert (
            sum(harness.redis.hexists(harness.key(one), "marked_ms") for one in checked) == wanted
        )
    for _ in range(2):
        for one in checked:
            marked = int(harness.redis.hget(harness.key(one), "marked_ms"))
            harness.redis.hset(harness.key(one), "marked_ms", marked - 6000)
        harness.sweep(cap=5)
        harness.sweep(cap=5)
    assert {harness.redis.llen(f"{harness.prefix}.{model}") for model in names} == {10}


def test_a_ticket_lost_out_of_a_backlog_is_sent_again_once(harness: LedgerHarness) -> None:
    jobs = harness.submit_many(5)
    lose(harness)
    assert harness.sweep() == NOTHING_SWEPT
    harness.marks_age()
    assert harness.sweep() == swept(sent_again=1)
    for _ in range(5):
        harness.marks_age()
        assert harness.sweep() == NOTHING_SWEPT
    assert [harness.take() for _ in range(6)] == [*jobs, None]


def test_a_ticket_lost_after_the_note_waits_for_the_next_one(harness: LedgerHarness) -> None:
    harness.submit_many(2)
    lose(harness)
    harness.sweep()
    lose(harness)
    for _ in range(2):
        harness.marks_age()
        assert harness.sweep() == swept(sent_again=1)
    assert harness.tickets() == 2


def test_a_ticket_that_was_just_taken_is_not_lost(harness: LedgerHarness) -> None:
    """Its claim comes within the grace time."""
    harness.submit_many(3)
    harness.pop()
    assert harness.sweep() == NOTHING_SWEPT
    assert harness.try_claim().record is not None
    harness.marks_age()
    assert harness.sweep() == NOTHING_SWEPT


def test_workers_always_seen_with_a_ticket_in_hand_cost_one_each_in_all(
    harness: LedgerHarness,
) -> None:
    """The sweeper cannot tell theirs from lost ones; what it sends too many does not add up."""
    jobs, in_hand = harness.submit_many(60), 3
    lose(harness, in_hand)
    taken = []
    while harness.ready():
        harness.marks_age()
        harness.sweep()
        assert harness.tickets() <= len(harness.ready())
        taken += harness.take_many(in_hand)
        for _ in range(in_hand):
            harness.pop()
    assert taken == jobs
    assert harness.tickets() <= in_hand


def test_a_backlog_without_workers_is_never_sent_again(harness: LedgerHarness) -> None:
    """For hours: a sweep a second, the grace time long over at each."""
    for priority in ("high", "normal", "low"):
        for tenant in (None, "ada", "bob"):
            harness.submit_many(3, priority=priority, tenant=tenant)
    before = harness.messages()
    for _ in range(30):
        harness.marks_age(60_000)
        assert harness.sweep() == NOTHING_SWEPT
    assert harness.messages() == before


def test_a_backlog_whose_tickets_are_all_lost_gets_one_each_and_no_more(
    harness: LedgerHarness,
) -> None:
    jobs = harness.submit_many(20)
    harness.redis.delete(harness.queue)
    sent = 0
    for _ in range(30):
        harness.marks_age(60_000)
        sent += harness.sweep().sent_again
    assert (sent, harness.tickets()) == (20, 20)
    assert [harness.take() for _ in range(20)] == jobs


def test_a_backlog_that_is_worked_off_is_never_sent_again(harness: LedgerHarness) -> None:
    jobs = harness.submit_many(40)
    while harness.take():
        harness.marks_age(60_000)
        assert harness.sweep().sent_again == 0
    assert harness.tickets() == 0
    assert {harness.record(job_id).attempt for job_id in jobs} == {1}


def test_doubled_tickets_double_nothing(harness: LedgerHarness) -> None:
    """Restored by the broker, or sent once more: they find nothing, and nothing is sent for them."""
    jobs = harness.submit_many(10)
    harness.redis.rpush(harness.queue, *harness.redis.lrange(harness.queue, 0, -1))
    assert harness.settle().sent_again == 0
    assert [harness.take() for _ in range(20)] == [*jobs, *[None] * 10]
    assert harness.settle().sent_again == 0
    assert {harness.record(job_id).attempt for job_id in jobs} == {1}


def test_the_ticket_of_a_canceled_job_stands_in_for_a_lost_one(harness: LedgerHarness) -> None:
    canceled, *kept = harness.submit_many(4)
    harness.cancel(canceled)
    lose(harness)
    assert harness.settle().sent_again == 0
    assert [harness.take() for _ in range(3)] == kept


def test_jobs_that_have_no_ticket_yet_miss_none(harness: LedgerHarness) -> None:
    """Those that back off, and those for which a worker makes room."""
    delayed, token = harness.claimed_job()
    harness.release(delayed, token, delay_s=60)
    offered, _ = harness.claimed_job()
    harness.lease_runs_out(offered)
    harness.sweep()
    assert harness.pop()
    assert harness.try_claim().job_id == offered
    for _ in range(3):
        assert harness.settle().sent_again == 0
    assert harness.tickets() == 0


def test_tickets_of_one_model_do_not_hide_those_lost_of_another(harness: LedgerHarness) -> None:
    job_id = harness.submit()
    harness.serve("another")
    harness.submit_many(3, model="another")
    lose(harness)
    assert harness.settle().sent_again == 1
    assert (harness.tickets("another"), harness.take()) == (3, job_id)


def test_a_lost_ticket_of_a_retry_is_sent_again_too(harness: LedgerHarness) -> None:
    job_id, token = harness.claimed_job()
    harness.release(job_id, token)
    lose(harness)
    assert harness.settle().sent_again == 1
    assert harness.take() == job_id


def test_a_ticket_lost_again_and_again_is_sent_again_and_again(harness: LedgerHarness) -> None:
    job_id = harness.submit()
    for _ in range(5):
        lose(harness)
        assert harness.settle().sent_again == 1
    assert harness.record(job_id).attempt == 0


def test_lost_tickets_are_sent_again_up_to_the_cap_and_none_is_forgotten(
    harness: LedgerHarness,
) -> None:
    jobs = harness.submit_many(5)
    lose(harness, 5)
    assert harness.sweep(cap=2) == NOTHING_SWEPT
    sent = []
    for _ in range(4):
        harness.marks_age()
        sent.append(harness.sweep(cap=2).sent_again)
    assert sent == [2, 2, 1, 0]
    assert [harness.take() for _ in range(5)] == jobs


def test_a_restored_ledger_without_any_list_is_brought_back_to_work(harness: LedgerHarness) -> None:
    """Redis came back from a copy in which the lists are older than the records."""
    jobs = [harness.submit(priority=p) for p in ("high", "normal", "low", "normal")]
    jobs.append(harness.submit(tenant="ada"))
    harness.redis.delete(harness.queue)
    assert harness.settle().sent_again == 5
    assert {harness.take() for _ in range(5)} == {*jobs}


# --- answers to Celery callers, and old records -------------------------------------------------------


HEAD = '{"properties":{"delivery_tag":'


def test_a_caller_that_was_not_answered_is_answered_again(harness: LedgerHarness) -> None:
    # Given an answer that was taken from the list 15 s ago and never stored
    job_id = harness.submit(celery_head=HEAD)
    harness.succeed(job_id, harness.claim(job_id))
    assert harness.redis.llen(harness.prefix) == 1
    answers = harness.key("answers")
    # When it is still on the list, or was taken a moment ago, nobody is reminded
    harness.redis.zincrby(answers, -15_000, job_id)
    assert harness.sweep().answered_again == 0
    first = harness.redis.rpop(harness.prefix)
    harness.redis.zadd(answers, {job_id: harness.now_ms() - 14_000})
    assert harness.sweep().answered_again == 0
    # Then
    harness.redis.zincrby(answers, -1001, job_id)
    assert harness.sweep().answered_again == 1
    second = harness.redis.rpop(harness.prefix)
    assert second is not None
    assert second != first
    assert second.startswith(HEAD)
    # And again, until somebody says that it is done
    assert harness.sweep().answered_again == 0
    harness.redis.zincrby(answers, -16_000, job_id)
    assert harness.sweep().answered_again == 1
    harness.redis.delete(harness.prefix)
    harness.ledger.run(calls.answered(job_id))
    assert harness.sweep().answered_again == 0


def test_reminders_are_capped_and_end_with_the_record(harness: LedgerHarness) -> None:
    jobs = [harness.submit(celery_head=HEAD) for _ in range(3)]
    for job_id in jobs:
        harness.cancel(job_id)
        harness.redis.zadd(harness.key("answers"), {job_id: 1})
    harness.redis.delete(harness.prefix, harness.key("job", jobs[0]))
    assert harness.sweep(cap=2).answered_again == 2
    assert harness.redis.zcard(harness.key("answers")) == 2
    assert harness.redis.llen(harness.prefix) == 1


def test_records_past_their_retention_leave_the_listings(harness: LedgerHarness) -> None:
    # Given two records that are gone and one that is not
    gone = [harness.submit() for _ in range(2)]
    kept = harness.submit()
    for job_id in (*gone, kept):
        harness.succeed(job_id, harness.claim(job_id))
    for place, job_id in enumerate((*gone, kept)):
        harness.redis.zadd(harness.key("created"), {job_id: place})
        harness.redis.zadd(harness.key("ended"), {job_id: place})
    harness.redis.delete(*(harness.key("job", job_id) for job_id in gone))
    # When
    harness.sweep()
    # Then
    assert harness.redis.zrange(harness.key("created"), 0, -1) == [kept]
    assert harness.redis.zrange(harness.key("ended"), 0, -1) == [kept]


def test_webhooks_past_their_retention_leave_the_listing(harness: LedgerHarness) -> None:
    # Given two webhooks whose rows are gone and one whose row is not
    for job_id in ("1", "2", "3"):
        harness.submit(job_id, webhook="https://example.com/hook")
        harness.succeed(job_id, harness.claim(job_id))
    *gone, kept = harness.redis.zrange(harness.key("deliveries"), 0, -1)
    harness.redis.delete(*(harness.key("delivery", one) for one in gone))
    # When
    harness.sweep()
    # Then
    assert harness.redis.zrange(harness.key("deliveries"), 0, -1) == [kept]


def test_a_sweep_of_nothing_writes_nothing_but_its_own_time(harness: LedgerHarness) -> None:
    harness.submit()
    harness.claimed_job(tenant="ada")
    harness.sweep()
    before = harness.everything()
    harness.sweep()
    after = harness.everything()
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed <= {harness.key("sweeper")}
