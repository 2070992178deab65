"""submit: a job stands with everything that belongs to it, or nothing does."""

from __future__ import annotations

import json

import pytest

from maskq.contract import JobStatus, Priority
from maskq.contract.ids import new_id
from maskq.ledger import Ledger, calls
from maskq.ledger.calls import BatchMembership, Idempotency, Limits, SubmitOutcome

from . import ledger_desk
from .ledger_desk import MODEL, RESULT, Desk

desk = ledger_desk.desk

KEY = Idempotency(key="order 7/ü", fingerprint="f1")


def test_an_accepted_job_has_record_place_ticket_and_event(desk: Desk) -> None:
    # Given
    job_id, before = new_id(), desk.now_ms()
    limits = Limits(max_attempts=5, queue_ttl_s=100, run_timeout_s=50, retention_s=10)
    # When
    submitted = desk.try_submit(job_id, limits=limits, metadata={"k": "ü"})
    # Then
    assert submitted == calls.Submitted(SubmitOutcome.ACCEPTED, job_id)
    record = desk.record(job_id)
    assert record.id == job_id
    assert record.status is JobStatus.QUEUED
    assert (record.model, record.priority) == (MODEL, Priority.NORMAL)
    assert (record.attempt, record.charges, record.max_attempts) == (0, 0, 5)
    assert before <= record.created_ms <= desk.now_ms()
    assert record.request.image_uri == "s3://photos/a.png"
    assert record.request.metadata == {"k": "ü"}
    unset = (record.started_ms, record.ended_ms, record.batch_id, record.result, record.error)
    assert (*unset, record.tenant, record.retry_of) == (None,) * 7
    assert desk.places(job_id) == {"ready", "deadlines"}
    assert desk.score(job_id, "deadlines") == record.created_ms + 100_000
    assert desk.score(job_id, "created") == record.created_ms
    assert desk.score(job_id, "ready", MODEL, "normal", "") == record.created_ms
    assert (desk.turns(), desk.queued(), desk.tickets()) == ([""], {"": 1}, 1)
    assert desk.kinds(job_id) == ["maskq.job.queued"]


def test_what_the_request_asks_for_goes_before_the_deployment_s_limits(desk: Desk) -> None:
    job_id = desk.submit(
        max_attempts=7, queue_ttl_s=0.5, run_timeout_s=2, priority="high", tenant="ada"
    )
    record = desk.record(job_id)
    assert record.max_attempts == 7
    assert desk.score(job_id, "deadlines") == record.created_ms + 500
    assert desk.raw(job_id)["run_timeout_ms"] == "2000"
    assert (record.priority, record.tenant) == (Priority.HIGH, "ada")
    assert desk.ready("high", "ada") == [job_id]


def test_a_retry_names_the_job_it_repeats(desk: Desk) -> None:
    first = desk.submit()
    again = desk.submit(retry_of=first)
    assert desk.record(again).retry_of == first


def test_jobs_of_all_priorities_and_tenants_share_one_list_of_tickets(desk: Desk) -> None:
    for priority in Priority:
        desk.submit(priority=priority)
        desk.submit(priority=priority, tenant="ada")
    assert desk.tickets() == 6


def test_a_known_id_is_not_submitted_again(desk: Desk) -> None:
    # Given
    job_id = desk.submit()
    before = desk.everything()
    # When
    again = desk.try_submit(job_id, priority="high")
    # Then
    assert again == calls.Submitted(SubmitOutcome.EXISTS, job_id)
    assert desk.everything() == before


def test_the_same_idempotency_key_and_request_give_the_first_job(desk: Desk) -> None:
    first = desk.submit(idempotency=KEY)
    before = desk.everything()
    again = desk.try_submit(idempotency=KEY)
    assert again == calls.Submitted(SubmitOutcome.EXISTS, first)
    assert desk.everything() == before
    known = desk.ledger.run(calls.known_under(desk.prefix, KEY.key))
    assert known == (first, KEY.fingerprint)


