"""The spans of an attempt are made from the same measurements as its timings."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from support import traced_program
from support.traced_program import Program

from maskq.contract import FailureCode, JobFailure, JobRecord
from maskq.contract.tracing import TraceContext, span_id_of_attempt, trace_id_of_job
from maskq.telemetry import tracing
from maskq.testing import make_record
from maskq_worker.errors import PermanentError
from maskq_worker.telemetry.attempt_trace import UNTRACED, attempt_trace, trace_id_of
from maskq_worker.telemetry.log_fields import job_fields
from maskq_worker.telemetry.stopwatch import Stopwatch

program = traced_program.program

GIVEN = TraceContext("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", "01", "rojo=1")
BROKEN = PermanentError(FailureCode.INVALID_IMAGE, "https://user:word@host/a.png is not an image")


def record(**fields: Any) -> JobRecord:
    started = {"attempt": 1, "owner": "host:7", "traceparent": GIVEN.traceparent}
    return make_record().model_copy(update={**started, **fields})


def below(program: Program, parent: ReadableSpan) -> list[ReadableSpan]:
    kept = program.spans(None)
    return [
        one
        for one in kept
        if one.parent and one.parent.span_id == parent.get_span_context().span_id
    ]


def test_each_stage_is_a_span_with_the_times_of_the_stopwatch(program: Program) -> None:
    trace = attempt_trace(record())
    times = Stopwatch(trace)
    with times:
        for stage in ("fetch", "model", "store"):
            times.begin(stage)
            if stage == "model":
                trace.forward_started(5, 3)
                trace.forward_ended()
    trace.ended()
    attempt = program.span("maskq process")
    stages = below(program, attempt)
    assert [one.name for one in stages] == ["fetch", "model", "store"]
    for one, following in itertools.pairwise(stages):
        assert one.end_time == following.start_time
    for one in stages:
        assert one.start_time is not None
        assert one.end_time is not None
        assert round((one.end_time - one.start_time) / 1e6, 2) == times.milliseconds[one.name]
    waiting, forward = below(program, stages[1])
    assert (waiting.name, forward.name) == ("wait for batch", "forward")
    assert (stages[1].start_time, waiting.end_time) == (waiting.start_time, forward.start_time)
    assert forward.attributes == {"maskq.forward.id": "host:7/5", "maskq.forward.images": 3}


def test_the_stage_that_raised_has_the_error(program: Program) -> None:
    trace = attempt_trace(record())
    times = Stopwatch(trace)
    times.begin("fetch")
    times.begin("decode")
    with pytest.raises(PermanentError), times:
        raise BROKEN
    trace.ended(BROKEN)
    for name in ("decode", "maskq process"):
        span = program.span(name)
        assert span.attributes is not None
        assert span.attributes["error.type"] == "invalid_image"
        assert "is not an image" in str(span.status.description)
        assert "word" not in str(span.status.description)
    assert program.span("fetch").status.is_ok


def test_a_lost_lease_is_an_error(program: Program) -> None:
    attempt_trace(record()).lost()
    attributes = program.span("maskq process").attributes
    assert attributes is not None
    assert attributes["error.type"] == "LeaseLost"


@pytest.mark.parametrize("traceparent", [GIVEN.traceparent, None, "bogus"])
def test_an_attempt_links_to_the_one_before_it(program: Program, traceparent: str | None) -> None:
    lost = JobFailure(code=FailureCode.WORKER_LOST, message="its worker is gone")
    second = record(attempt=2, traceparent=traceparent, error=lost)
    attempt_trace(second).ended()
    (link,) = program.span("maskq process").links
    valid = traceparent == GIVEN.traceparent
    own = GIVEN.trace_id if valid else trace_id_of_job(second.id)
    assert f"{link.context.trace_id:032x}" == own
    assert f"{link.context.span_id:016x}" == span_id_of_attempt(second.id, 1)
    assert link.attributes == {"maskq.attempt": 1, "error.type": "worker_lost"}


@pytest.mark.parametrize(
    ("traceparent", "retried", "linked"),
    [
        (GIVEN.traceparent, TraceContext("a" * 32, "b" * 16), "a" * 32),
        (GIVEN.traceparent, None, None),  # it was not traced, or is another tenant's
        (None, None, trace_id_of_job("job-0")),
    ],
)
def test_a_retry_links_to_the_job_before_it(
    program: Program, traceparent: str | None, retried: TraceContext | None, linked: str | None
) -> None:
    attempt_trace(record(retry_of="job-0", traceparent=traceparent), retried).ended()
    links = program.span("maskq process").links
    assert [f"{one.context.trace_id:032x}" for one in links] == ([linked] if linked else [])


def test_an_unsampled_trace_costs_no_spans(program: Program) -> None:
    unsampled = TraceContext(GIVEN.trace_id, GIVEN.span_id, "00")
    assert attempt_trace(record(traceparent=unsampled.traceparent)) is UNTRACED


class Broken:
    """A tracer whose spans cannot be started after the first ones."""

    def __init__(self, program: Program, works: int) -> None:
        self._tracer, self._left = program.tracer, works

    def start_span(self, *arguments: Any, **named: Any) -> Any:
        self._left -= 1
        if self._left < 0:
            raise OSError("the sampler's service is away")
        return self._tracer.start_span(*arguments, **named)


@pytest.mark.parametrize("works", [0, 1, 3])
def test_a_tracer_that_raises_breaks_no_job(
    program: Program,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    works: int,
) -> None:
    monkeypatch.setattr(tracing, "tracer", lambda: Broken(program, works))
    trace = attempt_trace(record())
    times = Stopwatch(trace)
    with times:
        for stage in ("fetch", "decode", "model"):
            times.begin(stage)
            trace.forward_started(1, 1)
    trace.ended()
    assert times.milliseconds.keys() == {"fetch", "decode", "model"}
    assert "the sampler's service is away" in caplog.text


def test_without_a_tracer_nothing_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "tracer", lambda: None)
    assert attempt_trace(record()) is UNTRACED


def test_the_log_names_the_trace_of_a_traced_job(program: Program) -> None:
    named = job_fields(record(), record().status)
    assert named["trace"] == GIVEN.trace_id
    # This process does not export spans, so there is nothing to find under another id.
    assert job_fields(record(traceparent=None), record().status)["trace"] is None
    tracing.use(program.tracer)
    try:
        untraced = record(traceparent=None)
        assert trace_id_of(untraced) == trace_id_of_job(untraced.id)
    finally:
        tracing.use(None)
