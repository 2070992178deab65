"""Spans of submissions, and which variables turn the export on."""

from __future__ import annotations

import asyncio
import logging
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from support import traced_program
from support.otlp import Collector
from support.traced_program import Program

from maskq import InvalidRequest, QueueFull
from maskq.contract.tracing import TraceContext
from maskq.telemetry import trace_export, tracing
from maskq.testing import FakeAsyncClient, FakeClient

program = traced_program.program

IMAGE = "s3://photos/a.png"
GIVEN = TraceContext("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", "01", "rojo=1")


@pytest.fixture
def client() -> Iterator[FakeClient]:
    with FakeClient() as made:
        yield made


def context(span: ReadableSpan) -> TraceContext:
    return TraceContext(f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}", "03")


def test_a_submission_is_a_span_below_the_caller_s(program: Program, client: FakeClient) -> None:
    with program.tracer.start_as_current_span("order") as order:
        job = client.submit(IMAGE)
    span = program.span()
    assert span.parent is not None
    assert span.parent.span_id == order.get_span_context().span_id
    assert (span.kind, span.status.is_ok) == (trace.SpanKind.PRODUCER, True)
    assert span.attributes == {
        "messaging.system": "maskq",
        "messaging.operation.name": "submit",
        "messaging.operation.type": "send",
        "messaging.message.id": job.id,
        "maskq.job.id": job.id,
    }
    assert job.refresh().traceparent == context(span).traceparent
    events = list(client.events(since="0", idle=0.1))
    assert {one.traceparent for one in events} == {context(span).traceparent}


def test_an_asynchronous_submission_is_a_span_below_the_caller_s(program: Program) -> None:
    async def order() -> tuple[int, str | None]:
        async with FakeAsyncClient() as client:
            with program.tracer.start_as_current_span("order") as span:
                job = await client.submit(IMAGE)
                await client.submit_many([IMAGE, IMAGE])
            return span.get_span_context().span_id, (await job.refresh()).traceparent

    order_id, traceparent = asyncio.run(order())
    one, many = program.spans()
    assert [span.parent and span.parent.span_id for span in (one, many)] == [order_id] * 2
    assert traceparent == context(one).traceparent


def test_a_submission_without_a_caller_s_span_begins_a_trace(
    program: Program, client: FakeClient
) -> None:
    client.submit(IMAGE)
    assert program.span().parent is None


def test_a_batch_is_one_span(program: Program, client: FakeClient) -> None:
    batch = client.submit_many([IMAGE, IMAGE, IMAGE])
    span = program.span()
    assert span.attributes is not None
    assert span.attributes["messaging.batch.message_count"] == 3
    assert {job.refresh().traceparent for job in batch.jobs} == {context(span).traceparent}


def test_a_refused_submission_says_why(program: Program, client: FakeClient) -> None:
    with pytest.raises(InvalidRequest):
        client.submit("s3://photos")
    span = program.span()
    assert not span.status.is_ok
    assert span.attributes is not None
    assert span.attributes["error.type"] == "invalid_request"


def test_an_error_keeps_secrets(program: Program) -> None:
    with (
        pytest.raises(QueueFull),
        tracing.submission(),
    ):
        raise QueueFull("https://user:word@host/x?X-Amz-Signature=abc " + "x" * 1000)
    text = str(program.span().status.description)
    assert "word" not in text
    assert "abc" not in text
    assert len(text) <= 500


def test_the_context_of_a_request_is_continued(program: Program) -> None:
    with tracing.answering(GIVEN), tracing.submission() as submitting:
        assert submitting.context is not None
    span = program.span()
    assert span.parent is not None
    assert (span.parent.is_remote, f"{span.parent.span_id:016x}") == (True, GIVEN.span_id)
    assert (submitting.context.trace_id, submitting.context.tracestate) == (
        GIVEN.trace_id,
        "rojo=1",
    )
    assert tracing.current() is None


def test_a_span_of_the_program_comes_before_the_context_of_the_request(program: Program) -> None:
    """As under FastAPI's instrumentation, whose span continues that context."""
    with tracing.answering(GIVEN), program.tracer.start_as_current_span("POST") as span:
        current = tracing.current()
    assert current is not None
    assert int(current.span_id, 16) == span.get_span_context().span_id