def test_an_idempotency_key_of_another_request_is_a_conflict(desk: Desk) -> None:
    first = desk.submit(idempotency=KEY)
    before = desk.everything()
    other = Idempotency(key=KEY.key, fingerprint="f2")
    again = desk.try_submit(idempotency=other)
    assert again == calls.Submitted(SubmitOutcome.CONFLICT, first)
    assert desk.everything() == before


def test_a_replay_after_the_job_ended_still_gives_that_job(desk: Desk) -> None:
    job_id = desk.submit(idempotency=KEY)
    assert desk.succeed(job_id, desk.claim(job_id))
    assert desk.try_submit(idempotency=KEY) == calls.Submitted(SubmitOutcome.EXISTS, job_id)


def test_an_idempotency_key_is_free_again_when_its_record_is_gone(desk: Desk) -> None:
    # Given a key whose job was deleted, or outlived its retention
    job_id = desk.submit(idempotency=KEY)
    desk.redis.delete(desk.key("job", job_id))
    # When
    again = desk.try_submit(idempotency=Idempotency(key=KEY.key, fingerprint="f2"))
    # Then
    assert again.outcome is SubmitOutcome.ACCEPTED
    assert again.job_id != job_id
    assert desk.ledger.run(calls.known_under(desk.prefix, KEY.key)) == (again.job_id, "f2")


def test_an_idempotency_key_lives_as_long_as_its_record_may(desk: Desk) -> None:
    limits = Limits(queue_ttl_s=100, run_timeout_s=50, retention_s=10)
    desk.submit(idempotency=KEY, limits=limits)
    left = desk.redis.pttl(desk.key("idempotency", KEY.key))
    assert 155_000 < left <= 160_000


def test_an_unknown_idempotency_key_is_known_under_nothing(desk: Desk) -> None:
    assert desk.ledger.run(calls.known_under(desk.prefix, "never used")) is None


def test_a_model_nobody_serves_is_refused_with_those_known(desk: Desk) -> None:
    desk.serve("another")
    before = desk.everything()
    job_id = new_id()
    refused = desk.try_submit(job_id, model="nobody-s")
    assert refused == calls.Submitted(
        SubmitOutcome.UNKNOWN_MODEL, job_id, ("another", MODEL), "nobody-s"
    )
    assert desk.everything() == before


def test_the_only_model_is_the_default(desk: Desk) -> None:
    assert desk.record(desk.submit()).model == MODEL


def test_with_two_models_the_deployment_s_default_is_taken(desk: Desk) -> None:
    desk.serve("another")
    job_id = desk.submit(limits=Limits(default_model="another"))
    assert desk.record(job_id).model == "another"
    assert desk.ready(model="another") == [job_id]
    assert (desk.tickets("another"), desk.tickets()) == (1, 0)


def test_with_two_models_and_no_default_the_caller_must_choose(desk: Desk) -> None:
    desk.serve("another")
    refused = desk.try_submit()
    assert refused.outcome is SubmitOutcome.UNKNOWN_MODEL
    assert refused.known == ("another", MODEL)


def test_a_caller_s_own_model_nobody_serves_is_refused_where_there_is_a_choice(desk: Desk) -> None:
    desk.serve("another")
    refused = desk.try_submit(limits=Limits(caller_model="nobody-s"))
    assert (refused.outcome, refused.known) == (SubmitOutcome.UNKNOWN_MODEL, ("another", MODEL))


def test_where_no_model_was_ever_served_nothing_is_known(redis_url: str, key_prefix: str) -> None:
    ledger = Ledger(redis_url)
    try:
        refused = Desk(ledger, key_prefix, model=None).try_submit()
    finally:
        ledger.close()
    assert (refused.outcome, refused.known) == (SubmitOutcome.UNKNOWN_MODEL, ())


