"""Schemas, made from the contract's models."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import models_json_schema

from maskq.contract.asyncapi.celery_callers import HEADERS, SegmentAnswer
from maskq.contract.asyncapi.refs import Json
from maskq.contract.events import BatchEventData, Event, JobEventData
from maskq.contract.jobs import SegmentRequest
from maskq.contract.tracing import TRACE_CONTEXT
from maskq.contract.webhooks.signing import ID, SIGNATURE, TIMESTAMP


def schemas() -> Json:
    models = (JobEventData, BatchEventData, SegmentRequest, SegmentAnswer)
    # As they are read, not written: a field that has a default may be left out.
    _, found = models_json_schema(
        [(model, "validation") for model in models], ref_template="#/components/schemas/{model}"
    )
    own = {"Event": _envelope(), "WebhookHeaders": _webhook_headers(), "CeleryHeaders": HEADERS}
    every = {**found["$defs"], **own}
    return {name: _separate_refs(every[name]) for name in sorted(every)}


def _separate_refs(node: Any) -> Any:
    """Move each `$ref` into an `allOf`: AsyncAPI readers ignore what stands beside a `$ref`."""
    match node:
        case {"$ref": ref, **rest} if rest:
            return {"allOf": [{"$ref": ref}], **_separate_refs(rest)}
        case dict():
            return {name: _separate_refs(value) for name, value in node.items()}
        case list():
            return [_separate_refs(value) for value in node]
        case _:
            return node


def _envelope() -> Json:
    """`Event` as the ledger writes it: whole, while a reader of ours takes less."""
    # As written: without the cursor, which is a reader's.
    schema = Event.model_json_schema(mode="serialization")
    fields = schema["properties"]
    for name in ("specversion", "datacontenttype"):
        fields[name]["const"] = fields[name].pop("default")
    timestamp = Event.model_fields["timestamp"].description
    fields["timestamp"] = {**fields["time"], "title": "Timestamp", "description": timestamp}
    fields |= {
        name: {"type": "string", "description": Event.model_fields[name].description}
        for name in TRACE_CONTEXT
    }
    return {**schema, "required": [name for name in fields if name not in TRACE_CONTEXT]}


def _webhook_headers() -> Json:
    signature = "v1,[A-Za-z0-9+/]+={0,2}"
    headers = {
        ID: {"description": "The event's id: the same for every attempt."},
        TIMESTAMP: {
            "description": "Of this attempt, in seconds since the epoch.",
            "pattern": "^[0-9]+$",
        },
        SIGNATURE: {
            "description": f"HMAC-SHA256 of `{{{ID}}}.{{{TIMESTAMP}}}.{{body}}`, base64; one for each "
            "secret of the deployment, separated by spaces.",
            "pattern": f"^{signature}( {signature})*$",
        },
    }
    traced = {
        name: {"description": "W3C Trace Context, if the job is traced."} for name in TRACE_CONTEXT
    }
    properties = {name: {"type": "string", **rest} for name, rest in (headers | traced).items()}
    return {"type": "object", "properties": properties, "required": list(headers)}
