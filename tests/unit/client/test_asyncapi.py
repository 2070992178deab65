"""The AsyncAPI document: made of the contract, whole, and the file is what the contract says now."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter

from maskq.contract import Event, JobFailure, JobStatus, SegmentRequest, asyncapi
from maskq.contract.asyncapi import SegmentAnswer, document
from maskq.contract.events import BATCH_COMPLETED, EVENT_DATA, BatchEventData, JobEventData
from maskq.contract.ids import is_own_id
from maskq.contract.tracing import TRACE_CONTEXT
from maskq.contract.webhooks import WebhookEvent
from maskq.ledger import keys
from maskq_worker.broker import envelope

FILE = Path(__file__).parents[3] / "docs" / "asyncapi.json"
COMMAND = ".venv/bin/python -m maskq.contract.asyncapi > docs/asyncapi.json"
STALE = f"docs/asyncapi.json is not what the contract says now; write it anew: {COMMAND}"
JOB = {"job_id": "1", "status": "queued", "attempt": 0}
BATCH = {"batch_id": "b", "total": 4, "succeeded": 1, "failed": 1, "canceled": 1, "expired": 1}


def nodes(node: Any) -> Iterator[dict[str, Any]]:
    """Every object in the document."""
    if isinstance(node, dict):
        yield node
    for part in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from nodes(part)


def target(ref: str) -> Any:
    place: Any = document()
    for part in ref.removeprefix("#/").split("/"):
        place = place[part]
    return place


def examples(message: str) -> list[dict[str, Any]]:
    found = document()["components"]["messages"][message]["examples"]
    assert found
    return found


def an_event(kind: str, data: dict[str, Any]) -> Event:
    return Event(
        id="i", source="maskq/t", type=kind, subject="s", time="2026-01-02T03:04:05Z", data=data
    )


def test_the_file_is_what_the_contract_says() -> None:
    assert FILE.read_bytes() == asyncapi.text().encode(), STALE
    assert json.loads(FILE.read_text()) == document(), STALE


@pytest.mark.parametrize("seed", ["1", "2"])
def test_the_command_prints_the_file_whatever_order_sets_have(seed: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-m", "maskq.contract.asyncapi"],
        env={**os.environ, "PYTHONHASHSEED": seed},
        capture_output=True,
        check=True,
    )
    assert ran.stdout == FILE.read_bytes(), STALE


def test_every_type_of_event_is_known() -> None:
    assert set(EVENT_DATA) == {f"maskq.job.{status}" for status in JobStatus} | {BATCH_COMPLETED}
    assert {f"maskq.{name}" for name in WebhookEvent} == set(EVENT_DATA) - {BATCH_COMPLETED}


@pytest.mark.parametrize("kind", EVENT_DATA)
def test_every_type_of_event_is_a_message_on_both_channels(kind: str) -> None:
    channels, message = document()["channels"], document()["components"]["messages"][kind]
    for channel in ("events", "webhooks"):
        assert channels[channel]["messages"][kind] == {"$ref": f"#/components/messages/{kind}"}
    fields = message["payload"]["properties"]
    assert fields["type"] == {"const": kind}
    assert fields["data"] == {"$ref": f"#/components/schemas/{EVENT_DATA[kind].__name__}"}


def test_operations_send_and_receive_all_that_their_channels_hold() -> None:
    operations = document()["operations"]
    actions = {name: operation["action"] for name, operation in operations.items()}
    assert actions == {
        "publishEvent": "send",
        "deliverWebhook": "send",
        "receiveSegment": "receive",
    }
    for part in (*operations.values(), operations["receiveSegment"]["reply"]):
        channel = target(part["channel"]["$ref"])
        named = [message["$ref"].rpartition("/")[2] for message in part["messages"]]
        assert named == list(channel["messages"])


def test_every_reference_leads_somewhere_and_stands_alone() -> None:
    found = [node for node in nodes(document()) if "$ref" in node]
    assert len(found) > 50
    for node in found:
        assert list(node) == ["$ref"], "what stands beside a $ref is ignored"
        assert target(node["$ref"])


def test_every_component_is_referred_to() -> None:
    found = {node["$ref"] for node in nodes(document()) if "$ref" in node}
    for kind, components in document()["components"].items():
        assert {f"#/components/{kind}/{name}" for name in components} <= found


def test_no_host_is_named() -> None:
    assert "servers" not in document()
    assert not [word for word in ("localhost", "redis://", "127.0.0.1") if word in asyncapi.text()]


@pytest.mark.parametrize("kind", EVENT_DATA)
def test_an_example_of_an_event_is_one(kind: str) -> None:
    for example in examples(kind):
        event = Event.model_validate(example["payload"])
        assert event.type == kind
        assert set(example["payload"]) == set(Event.model_fields) - {"cursor", *TRACE_CONTEXT}
        data = event.batch() if kind == BATCH_COMPLETED else event.job()
        assert data.model_dump(mode="json", exclude_unset=True) == event.data
        if isinstance(data, JobEventData):
            assert (data.job_id, f"maskq.job.{data.status}") == (event.subject, kind)
        else:
            assert data.total == data.succeeded + data.failed + data.canceled + data.expired


def test_the_examples_of_a_celery_caller_are_taken_and_given() -> None:
    for example in examples("SegmentRequest"):
        SegmentRequest.model_validate(example["payload"])
        assert is_own_id(example["headers"]["id"])
    for example in examples("SegmentAnswer"):
        answer = SegmentAnswer.model_validate(example["payload"])
        assert answer.model_dump(mode="json") == example["payload"]
    for example in examples("SegmentRefused"):
        code, _, message = example["payload"].partition(": ")
        assert JobFailure(code=code, message=message)


def test_the_names_are_those_that_ledger_and_worker_use() -> None:
    channels = document()["channels"]
    assert channels["events"]["address"] == keys.events().within("{key_prefix}")
    assert channels["segment"]["address"] == keys.callers_queue().within("{key_prefix}")
    assert keys.TASK_SEGMENT == asyncapi.TASK
    longest = TypeAdapter(envelope.Name).json_schema()["maxLength"]
    assert longest == asyncapi.MAX_TASK_ID


@pytest.mark.parametrize("model", [JobEventData, BatchEventData])
def test_every_field_of_the_data_is_described(model: type[BaseModel]) -> None:
    schema = document()["components"]["schemas"][model.__name__]
    assert set(schema["properties"]) == set(model.model_fields)
    for name, field in schema["properties"].items():
        assert field.get("description"), name


def test_the_envelope_is_required_whole_and_described() -> None:
    schema = document()["components"]["schemas"]["Event"]
    assert set(schema["properties"]) == set(Event.model_fields) - {"cursor"}
    assert set(schema["required"]) == set(schema["properties"]) - {*TRACE_CONTEXT}
    assert all(field["description"] for field in schema["properties"].values())


def test_an_event_gives_its_data_typed() -> None:
    job = an_event("maskq.job.queued", {**JOB, "new": 1}).job()
    assert job == JobEventData(job_id="1", status=JobStatus.QUEUED, attempt=0)
    assert an_event(BATCH_COMPLETED, BATCH).batch() == BatchEventData.model_validate(BATCH)


@pytest.mark.parametrize("kind", [BATCH_COMPLETED, "maskq.job.paused", "other"])
def test_no_job_is_read_out_of_another_event(kind: str) -> None:
    with pytest.raises(ValueError, match=f"'{kind}' is not an event of a job; check `type`"):
        an_event(kind, JOB).job()


@pytest.mark.parametrize("kind", ["maskq.job.queued", "maskq.batch.started", "other"])
def test_no_batch_is_read_out_of_another_event(kind: str) -> None:
    with pytest.raises(ValueError, match=f"'{kind}' is not an event of a batch; check `type`"):
        an_event(kind, BATCH).batch()
