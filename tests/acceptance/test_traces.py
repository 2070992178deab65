"""One job is one trace, from its client to its webhook, as a collector gets it by OTLP."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from acceptance.conftest import LEASE_S
from acceptance.test_bad_input import jpeg
from celery import Celery
from demo_scenes.scenes import draw
from integration.gateway.test_http_api import png
from integration.worker.test_webhook_delivery import Receiver
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Tracer, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from support.otlp import Collected, Collector, Spans
from support.stack_jobs import stopped_mid_run
from support.waiting import until

from maskq import Client, Job, JobFailed
from maskq.contract.ids import new_id
from maskq.contract.tracing import TraceContext, trace_id_of_job
from maskq_standalone.stack import Stack

STAGES = ["fetch", "decode", "prepare", "model", "encode", "store", "commit"]
PARTS = ["wait for batch", "forward"]  # of the stage model
WHOLE = ["maskq submit", "maskq process", *STAGES, *PARTS]
INTERNAL, CLIENT, PRODUCER, CONSUMER = 1, 3, 4, 5


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


@pytest.fixture(scope="module")
def provider(collector: Collector) -> Iterator[TracerProvider]:
    """That of a program that uses the client."""
    made = TracerProvider(
        resource=Resource.create({"service.name": "shop"}), shutdown_on_exit=False
    )
    exporter = OTLPSpanExporter(f"{collector.url}/v1/traces")
    made.add_span_processor(SimpleSpanProcessor(exporter))
    yield made
    made.shutdown()


@pytest.fixture
def shop(provider: TracerProvider, monkeypatch: pytest.MonkeyPatch) -> Tracer:
    """The program's tracer, also the one that the client finds."""
    monkeypatch.setattr("opentelemetry.trace.get_tracer", lambda *_, **__: provider.get_tracer("x"))
    tracer = provider.get_tracer("shop")
    assert isinstance(tracer, Tracer)
    return tracer


@pytest.fixture(scope="module")
def traced_stack(collector: Collector, smallest_model: Path) -> Iterator[Stack]:
    env = {
        "MASKQ_WEBHOOK_ALLOWED_HOSTS": "127.0.0.1",
        "MASKQ_LOG_FORMAT": "json",
        **collector.environment,
    }
    with Stack(
        workers=1, pinned=True, webhooks=True, http_api=True, model=str(smallest_model), env=env
    ) as running:
        yield running


