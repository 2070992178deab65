"""submit: a job stands with everything that belongs to it, or nothing does."""

from __future__ import annotations

import json

import pytest
from support import ledger_harness
from support.ledger_harness import MODEL, RESULT, LedgerHarness

from maskq.contract import JobStatus, Priority
from maskq.contract.ids import new_id
from maskq.ledger import Ledger, calls
from maskq.ledger.calls import BatchMembership, Idempotency, Limits, SubmitOutcome

harness = ledger_harness.harness

KEY = Idempotency(key="order 7/ü", fingerprint="f1")


def test_an_accepted_job_has_record_place_ticket_and_event(harness: LedgerHarness) -> None:
    # Given
    job_id, before = new_id(), harness.now_ms()
    limits = Limits(max_attempts=5, queue_ttl_s=100, run_timeout_s=50, retention_s=10)
    # When
    submitted = harness.try_submit(job_id, limits=limits, metadata={"k": "ü"})
    # Then
    assert submitted == calls.Submitted(SubmitOutcome.ACCEPTED, job_id)
    record = harness.record(job_id)
    assert record.id == job_id
    assert record.status is JobStatus.QUEUED
    assert (record.model, record.priority) == (MODEL, Priority.NORMAL)
    assert (record.attempt, record.charges, record.max_attempts) == (0, 0, 5)
    assert before <= record.created_ms <= harness.now_ms()
    assert record.request.image_uri == "s3://photos/a.png"
    assert record.request.metadata == {"k": "ü"}
    unset = (record.started_ms, record.ended_ms, record.batch_id, record.result, record.error)
    assert (*unset, record.tenant, record.retry_of) == (None,) * 7
    assert harness.indexes(job_id) == {"ready", "deadlines"}
    assert harness.score(job_id, "deadlines") == record.created_ms + 100_000
    assert harness.score(job_id, "created") == record.created_ms
    assert harness.score(job_id, "ready", MODEL, "normal", "") == record.created_ms
    assert (harness.turns(), harness.queued(), harness.tickets()) == ([""], {"": 1}, 1)
    assert harness.kinds(job_id) == ["maskq.job.queued"]


def test_what_the_request_asks_for_goes_before_the_deployment_s_limits(
    harness: LedgerHarness,
) -> None:
    job_id = harness.submit(
        max_attempts=7, queue_ttl_s=0.5, run_timeout_s=2, priority="high", tenant="ada"
    )
    record = harness.record(job_id)
    assert record.max_attempts == 7
    assert harness.score(job_id, "deadlines") == record.created_ms + 500
    assert harness.raw(job_id)["run_timeout_ms"] == "2000"
    assert (record.priority, record.tenant) == (Priority.HIGH, "ada")
    assert harness.ready("high", "ada") == [job_id]


def test_a_retry_names_the_job_it_repeats(harness: LedgerHarness) -> None:
    first = harness.submit()
    again = harness.submit(retry_of=first)
    assert harness.record(again).retry_of == first


def test_jobs_of_all_priorities_and_tenants_share_one_list_of_tickets(
    harness: LedgerHarness,
) -> None:
    for priority in Priority:
        harness.submit(priority=priority)
        harness.submit(priority=priority, tenant="ada")
    assert harness.tickets() == 6


def test_a_known_id_is_not_submitted_again(harness: LedgerHarness) -> None:
    # Given
    job_id = harness.submit()
    before = harness.everything()
    # When
    again = harness.try_submit(job_id, priority="high")
    # Then
    assert again == calls.Submitted(SubmitOutcome.EXISTS, job_id)
    assert harness.everything() == before


def test_the_same_idempotency_key_and_request_give_the_first_job(harness: LedgerHarness) -> None:
    first = harness.submit(idempotency=KEY)
    before = harness.everything()
    again = harness.try_submit(idempotency=KEY)
    assert again == calls.Submitted(SubmitOutcome.EXISTS, first)
    assert harness.everything() == before
    known = harness.ledger.run(calls.known_under(KEY.key))
    assert known == (first, KEY.fingerprint)