def test_a_batch_counts_its_jobs_as_they_end(desk: Desk) -> None:
    # Given
    place = BatchMembership(batch_id="b-1", total=3)
    first, second, third = (desk.submit(batch=place) for _ in range(3))
    assert desk.record(first).batch_id == "b-1"
    # When
    desk.cancel(second)
    desk.succeed(first, desk.claim(first))
    # Then
    progress = desk.ledger.run(calls.batch_progress(desk.prefix, "b-1"))
    assert progress == calls.BatchProgress(
        3, {JobStatus.SUCCEEDED: 1, JobStatus.CANCELED: 1}, (second, first)
    )
    assert desk.kinds("b-1") == []
    # When
    desk.fail(third, desk.claim(third))
    # Then
    progress = desk.ledger.run(calls.batch_progress(desk.prefix, "b-1", seen=2))
    assert progress is not None
    assert progress.ended == (third,)
    assert desk.kinds("b-1") == ["maskq.batch.completed"]


def test_an_unknown_batch_has_no_progress(desk: Desk) -> None:
    assert desk.ledger.run(calls.batch_progress(desk.prefix, "never")) is None


def test_nothing_of_a_batch_stays_in_redis_for_ever(desk: Desk) -> None:
    # Given a batch whose jobs have all ended
    place = BatchMembership(batch_id="b-1", total=1)
    job_id = desk.submit(batch=place, limits=Limits(retention_s=100))
    desk.succeed(job_id, desk.claim(job_id))
    # Then whatever names it has an end
    names = [name for name in desk.key_names() if "b-1" in name or job_id in name]
    assert len(names) == 3
    assert all(desk.redis.pttl(name) > 0 for name in names)


def test_a_batch_that_is_past_its_retention_is_not_brought_back_by_a_late_job(desk: Desk) -> None:
    job_id = desk.submit(batch=BatchMembership(batch_id="b-1", total=1))
    desk.redis.delete(desk.key("batch", "b-1"))
    assert desk.succeed(job_id, desk.claim(job_id))
    assert desk.ledger.run(calls.batch_progress(desk.prefix, "b-1")) is None


def test_a_model_with_quotes_makes_no_broken_ticket(desk: Desk) -> None:
    strange = 'a"b\\c/ü:\n'
    desk.serve(strange)
    job_id = desk.submit(model=strange, tenant="ada")
    assert desk.take(model=strange) == job_id


def test_a_job_id_with_quotes_makes_no_broken_event(desk: Desk) -> None:
    strange = 'a"b\\c/ü\n'
    desk.submit(strange)
    assert desk.messages()
    assert [event["subject"] for event in desk.events()] == [strange]
    assert desk.record(strange).id == strange == desk.take()


@pytest.mark.parametrize("seconds", [1e12, 1e15, 1e18])
def test_durations_beyond_reason_do_not_break_a_job(desk: Desk, seconds: float) -> None:
    """A script that stops half-way would leave a record that nobody ever runs or removes."""
    limits = Limits(queue_ttl_s=seconds, run_timeout_s=seconds, retention_s=seconds)
    place = BatchMembership(batch_id="b-1", total=1)
    job_id = desk.submit(limits=limits, idempotency=KEY, batch=place)
    assert desk.places(job_id) == {"ready", "deadlines"}
    assert desk.succeed(job_id, desk.claim(job_id), RESULT)
    assert desk.record(job_id).status is JobStatus.SUCCEEDED
    assert desk.places(job_id) == {"ended"}


def test_a_celery_caller_s_message_is_kept_for_the_answer(desk: Desk) -> None:
    head = '{"body":"x","properties":{"delivery_tag":'
    job_id = desk.submit("caller-1", celery_head=head)
    assert desk.raw(job_id)["celery_head"] == head
    assert desk.redis.llen(desk.prefix) == 0
    desk.succeed(job_id, desk.claim(job_id))
    tag = json.loads(desk.redis.lindex(desk.prefix, 0))["properties"]["delivery_tag"]
    assert tag.startswith("caller-1:answer:")
    assert desk.score(job_id, "answers") is not None
    desk.ledger.run(calls.answered(desk.prefix, job_id))
    assert desk.score(job_id, "answers") is None
