"""The trace context of a submission stands in the record and in each event, and in no other job's."""

from __future__ import annotations

import json

import pytest
from support import ledger_harness
from support.ledger_harness import LedgerHarness

from maskq.contract.tracing import TraceContext
from maskq.ledger import calls
from maskq.ledger.calls import BatchMembership, Limits

harness = ledger_harness.harness

TRACE = TraceContext("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", "01", "rojo=00f067")
OTHER = TraceContext("a" * 32, "b" * 16, "00")
HOOK = "https://receiver.example/hook"


def attributes(harness: LedgerHarness) -> list[tuple[str, object, object]]:
    """Type and trace context of each event."""
    return [
        (event["type"], event.get("traceparent"), event.get("tracestate"))
        for event in harness.events()
    ]


def test_record_and_events_have_the_context_of_the_submission(harness: LedgerHarness) -> None:
    job_id = harness.submit(trace=TRACE)
    token = harness.claim(job_id)
    harness.succeed(job_id, token)
    record = harness.record(job_id)
    assert (record.traceparent, record.tracestate) == (TRACE.traceparent, TRACE.tracestate)
    assert record.public()["traceparent"] == TRACE.traceparent
    assert attributes(harness) == [
        (f"maskq.job.{state}", TRACE.traceparent, TRACE.tracestate)
        for state in ("queued", "running", "succeeded")
    ]


def test_a_later_attempt_and_an_end_without_a_worker_keep_it(harness: LedgerHarness) -> None:
    job_id = harness.submit(trace=OTHER)
    token = harness.claim(job_id)
    harness.release(job_id, token)
    harness.cancel(job_id)
    assert {one[1:] for one in attributes(harness)} == {(OTHER.traceparent, None)}
    assert [one[0] for one in attributes(harness)][-2:] == [
        "maskq.job.queued",
        "maskq.job.canceled",
    ]


def test_without_a_context_there_is_none(harness: LedgerHarness) -> None:
    job_id = harness.submit()
    harness.claim(job_id)
    assert {one[1:] for one in attributes(harness)} == {(None, None)}
    assert "traceparent" not in harness.raw(job_id)
    assert "traceparent" not in harness.record(job_id).public()


def test_a_webhook_has_it(harness: LedgerHarness) -> None:
    job_id = harness.submit(trace=TRACE, webhook=HOOK)
    harness.cancel(job_id)
    (due,) = harness.ledger.run(calls.due_deliveries(cap=9, hold_s=1.0))
    assert json.loads(due.body)["traceparent"] == TRACE.traceparent


def test_the_event_of_a_batch_has_that_of_its_first_job(harness: LedgerHarness) -> None:
    batch = BatchMembership(batch_id="batch-1", total=2)
    first = harness.submit(trace=TRACE, batch=batch)
    second = harness.submit(trace=OTHER, batch=batch)
    for job_id in (second, first):
        harness.cancel(job_id)
    assert attributes(harness)[-1] == (
        "maskq.batch.completed",
        TRACE.traceparent,
        TRACE.tracestate,
    )


@pytest.mark.parametrize(("tenant", "sees"), [("acme", True), ("other", False), (None, False)])
def test_a_retry_links_only_to_a_job_of_its_tenant(
    harness: LedgerHarness, tenant: str | None, sees: bool
) -> None:
    first = harness.submit(trace=TRACE, tenant="acme")
    harness.cancel(first)
    again = harness.submit(retry_of=first, tenant=tenant)
    claimed = harness.try_claim(job_id=again)
    assert (claimed.retried is not None) is sees
    if claimed.retried:
        assert claimed.retried.traceparent == TRACE.traceparent
    assert TRACE.trace_id not in json.dumps(harness.record(again).public())


def test_a_submission_sent_twice_keeps_the_first_context(harness: LedgerHarness) -> None:
    request = ledger_harness.asked()
    for trace in (TRACE, OTHER):
        harness.ledger.run(calls.submit("job-1", request, Limits(), trace=trace))
    assert harness.record("job-1").traceparent == TRACE.traceparent


def test_a_record_with_an_odd_context_runs(harness: LedgerHarness) -> None:
    job_id = harness.submit(retry_of="job-9")
    harness.redis.hset(
        harness.key("job", job_id), mapping={"traceparent": "x", "retried_traceparent": "y"}
    )
    claimed = harness.try_claim(job_id=job_id)
    assert claimed.record is not None
    assert claimed.retried is None
