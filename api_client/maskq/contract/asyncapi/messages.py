"""Messages: a CloudEvent of each type, and those between Celery callers and workers."""

from __future__ import annotations

from typing import Final

from maskq.contract.asyncapi import examples
from maskq.contract.asyncapi.celery_callers import TASK
from maskq.contract.asyncapi.refs import Json, ref
from maskq.contract.events import BATCH_COMPLETED, EVENT_DATA, job_event
from maskq.contract.failures import JobFailure
from maskq.contract.statuses import STATES

_CLOUDEVENTS: Final = "application/cloudevents+json"


def messages() -> Json:
    """Every message by its name."""
    return {kind: _event_message(kind) for kind in EVENT_DATA} | _celery_messages()


def _event_message(kind: str) -> Json:
    data = ref("schemas", EVENT_DATA[kind].__name__)
    return {
        "name": kind,
        "title": kind.removeprefix("maskq."),
        "summary": _SUMMARIES[kind],
        "contentType": _CLOUDEVENTS,
        "payload": {
            "allOf": [ref("schemas", "Event")],
            "properties": {"type": {"const": kind}, "data": data},
        },
        # In a binding and not in `headers`: the same message on the stream has none.
        "bindings": {
            "http": {"headers": ref("schemas", "WebhookHeaders"), "bindingVersion": "0.3.0"}
        },
        "examples": [{"name": kind.rpartition(".")[2], "payload": examples.event(kind)}],
    }


_SUMMARIES: Final = {
    **{job_event(status): state.event for status, state in STATES.items()},
    BATCH_COMPLETED: "The last job of a batch has ended.",
}


def _celery_messages() -> Json:
    return {
        "SegmentRequest": {
            "name": TASK,
            "summary": "One image to segment.",
            "contentType": "application/json",
            "headers": ref("schemas", "CeleryHeaders"),
            "correlationId": {"location": "$message.header#/id"},
            "payload": ref("schemas", "SegmentRequest"),
            "examples": [
                {
                    "name": "mask",
                    "headers": {"task": TASK, "id": examples.JOB},
                    "payload": examples.REQUEST.model_dump(mode="json", exclude_unset=True),
                }
            ],
        },
        "SegmentAnswer": {
            "name": "SegmentAnswer",
            "summary": "What `.get()` returns when the job succeeded.",
            "contentType": "application/json",
            "payload": ref("schemas", "SegmentAnswer"),
            "examples": [{"name": "mask", "payload": examples.ANSWER.model_dump(mode="json")}],
        },
        "SegmentRefused": {
            "name": "SegmentRefused",
            "summary": "The text of `maskq.errors.SegmentRefused`, which `.get()` raises otherwise.",
            "contentType": "application/json",
            "payload": {"type": "string", "description": "A failure's code, a colon, its message."},
            "examples": [
                {
                    "name": "failed",
                    "payload": f"{examples.FAILURE.code}: {examples.FAILURE.message}",
                }
            ],
        },
    }


def _refused(failure: JobFailure) -> str:
    return f"{failure.code}: {failure.message}"