@pytest.fixture
def direct(traced_stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    for name, value in traced_stack.environment.items():
        monkeypatch.setenv(name, value)
    with Client.from_env(transport="direct") as made:
        yield made


@pytest.fixture(params=["direct", "http"])
def client(request: pytest.FixtureRequest, direct: Client) -> Iterator[Client]:
    with Client.from_env(transport=request.param) as made:
        yield made


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


def trace_id(span: trace.Span) -> str:
    return f"{span.get_span_context().trace_id:032x}"


def ids(traceparent: str | None) -> tuple[str, str]:
    found = TraceContext.parse(traceparent)
    assert found is not None
    return found.trace_id, found.span_id


def check_stages(spans: Spans, attempt: Collected) -> None:
    """The stages follow one another within the attempt, and the forward within the model's."""
    stages = spans.below(attempt)
    assert [one.name for one in stages] == STAGES
    assert stages[0].start_ns >= attempt.start_ns
    assert stages[-1].end_ns <= attempt.end_ns
    for one, following in itertools.pairwise(stages):
        assert one.end_ns == following.start_ns
    parts = spans.below(stages.one("model"))
    assert [one.name for one in parts] == PARTS
    assert parts[0].end_ns == parts[1].start_ns
    assert parts.one("forward").attributes["maskq.forward.images"] == 1


def test_one_job_is_one_trace(
    client: Client, collector: Collector, receiver: Receiver, shop: Tracer
) -> None:
    # Given a program that traces what it does
    with shop.start_as_current_span("order") as order:
        # When it has a job done, with a webhook
        job = client.submit(png(), tenant="acme", webhook=receiver.url)
        job.wait(timeout=60)
    until(lambda: receiver.received)
    is_http = "http" in type(client.session).__name__.lower()
    submits = ["maskq submit"] * (2 if is_http else 1)
    names = ["order", *submits, *WHOLE[1:], "maskq webhook delivery"]
    spans = collector.wait_for(trace_id(order), names)

    # Then its trace has all spans, each below the one that caused it
    assert sorted(one.name for one in spans) == sorted(names)
    submit = spans.below(spans.one("order")).one("maskq submit")
    assert (submit.service, submit.kind) == ("shop", PRODUCER)
    if is_http:
        submit = spans.below(submit).one("maskq submit")
        assert submit.service == "maskq-gateway"
    assert submit.attributes["maskq.job.id"] == job.id
    attempt = spans.one("maskq process")
    assert (attempt.parent_id, attempt.service) == (submit.span_id, "maskq-worker")
    assert (attempt.kind, attempt.links, attempt.error) == (CONSUMER, (), None)
    record = job.refresh()
    assert attempt.attributes.items() >= {
        "maskq.job.id": job.id, "maskq.attempt": 1, "maskq.model": record.model, "maskq.tenant": "acme",
        "maskq.worker": record.owner, "messaging.message.id": job.id, "messaging.system": "maskq",
        "maskq.forward.images": 1,
    }.items()  # fmt: skip
    check_stages(spans, attempt)

    # And the receiver of the webhook continues it
    delivery = spans.one("maskq webhook delivery")
    assert (delivery.parent_id, delivery.service) == (submit.span_id, "maskq-webhooks")
    assert (delivery.kind, delivery.attributes["http.response.status_code"]) == (CLIENT, 200)
    ((headers, body),) = receiver.received
    assert ids(headers["traceparent"]) == delivery.ids
    assert json.loads(body)["traceparent"] == record.traceparent
    assert ids(record.traceparent) == submit.ids


def test_the_images_of_a_batch_share_its_trace(
    client: Client, collector: Collector, shop: Tracer
) -> None:
    with shop.start_as_current_span("album") as album:
        batch = client.submit_many([png(), png(), png()])
        assert batch.wait(timeout=60)
    spans = collector.wait(trace_id(album), has_three_attempts_below_others)
    assert {one.attributes["maskq.job.id"] for one in spans.named("maskq process")} == {
        job.id for job in batch.jobs
    }


def has_three_attempts_below_others(spans: Spans) -> bool:
    known, attempts = {one.span_id for one in spans}, spans.named("maskq process")
    return len(attempts) == 3 and all(one.parent_id in known for one in attempts)


def test_an_attempt_that_fails_says_why(client: Client, collector: Collector, shop: Tracer) -> None:
    with shop.start_as_current_span("order") as order:
        job = client.submit("s3://maskq/nowhere.png")
        with pytest.raises(JobFailed):
            job.wait(timeout=60)
    spans = collector.wait_for(trace_id(order), ["order", "maskq process", "fetch"])
    attempt = spans.one("maskq process")
    assert attempt.attributes["error.type"] == "not_found"
    assert "nowhere.png" in str(attempt.error)
    fetch = spans.below(attempt).one("fetch")
    assert (fetch.attributes["error.type"], fetch.error) == ("not_found", attempt.error)


def test_a_retry_links_to_the_job_that_it_retries(
    client: Client, collector: Collector, shop: Tracer
) -> None:
    with shop.start_as_current_span("order") as order:
        job = client.submit("s3://maskq/nowhere.png")
        with pytest.raises(JobFailed):
            job.wait(timeout=60)
    with shop.start_as_current_span("again") as again:
        retried = client.retry(job.id)
        with pytest.raises(JobFailed):
            retried.wait(timeout=60)
    first = ids(job.refresh().traceparent)
    assert first[0] == trace_id(order)
    attempt = collector.wait_for(trace_id(again), ["maskq process"]).one("maskq process")
    assert attempt.links == ((*first, {"maskq.job.retry_of": job.id}),)


def test_what_is_not_sampled_is_not_recorded(
    client: Client, collector: Collector, receiver: Receiver
) -> None:
    """The decision of the caller's trace holds in every process."""
    given = TraceContext("c" * 32, "d" * 16, "00", "rojo=1")
    state = trace.TraceState([("rojo", "1")])
    ids = int(given.trace_id, 16), int(given.span_id, 16)
    parent = trace.NonRecordingSpan(trace.SpanContext(*ids, is_remote=True, trace_state=state))
    with trace.use_span(parent):
        job = client.submit(png(), webhook=receiver.url)
    job.wait(timeout=60)
    until(lambda: receiver.received)
    ((headers, _),) = receiver.received
    passed = TraceContext.of_headers(headers)
    assert passed is not None
    assert (passed.trace_id, passed.flags, passed.tracestate) == (given.trace_id, "00", "rojo=1")
    after = client.submit(png())  # its spans are exported later than those of the first would be
    after.wait(timeout=60)
    submitted = TraceContext.parse(after.refresh().traceparent)
    collector.wait_for(
        submitted.trace_id if submitted else trace_id_of_job(after.id), ["maskq process"]
    )
    assert collector.trace("c" * 32) == []


def test_an_untraced_job_has_a_trace_of_its_own(direct: Client, collector: Collector) -> None:
    job = direct.submit(png())
    job.wait(timeout=60)
    assert job.refresh().traceparent is None
    spans = collector.wait_for(trace_id_of_job(job.id), WHOLE[1:])
    assert spans.one("maskq process").parent_id == ""
    check_stages(spans, spans.one("maskq process"))


def test_a_request_without_a_library_is_traced(
    direct: Client, traced_stack: Stack, collector: Collector
) -> None:
    url, key = (traced_stack.environment[f"MASKQ_{n}"] for n in ("GATEWAY_URL", "API_KEY"))
    given = TraceContext(new_id().replace("-", ""), "b" * 16)
    headers = {"Authorization": f"Bearer {key}", **given.headers(), "baggage": "secret=1"}
    answer = httpx2.post(f"{url}/v1/jobs?wait=30", files={"image": png()}, headers=headers)
    assert answer.json()["status"] == "succeeded", answer.text
    spans = collector.wait_for(given.trace_id, ["maskq submit", "maskq process"])
    assert spans.one("maskq submit").parent_id == given.span_id
    assert "secret" not in json.dumps(direct.get(answer.json()["id"]).refresh().public())
    # An invalid context is ignored
    headers["traceparent"] = "00-bogus"
    answer = httpx2.post(f"{url}/v1/jobs?wait=30", files={"image": png()}, headers=headers)
    assert answer.json()["status"] == "succeeded", answer.text
    assert TraceContext.parse(answer.json()["traceparent"]) is not None


def test_a_celery_message_is_traced(
    direct: Client, traced_stack: Stack, collector: Collector, tmp_path: Path
) -> None:
    """Celery's instrumentation of OpenTelemetry puts the context into the headers of the message."""
    traced_stack.s3.client().put_object(Bucket="maskq", Key="in/celery.png", Body=png())
    given = TraceContext(new_id().replace("-", ""), "b" * 16)
    request = {"image_uri": "s3://maskq/in/celery.png"}
    url = traced_stack.redis.url
    with Celery("shop", broker=url, backend=url) as app:
        for headers in (given.headers(), {"traceparent": "x", "tracestate": ["y"]}):
            sent = app.send_task("maskq.segment", args=[request], queue="maskq", headers=headers)
            assert sent.get(timeout=60)["width"] > 0
    spans = collector.wait_for(given.trace_id, WHOLE)
    submit = spans.one("maskq submit")
    assert (submit.parent_id, submit.service) == (given.span_id, "maskq-worker")
    assert spans.one("maskq process").parent_id == submit.span_id


def test_the_log_names_the_trace(direct: Client, traced_stack: Stack) -> None:
    job = direct.submit(png())
    job.wait(timeout=60)
    (worker,) = traced_stack.workers

    def line() -> dict[str, str]:
        text = worker.child.log.read_text()
        lines = [json.loads(one) for one in text.splitlines() if one.startswith("{")]
        return next((one for one in lines if one.get("job") == job.id), {})

    assert until(line)["trace"] == trace_id_of_job(job.id)


def test_the_command_line_exports_its_submission(
    direct: Client, collector: Collector, tmp_path: Path
) -> None:
    (tmp_path / "photo.png").write_bytes(png())
    maskq = str(Path(sys.executable).with_name("maskq"))
    command = [maskq, "submit", str(tmp_path / "photo.png"), "--json"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    job = direct.get(json.loads(said.stdout)["jobs"][0]["id"])
    own, _ = ids(job.refresh().traceparent)
    spans = collector.wait_for(own, ["maskq submit", "maskq process"])
    # Over HTTP there is a second one, the gateway's.
    assert "maskq" in {one.service for one in spans.named("maskq submit")}


# --- across a killed worker ---------------------------------------------------------------------------


@pytest.mark.parametrize("is_traced", [True, False], ids=["traced client", "untraced client"])
def test_the_attempt_after_a_killed_worker_is_in_the_same_trace(
    smallest_model: Path,
    collector: Collector,
    provider: TracerProvider,
    monkeypatch: pytest.MonkeyPatch,
    is_traced: bool,
) -> None:
    env = {"MASKQ_LEASE_S": str(LEASE_S), **collector.environment}
    with Stack(workers=2, pinned=True, model=str(smallest_model), env=env) as stack:
        for name, value in stack.environment.items():
            monkeypatch.setenv(name, value)
        with Client.from_env() as client:
            # Given a job in the hands of a worker
            image = jpeg(draw(11, size=(640, 480)).image.resize((4800, 3600)))
            orders: list[trace.Span] = []

            def submit() -> Job:
                tracer = provider.get_tracer("shop")
                orders.append(tracer.start_span("order") if is_traced else trace.INVALID_SPAN)
                with trace.use_span(orders[-1]):
                    return client.submit(image)

            job, victim = stopped_mid_run(submit)

            # When that worker is killed
            os.kill(victim, signal.SIGKILL)
            job.wait(timeout=60)
            record = job.refresh()
            assert record.attempt == 2

            # Then the second attempt is in the trace of the first, and linked to it
            own = ids(record.traceparent)[0] if record.traceparent else trace_id_of_job(job.id)
            assert not is_traced or own == trace_id(orders[-1])
            spans = collector.wait_for(own, WHOLE[1:])
            second = spans.one("maskq process")
            assert second.attributes["maskq.attempt"] == 2
            assert second.parent_id == (record.traceparent or "-" * 3).split("-")[2]
            ((linked_trace, linked_span, about),) = second.links
            assert linked_trace == own
            assert about == {"maskq.attempt": 1, "error.type": "worker_lost"}
            # What the first one had sent before its death stands below the span that the link names
            of_first = [one for one in spans if one.parent_id == linked_span]
            assert {one.name for one in of_first} <= set(STAGES)
            check_stages(spans, second)
