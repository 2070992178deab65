"""What the scripts write is what the contract says they write: no field more, none of another type."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from support import ledger_harness
from support.ledger_harness import LedgerHarness

from maskq.contract import Event, JobResult, Output
from maskq.contract.asyncapi import document
from maskq.contract.events import BATCH_COMPLETED, EVENT_DATA
from maskq.contract.jobs import ClassStats
from maskq.contract.tracing import TRACE_CONTEXT, TraceContext
from maskq.ledger.calls import BatchMembership

harness = ledger_harness.harness

METADATA = {"order": "7", "1": "ü", "null": "", "quoted": '"\\'}
FULL = JobResult(
    width=4,
    height=3,
    model="demo",
    model_revision="abc",
    backend="onnx",
    outputs={Output.MASK: "s3://out/1/mask.png", Output.STATS: "s3://out/1/stats.json"},
    labels={0: "wall", 12: "person"},
    stats=[ClassStats(id=12, label="person", pixels=7, share=7 / 12)],
    source_etag='"e"',
    notes=["rotated upright"],
    timings_ms={"model": 1.25},
)
TRACE = TraceContext("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", "01", "rojo=1")
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "metadata": {"metadata": METADATA},
    "batch": {"batch": BatchMembership(batch_id="b-1", total=1)},
    "both": {"metadata": METADATA, "batch": BatchMembership(batch_id="b-1", total=1)},
    "traced": {"trace": TRACE, "batch": BatchMembership(batch_id="b-1", total=1)},
}


def checked(body: dict[str, Any]) -> Event:
    """The event of this body, if nothing in it is missing in the contract.

    Models ignore what they do not know, so that a field which comes later breaks no reader: whatever
    they ignored, or took for another type, is not there when they give back what was set.
    """
    event = Event.model_validate(body)
    assert set(body) - {*TRACE_CONTEXT} == set(Event.model_fields) - {"cursor", *TRACE_CONTEXT}
    data = event.batch() if event.type == BATCH_COMPLETED else event.job()
    assert type(data) is EVENT_DATA[event.type]
    assert data.model_dump(mode="json", exclude_unset=True) == body["data"]
    return event


def succeed(harness: LedgerHarness, **options: Any) -> str:
    job_id, token = harness.claimed_job(**options)
    assert harness.succeed(job_id, token)
    return job_id


def succeed_fully(harness: LedgerHarness, **options: Any) -> str:
    job_id, token = harness.claimed_job(**options)
    assert harness.succeed(job_id, token, FULL)
    return job_id


def fail(harness: LedgerHarness, **options: Any) -> str:
    job_id, token = harness.claimed_job(**options)
    assert harness.fail(job_id, token)
    return job_id


def use_up_attempts(harness: LedgerHarness, **options: Any) -> str:
    job_id, token = harness.claimed_job(max_attempts=2, **options)
    harness.release(job_id, token)
    harness.release(job_id, harness.claim(job_id))
    return job_id


def lose_the_worker(harness: LedgerHarness, **options: Any) -> str:
    job_id, _ = harness.claimed_job(max_attempts=1, exclusive=True, **options)
    harness.lease_runs_out(job_id)
    harness.sweep()
    return job_id


def time_out(harness: LedgerHarness, **options: Any) -> str:
    job_id, _ = harness.claimed_job(**options)
    harness.time_is_up(job_id)
    harness.sweep()
    return job_id


def cancel_queued(harness: LedgerHarness, **options: Any) -> str:
    job_id = harness.submit(**options)
    harness.cancel(job_id)
    return job_id


def cancel_running(harness: LedgerHarness, **options: Any) -> str:
    job_id, _ = harness.claimed_job(**options)
    harness.cancel(job_id)
    return job_id


def expire(harness: LedgerHarness, **options: Any) -> str:
    job_id = harness.submit(**options)
    harness.time_is_up(job_id)
    harness.sweep()
    return job_id


def expire_at_a_claim(harness: LedgerHarness, **options: Any) -> str:
    job_id = harness.submit(**options)
    harness.time_is_up(job_id)
    harness.try_claim()
    return job_id


WAYS: dict[Callable[..., str], str] = {
    succeed: "succeeded",
    succeed_fully: "succeeded",
    fail: "failed",
    use_up_attempts: "failed",
    lose_the_worker: "failed",
    time_out: "failed",
    cancel_queued: "canceled",
    cancel_running: "canceled",
    expire: "expired",
    expire_at_a_claim: "expired",
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_every_body_on_the_stream_is_of_its_type(
    harness: LedgerHarness, way: Callable[..., str], options: dict[str, Any]
) -> None:
    job_id = way(harness, **options)
    events = [checked(body) for body in harness.events()]
    traced = TRACE.traceparent if "trace" in options else None
    assert {event.traceparent for event in events} == {traced}
    # And its end says all there is to say
    (end,) = [event.job() for event in events if event.type == f"maskq.job.{WAYS[way]}"]
    record = harness.record(job_id)
    assert (end.job_id, end.status, end.attempt) == (job_id, record.status, record.attempt)
    assert end.batch_id == record.batch_id
    assert end.metadata == record.request.metadata == options.get("metadata", {})
    assert end.result == record.result
    assert (end.result is None) == (end.error is not None) == (WAYS[way] != "succeeded")
    assert end.error == record.error
    # And so does the batch's
    ends = [event.batch() for event in events if event.type == BATCH_COMPLETED]
    assert [batch.batch_id for batch in ends] == (["b-1"] if "batch" in options else [])
    for batch in ends:
        assert (batch.total, getattr(batch, WAYS[way])) == (1, 1)


def test_each_type_of_event_is_written(harness: LedgerHarness) -> None:
    place = BatchMembership(batch_id="b-1", total=len(WAYS))
    for way in WAYS:
        way(harness, batch=place)
    events = [checked(body) for body in harness.events()]
    assert {event.type for event in events} == set(EVENT_DATA)
    batch = events[-1].batch()
    assert (batch.succeeded, batch.failed, batch.canceled, batch.expired) == (2, 4, 2, 2)


def test_a_field_that_the_contract_lacks_does_not_pass(harness: LedgerHarness) -> None:
    """What the checks above rely on."""
    fail(harness)
    queued, _, failed = harness.events()
    failed["data"]["error"]["hint"] = "new"
    for body in (queued | {"tracedepth": "1"}, failed):
        with pytest.raises(AssertionError):
            checked(body)


@pytest.mark.parametrize("kind", EVENT_DATA)
def test_an_example_of_the_document_has_what_the_ledger_writes(
    harness: LedgerHarness, kind: str
) -> None:
    for way in (succeed, fail, cancel_queued, expire):
        way(harness, **{**OPTIONS["both"], "batch": BatchMembership(batch_id="b-1", total=4)})
    written = next(body for body in harness.events() if body["type"] == kind)
    (example,) = document()["components"]["messages"][kind]["examples"]
    shown = example["payload"]
    assert list(shown) == list(written)
    assert list(shown["data"]) == list(written["data"])
    # The ledger's own reasons, word for word
    if kind.endswith((".canceled", ".expired")):
        assert shown["data"]["error"] == written["data"]["error"]
    # And an id is made of the same parts
    assert shown["id"].replace(shown["subject"], written["subject"]) == written["id"]
