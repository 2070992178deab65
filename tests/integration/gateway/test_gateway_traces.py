"""The trace context of a request: every way to submit takes it, and no other tenant sees it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from integration.gateway import test_trigger_objects
from integration.gateway.test_http_api import png
from integration.gateway.test_http_uploads import uploaded
from integration.gateway.test_trigger_objects import Uploads
from integration.worker.test_pipeline import Bench
from support import traced_program
from support.http_api import Api
from support.traced_program import Program

from maskq import Client
from maskq.contract.ids import new_id
from maskq.contract.tracing import TraceContext

program = traced_program.program
uploads = test_trigger_objects.uploads

IMAGE = "s3://photos/a.png"
GIVEN = TraceContext("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", "01", "rojo=1")


def submitted(api: Api, way: str) -> dict[str, Any]:
    """The record of a job that was submitted in this way."""
    headers = GIVEN.headers()
    joining = {"batch_id": new_id(), "total": 1, "image_uris": [IMAGE]}
    match way:
        case "image_uri":
            answer = api.post("/v1/jobs", {"image_uri": IMAGE}, headers=headers)
        case "multipart":
            form = {"image": ("photo.png", png(), "image/png")}
            answer = api.ask("POST", "/v1/jobs", fields=form, headers=headers)
        case "upload":
            upload = uploaded(api)
            answer = api.post("/v1/jobs", {"upload_id": upload["upload_id"]}, headers=headers)
        case "batch":
            answer = api.post("/v1/batches", {"image_uris": [IMAGE]}, headers=headers)
        case "join":
            answer = api.post("/v1/batches", joining, headers=headers)
        case _:
            job = api.post("/v1/jobs", {"image_uri": IMAGE}).json()
            api.post(f"/v1/jobs/{job['id']}/cancel")
            answer = api.post(f"/v1/jobs/{job['id']}/retry", headers=headers)
    assert answer.status == 202, answer.data
    document = answer.json()
    if way == "batch":
        document = {"id": document["job_ids"][0]}
    if way == "join":
        document = {"id": document["outcomes"][0]["job_id"]}
    record: dict[str, Any] = api.get(f"/v1/jobs/{document['id']}").json()
    return record


WAYS = ["image_uri", "multipart", "upload", "batch", "join", "retry"]


@pytest.mark.parametrize("way", WAYS)
def test_a_gateway_that_does_not_trace_passes_the_context_on(api: Api, way: str) -> None:
    record = submitted(api, way)
    assert (record["traceparent"], record["tracestate"]) == (GIVEN.traceparent, GIVEN.tracestate)


@pytest.mark.parametrize("way", WAYS)
def test_a_gateway_that_traces_continues_it(api: Api, program: Program, way: str) -> None:
    record = submitted(api, way)
    span = next(one for one in program.spans() if one.parent)
    assert span.parent is not None
    assert f"{span.parent.span_id:016x}" == GIVEN.span_id
    found = TraceContext.parse(record["traceparent"], record["tracestate"])
    assert found is not None
    assert (found.trace_id, found.tracestate) == (GIVEN.trace_id, "rojo=1")
    assert int(found.span_id, 16) == span.context.span_id


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"traceparent": "00-bogus"},
        {"traceparent": "0" * 8000},
        {"tracestate": "rojo=1"},
        {"baggage": "traceparent=1"},
    ],
)
def test_an_invalid_context_is_ignored(api: Api, headers: dict[str, str]) -> None:
    job = api.post("/v1/jobs", {"image_uri": IMAGE}, headers=headers).json()
    assert "traceparent" not in job
    assert "tracestate" not in job


def test_a_long_state_is_dropped(api: Api) -> None:
    headers = {**GIVEN.headers(), "tracestate": "a=" + "b" * 600}
    job = api.post("/v1/jobs", {"image_uri": IMAGE}, headers=headers).json()
    assert job["traceparent"] == GIVEN.traceparent
    assert "tracestate" not in job


def test_another_tenant_sees_nothing_of_a_trace(acme: Api, other: Api, client: Client) -> None:
    job = acme.post("/v1/jobs", {"image_uri": IMAGE}, headers=GIVEN.headers()).json()
    other.problem(other.get(f"/v1/jobs/{job['id']}"), 404, "not_found")
    # A caller may name any job as the one that its own retries
    joining = {"image_uris": [IMAGE], "retry_of": [job["id"]], "idempotency_keys": ["a"]}
    joined = other.post("/v1/batches", {"batch_id": "run", **joining})
    assert joined.status == 202, joined.data
    own = other.get(f"/v1/jobs/{joined.json()['outcomes'][0]['job_id']}")
    assert own.json()["retry_of"] == job["id"]
    seen = [own.data, joined.data, other.get("/v1/jobs").data]
    assert GIVEN.trace_id not in str(seen)
    raw = client.session.ledger.redis.hgetall(f"{client.key_prefix}:job:{own.json()['id']}")
    assert GIVEN.trace_id not in json.dumps(raw)


def test_a_notification_begins_a_trace(
    client: Client, bench: Bench, uploads: Uploads, program: Program
) -> None:
    (started,) = uploads.triggers(client).start([uploads.put("a.png", "image/png")])
    record = client.get(started.job_id).refresh()  # type: ignore[union-attr]
    found = TraceContext.parse(record.traceparent)
    assert found is not None
    span = program.span()
    assert (span.parent, span.context.trace_id) == (None, int(found.trace_id, 16))