def test_without_a_provider_the_context_is_passed_on() -> None:
    with tracing.answering(GIVEN), tracing.submission() as submitting:
        assert submitting.context == GIVEN


PROGRAM = """
import sys
{block}
from maskq.testing import FakeAsyncClient, FakeClient
import maskq.telemetry.trace_export, maskq.client.direct.submissions, maskq.client.http.submissions
with FakeClient() as client:
    job = client.submit("s3://photos/a.png")
    job.wait(timeout=10)
    assert client.submit_many(["s3://photos/a.png"] * 2).wait(timeout=10)
    assert job.refresh().traceparent is None
    assert all(event.traceparent is None for event in client.events(since="0", idle=0.1))
with maskq.telemetry.trace_export.exporting("test"):
    pass
loaded = [name for name in sys.modules if name.startswith("opentelemetry") and sys.modules[name]]
assert not loaded, loaded
"""


@pytest.mark.parametrize("block", ["", "sys.modules['opentelemetry'] = None"])
def test_nothing_is_imported_unless_the_program_traces(block: str) -> None:
    """block: as if it were not installed."""
    said = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(block=block)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert said.returncode == 0, said.stderr


# --- which variables turn the export on ---------------------------------------------------------------

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


@pytest.mark.parametrize(
    ("environment", "chosen"),
    [
        ({}, ()),
        ({ENDPOINT: ""}, ()),
        ({ENDPOINT: "http://collector:4318"}, ("otlp",)),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, ("otlp",)),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, ("otlp",)),
        ({"OTEL_TRACES_EXPORTER": " console , otlp"}, ("console", "otlp")),
        ({"OTEL_TRACES_EXPORTER": "none", ENDPOINT: "http://collector:4318"}, ()),
        ({"OTEL_SDK_DISABLED": "TRUE", ENDPOINT: "http://collector:4318"}, ()),
        ({"OTEL_SDK_DISABLED": "false", ENDPOINT: "http://collector:4318"}, ("otlp",)),
    ],
)
def test_variables_choose_exporters(environment: dict[str, str], chosen: tuple[str, ...]) -> None:
    assert trace_export.exporters(environment) == chosen


@pytest.mark.parametrize(
    ("variable", "value", "name"),
    [
        ("OTEL_SDK_DISABLED", "false", "maskq-worker"),
        ("OTEL_SERVICE_NAME", "masks", "masks"),
        ("OTEL_RESOURCE_ATTRIBUTES", "service.name=masks,region=eu", "masks"),
    ],
)
def test_the_name_of_the_service_may_be_replaced(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, name: str
) -> None:
    collector = Collector()
    try:
        monkeypatch.setenv(ENDPOINT, collector.url)
        monkeypatch.setenv(variable, value)
        with trace_export.exporting("maskq-worker"), tracing.submission():
            assert tracing.is_exporting()
        (span,) = collector.spans  # sent before the end
        assert (span.name, span.service) == ("maskq submit", name)
    finally:
        collector.close()
    assert not tracing.is_exporting()


def test_a_sampler_may_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    with trace_export.exporting("maskq-worker"), tracing.submission() as submitting:
        assert submitting.context is not None
        assert int(submitting.context.flags, 16) & 1 == 0


@pytest.mark.parametrize("name", ["carrier_pigeon", "otlp_proto_grpc"])
def test_an_exporter_that_is_not_installed_is_a_warning(
    name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A process works without traces."""
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", name)
    with caplog.at_level(logging.WARNING), trace_export.exporting("maskq-worker"):
        assert not tracing.is_exporting()
    assert name in caplog.text
    assert "OTEL_TRACES_EXPORTER" in caplog.text


def test_without_the_extra_it_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:1")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.resources", None)
    with caplog.at_level(logging.WARNING), trace_export.exporting("maskq-worker"):
        assert not tracing.is_exporting()
    assert "pip install 'maskq[traces]'" in caplog.text


def test_a_collector_that_does_not_answer_does_not_hold_up_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv(ENDPOINT, f"http://127.0.0.1:{silent.getsockname()[1]}")
        with trace_export.exporting("maskq-worker"):
            with tracing.submission():
                pass
            began = time.monotonic()
        assert time.monotonic() - began < 5