def test_an_idempotency_key_of_another_request_is_a_conflict(harness: LedgerHarness) -> None:
    first = harness.submit(idempotency=KEY)
    before = harness.everything()
    other = Idempotency(key=KEY.key, fingerprint="f2")
    again = harness.try_submit(idempotency=other)
    assert again == calls.Submitted(SubmitOutcome.CONFLICT, first)
    assert harness.everything() == before


def test_a_replay_after_the_job_ended_still_gives_that_job(harness: LedgerHarness) -> None:
    job_id = harness.submit(idempotency=KEY)
    assert harness.succeed(job_id, harness.claim(job_id))
    assert harness.try_submit(idempotency=KEY) == calls.Submitted(SubmitOutcome.EXISTS, job_id)


def test_an_idempotency_key_is_free_again_when_its_record_is_gone(harness: LedgerHarness) -> None:
    # Given a key whose job was deleted, or outlived its retention
    job_id = harness.submit(idempotency=KEY)
    harness.redis.delete(harness.key("job", job_id))
    # When
    again = harness.try_submit(idempotency=Idempotency(key=KEY.key, fingerprint="f2"))
    # Then
    assert again.outcome is SubmitOutcome.ACCEPTED
    assert again.job_id != job_id
    assert harness.ledger.run(calls.known_under(KEY.key)) == (again.job_id, "f2")


def test_an_idempotency_key_lives_as_long_as_its_record_may(harness: LedgerHarness) -> None:
    limits = Limits(queue_ttl_s=100, run_timeout_s=50, retention_s=10)
    harness.submit(idempotency=KEY, limits=limits)
    left = harness.redis.pttl(harness.key("idempotency", KEY.key))
    assert 155_000 < left <= 160_000


def test_an_unknown_idempotency_key_is_known_under_nothing(harness: LedgerHarness) -> None:
    assert harness.ledger.run(calls.known_under("never used")) is None


def test_a_model_nobody_serves_is_refused_with_those_known(harness: LedgerHarness) -> None:
    harness.serve("another")
    before = harness.everything()
    job_id = new_id()
    refused = harness.try_submit(job_id, model="nobody-s")
    assert refused == calls.Submitted(
        SubmitOutcome.UNKNOWN_MODEL, job_id, ("another", MODEL), "nobody-s"
    )
    assert harness.everything() == before


def test_the_only_model_is_the_default(harness: LedgerHarness) -> None:
    assert harness.record(harness.submit()).model == MODEL


def test_with_two_models_the_deployment_s_default_is_taken(harness: LedgerHarness) -> None:
    harness.serve("another")
    job_id = harness.submit(limits=Limits(default_model="another"))
    assert harness.record(job_id).model == "another"
    assert harness.ready(model="another") == [job_id]
    assert (harness.tickets("another"), harness.tickets()) == (1, 0)


def test_with_two_models_and_no_default_the_caller_must_choose(harness: LedgerHarness) -> None:
    harness.serve("another")
    refused = harness.try_submit()
    assert refused.outcome is SubmitOutcome.UNKNOWN_MODEL
    assert refused.known == ("another", MODEL)


def test_a_caller_s_own_model_nobody_serves_is_refused_where_there_is_a_choice(
    harness: LedgerHarness,
) -> None:
    harness.serve("another")
    refused = harness.try_submit(limits=Limits(caller_model="nobody-s"))
    assert (refused.outcome, refused.known) == (SubmitOutcome.UNKNOWN_MODEL, ("another", MODEL))


def test_where_no_model_was_ever_served_nothing_is_known(redis_url: str, key_prefix: str) -> None:
    ledger = Ledger(redis_url, key_prefix)
    try:
        refused = LedgerHarness(ledger, model=None).try_submit()
    finally:
        ledger.close()
    assert (refused.outcome, refused.known) == (SubmitOutcome.UNKNOWN_MODEL, ())


def test_a_batch_counts_its_jobs_as_they_end(harness: LedgerHarness) -> None:
    # Given
    place = BatchMembership(batch_id="b-1", total=3)
    first, second, third = (harness.submit(batch=place) for _ in range(3))
    assert harness.record(first).batch_id == "b-1"
    # When
    harness.cancel(second)
    harness.succeed(first, harness.claim(first))
    # Then
    progress = harness.ledger.run(calls.batch_progress("b-1"))
    assert progress == calls.BatchProgress(
        3, {JobStatus.SUCCEEDED: 1, JobStatus.CANCELED: 1}, (second, first)
    )
    assert harness.kinds("b-1") == []
    # When
    harness.fail(third, harness.claim(third))
    # Then
    progress = harness.ledger.run(calls.batch_progress("b-1", seen=2))
    assert progress is not None
    assert progress.ended == (third,)
    assert harness.kinds("b-1") == ["maskq.batch.completed"]


def test_an_unknown_batch_has_no_progress(harness: LedgerHarness) -> None:
    assert harness.ledger.run(calls.batch_progress("never")) is None


def test_nothing_of_a_batch_stays_in_redis_for_ever(harness: LedgerHarness) -> None:
    # Given a batch whose jobs have all ended
    place = BatchMembership(batch_id="b-1", total=1)
    job_id = harness.submit(batch=place, limits=Limits(retention_s=100))
    harness.succeed(job_id, harness.claim(job_id))
    # Then whatever names it has an end
    names = [name for name in harness.key_names() if "b-1" in name or job_id in name]
    assert len(names) == 3
    assert all(harness.redis.pttl(name) > 0 for name in names)


def test_a_batch_that_is_past_its_retention_is_not_brought_back_by_a_late_job(
    harness: LedgerHarness,
) -> None:
    job_id = harness.submit(batch=BatchMembership(batch_id="b-1", total=1))
    harness.redis.delete(harness.key("batch", "b-1"))
    assert harness.succeed(job_id, harness.claim(job_id))
    assert harness.ledger.run(calls.batch_progress("b-1")) is None


def test_a_model_with_quotes_makes_no_broken_ticket(harness: LedgerHarness) -> None:
    strange = 'a"b\\c/ü:\n'
    harness.serve(strange)
    job_id = harness.submit(model=strange, tenant="ada")
    assert harness.take(model=strange) == job_id


def test_a_job_id_with_quotes_makes_no_broken_event(harness: LedgerHarness) -> None:
    strange = 'a"b\\c/ü\n'
    harness.submit(strange)
    assert harness.messages()
    assert [event["subject"] for event in harness.events()] == [strange]
    assert harness.record(strange).id == strange == harness.take()


@pytest.mark.parametrize("seconds", [1e12, 1e15, 1e18])
def test_durations_beyond_reason_do_not_break_a_job(harness: LedgerHarness, seconds: float) -> None:
    """A script that stops half-way would leave a record that nobody ever runs or removes."""
    limits = Limits(queue_ttl_s=seconds, run_timeout_s=seconds, retention_s=seconds)
    place = BatchMembership(batch_id="b-1", total=1)
    job_id = harness.submit(limits=limits, idempotency=KEY, batch=place)
    assert harness.indexes(job_id) == {"ready", "deadlines"}
    assert harness.succeed(job_id, harness.claim(job_id), RESULT)
    assert harness.record(job_id).status is JobStatus.SUCCEEDED
    assert harness.indexes(job_id) == {"ended"}


def test_a_celery_caller_s_message_is_kept_for_the_answer(harness: LedgerHarness) -> None:
    head = '{"body":"x","properties":{"delivery_tag":'
    job_id = harness.submit("caller-1", celery_head=head)
    assert harness.raw(job_id)["celery_head"] == head
    assert harness.redis.llen(harness.prefix) == 0
    harness.succeed(job_id, harness.claim(job_id))
    tag = json.loads(harness.redis.lindex(harness.prefix, 0))["properties"]["delivery_tag"]
    assert tag.startswith("caller-1:answer:")
    assert harness.score(job_id, "answers") is not None
    harness.ledger.run(calls.answered(job_id))
    assert harness.score(job_id, "answers") is None
