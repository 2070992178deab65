"""What goes in and out without the client, as one AsyncAPI document, made of the contract's models.

    python -m maskq.contract.asyncapi > docs/asyncapi.json

It names no host: where Redis is and which key prefix holds is the deployment's affair.
"""

from __future__ import annotations

import json
import sys
from typing import Any, Final

from pydantic import Field
from pydantic.json_schema import models_json_schema

from maskq.contract.events import (
    BATCH_COMPLETED,
    EVENT_DATA,
    BatchEventData,
    Event,
    JobEventData,
    job_event,
)
from maskq.contract.failures import FailureCode, JobFailure
from maskq.contract.jobs import TERMINAL, JobResult, JobStatus, SegmentRequest
from maskq.contract.locations import S3Uri
from maskq.contract.options import Output
from maskq.contract.storage_layout import StorageLayout
from maskq.contract.webhooks.signing import ID, SIGNATURE, TIMESTAMP

# Of what is on the wire, not of the package. Raise the last number for words, the middle one for what
# a reader that ignores what it does not know survives (a new field, event type or failure code), the
# first one for what it does not (a field that is gone, renamed or means something else).
CONTRACT_VERSION: Final = "1.0.1"

CLOUDEVENTS: Final = "application/cloudevents+json"
TASK: Final = "maskq.segment"
MAX_TASK_ID: Final = 255  # characters

Json = dict[str, Any]


class SegmentAnswer(JobResult):
    """What a raw Celery caller's `.get()` returns."""

    job_id: str = Field(description="The job: Celery's task id if that is a UUID in lower case.")


def document() -> Json:
    """The document as plain JSON values; the same in every process."""
    return {
        "asyncapi": "3.0.0",
        "info": _info(),
        "defaultContentType": "application/json",
        "channels": _channels(),
        "operations": _operations(),
        "components": {
            "schemas": _schemas(),
            "messages": {kind: _event_message(kind) for kind in EVENT_DATA} | _celery_messages(),
            "parameters": {"key_prefix": _KEY_PREFIX},
        },
    }


def text() -> str:
    """The document as the file holds it."""
    return json.dumps(document(), indent=2, ensure_ascii=False) + "\n"


_KEY_PREFIX: Final[Json] = {
    "description": "MASKQ_KEY_PREFIX of the deployment: every key and queue of it begins so.",
    "default": "maskq",
}


def _info() -> Json:
    return {
        "title": "maskq",
        "version": CONTRACT_VERSION,
        "description": "A queue of image segmentation jobs. Every state that a job or batch enters is "
        "a CloudEvent: on a Redis stream, and posted to whoever the request names. Events come at "
        "least once, with a stable id. Readers ignore fields and types they do not know.",
        "license": {"name": "Apache-2.0"},
    }


# --- channels and operations --------------------------------------------------------------------------


def _channels() -> Json:
    parameters = {"key_prefix": _ref("parameters", "key_prefix")}
    return {
        "events": {
            "address": "{key_prefix}:events",
            "title": "Events of a deployment",
            "description": "A Redis stream. Each entry has one field, `event`, which holds the "
            "CloudEvent as JSON. Read with XREAD or XREADGROUP; the entry's id is the cursor. "
            "Entries go after MASKQ_EVENT_RETENTION_S, and sooner when there are more than about "
            "100000.",
            "parameters": parameters,
            "messages": _messages(*EVENT_DATA),
        },
        "webhooks": {
            "address": None,
            "title": "Webhooks",
            "description": "Standard Webhooks: a POST to the caller's own URL, `webhook` of the "
            "request or of the batch, or else, for jobs only, to MASKQ_WEBHOOK_URL of whoever "
            "submits; with the event as on the stream, byte for byte. A 2xx answer ends it and so "
            "does 410; after any other, or none, it comes again, a limited number of times, with "
            f"the same {ID}.",
            "messages": _messages(*EVENT_DATA),
        },
        "segment": {
            "address": "{key_prefix}",
            "title": "Raw Celery callers",
            "description": "A queue of Celery (message protocol 2, JSON) on Redis: "
            f'`send_task("{TASK}", args=[request], queue=key_prefix)`, or '
            '`kwargs={"request": request}`. The payload is that one argument. A task id that was '
            "sent before is the same job. `eta` (or `countdown`) is when the job may run, `expires` "
            "until when it may start. Lists of a priority of 1 to 9 are read as well.",
            "parameters": parameters,
            "messages": _messages("SegmentRequest"),
        },
        "segmentAnswers": {
            "address": None,
            "title": "Answers to raw Celery callers",
            "description": "Celery's result backend, on the deployment's Redis: read with "
            "`AsyncResult(task_id).get()`.",
            "messages": _messages("SegmentAnswer", "SegmentRefused"),
        },
    }


def _operations() -> Json:
    return {
        "publishEvent": {
            "action": "send",
            "summary": "Every event, in the transaction that makes it true.",
            **_on("events", *EVENT_DATA),
        },
        "deliverWebhook": {
            "action": "send",
            "summary": "Tells the caller of the events asked for in `webhook_events`.",
            **_on("webhooks", *EVENT_DATA),
            "bindings": {"http": {"method": "POST", "bindingVersion": "0.3.0"}},
        },
        "receiveSegment": {
            "action": "receive",
            "summary": "Takes a job from a program that has Celery and nothing of ours.",
            **_on("segment", "SegmentRequest"),
            "reply": {
                "address": {
                    "location": "$message.header#/id",
                    "description": "The task id names the result.",
                },
                **_on("segmentAnswers", "SegmentAnswer", "SegmentRefused"),
            },
        },
    }


def _on(channel: str, *messages: str) -> Json:
    place = f"#/channels/{channel}"
    return {
        "channel": {"$ref": place},
        "messages": [{"$ref": f"{place}/messages/{name}"} for name in messages],
    }


def _messages(*names: str) -> Json:
    return {name: _ref("messages", name) for name in names}


def _ref(kind: str, name: str) -> Json:
    return {"$ref": f"#/components/{kind}/{name}"}


# --- messages -----------------------------------------------------------------------------------------


def _event_message(kind: str) -> Json:
    data = _ref("schemas", EVENT_DATA[kind].__name__)
    return {
        "name": kind,
        "title": kind.removeprefix("maskq."),
        "summary": _SUMMARIES[kind],
        "contentType": CLOUDEVENTS,
        "payload": {
            "allOf": [_ref("schemas", "Event")],
            "properties": {"type": {"const": kind}, "data": data},
        },
        # In a binding and not in `headers`: the same message on the stream has none.
        "bindings": {
            "http": {"headers": _ref("schemas", "WebhookHeaders"), "bindingVersion": "0.3.0"}
        },
        "examples": [{"name": kind.rpartition(".")[2], "payload": _example(kind)}],
    }


_SUMMARIES: Final = {
    job_event(JobStatus.QUEUED): "A job waits for a worker: for the first time, or once more.",
    job_event(JobStatus.RUNNING): "A worker took a job.",
    job_event(JobStatus.SUCCEEDED): "A job has left its result in the store.",
    job_event(JobStatus.FAILED): "A job has ended without a result; `error` says why.",
    job_event(JobStatus.CANCELED): "The caller took a job back.",
    job_event(JobStatus.EXPIRED): "A job was not started within its queue_ttl_s.",
    BATCH_COMPLETED: "The last job of a batch has ended.",
}


def _celery_messages() -> Json:
    return {
        "SegmentRequest": {
            "name": TASK,
            "summary": "One image to segment.",
            "contentType": "application/json",
            "headers": _ref("schemas", "CeleryHeaders"),
            "correlationId": {"location": "$message.header#/id"},
            "payload": _ref("schemas", "SegmentRequest"),
            "examples": [
                {
                    "name": "mask",
                    "headers": {"task": TASK, "id": _JOB},
                    "payload": _REQUEST.model_dump(mode="json", exclude_unset=True),
                }
            ],
        },
        "SegmentAnswer": {
            "name": "SegmentAnswer",
            "summary": "What `.get()` returns when the job succeeded.",
            "contentType": "application/json",
            "payload": _ref("schemas", "SegmentAnswer"),
            "examples": [{"name": "mask", "payload": _ANSWER.model_dump(mode="json")}],
        },
        "SegmentRefused": {
            "name": "SegmentRefused",
            "summary": "The text of `maskq.errors.SegmentRefused`, which `.get()` raises otherwise.",
            "contentType": "application/json",
            "payload": {"type": "string", "description": "A failure's code, a colon, its message."},
            "examples": [{"name": "failed", "payload": f"{_BROKEN.code}: {_BROKEN.message}"}],
        },
    }


# --- schemas ------------------------------------------------------------------------------------------


def _schemas() -> Json:
    models = (JobEventData, BatchEventData, SegmentRequest, SegmentAnswer)
    # As they are read, not written: a field that has a default may be left out.
    _, found = models_json_schema(
        [(model, "validation") for model in models], ref_template="#/components/schemas/{model}"
    )
    own = {"Event": _envelope(), "WebhookHeaders": _webhook_headers(), "CeleryHeaders": _CELERY}
    schemas = {**found["$defs"], **own}
    return {name: _apart(schemas[name]) for name in sorted(schemas)}


def _apart(node: Any) -> Any:
    """`$ref` on its own: AsyncAPI's readers ignore what stands beside it, a description say."""
    match node:
        case {"$ref": ref, **rest} if rest:
            return {"allOf": [{"$ref": ref}], **_apart(rest)}
        case dict():
            return {name: _apart(value) for name, value in node.items()}
        case list():
            return [_apart(value) for value in node]
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
    return {**schema, "required": list(fields)}


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
    properties = {name: {"type": "string", **rest} for name, rest in headers.items()}
    return {"type": "object", "properties": properties, "required": list(headers)}


_CELERY: Final[Json] = {
    "type": "object",
    "description": "Of Celery's own headers, those that matter here.",
    "properties": {
        "task": {"type": "string", "const": TASK},
        "id": {
            "type": "string",
            "minLength": 1,
            "maxLength": MAX_TASK_ID,
            "description": "Becomes the job's id if it is a UUID in lower case, else its alias.",
        },
    },
    "required": ["task", "id"],
}


# --- examples -----------------------------------------------------------------------------------------
# Made of the models, so that none can say what the contract does not.

_JOB: Final = "019b7c3e-5d2e-7a41-9c0b-3f6a1e8d2b57"
_BATCH: Final = "019b7c3e-5d1f-7e08-8b44-d2c95a7f0e13"
_TIME: Final = "2026-01-02T03:04:05.678Z"
_STORAGE: Final = StorageLayout(S3Uri("maskq", "maskq")).job(_JOB)
_REQUEST: Final = SegmentRequest(
    image_uri="s3://photos/1.jpg", outputs=frozenset({Output.MASK}), metadata={"order": "7"}
)
_RESULT: Final = JobResult(
    width=640,
    height=480,
    model="Intel/dpt-large-ade",
    outputs={Output.MASK: str(_STORAGE.output("Zk3v_0aTq9LxW-2b", Output.MASK))},
    labels={2: "sky", 12: "person"},
    timings_ms={"model": 41.5},
)
_ANSWER: Final = SegmentAnswer(job_id=_JOB, **_RESULT.model_dump())
_BROKEN: Final = JobFailure(
    code=FailureCode.INVALID_IMAGE, message="s3://photos/1.jpg is not an image that can be decoded"
)
_REASONS: Final = {
    JobStatus.FAILED: _BROKEN,
    JobStatus.CANCELED: JobFailure(code=FailureCode.CANCELED, message="canceled by the caller"),
    JobStatus.EXPIRED: JobFailure(
        code=FailureCode.EXPIRED,
        message="it was not running when its queue_ttl_s ended; submit it again",
    ),
}


def _example(kind: str) -> Json:
    """An event as the ledger writes it."""
    data = _example_data(kind)
    subject, state = (_BATCH if kind == BATCH_COMPLETED else _JOB), kind.rpartition(".")[2]
    comes_again = state in {*JobStatus} - TERMINAL
    return {
        "specversion": "1.0",
        "id": f"{subject}:{state}" + (f":{data['attempt']}" if comes_again else ""),
        "source": f"maskq/{_KEY_PREFIX['default']}",
        "type": kind,
        "subject": subject,
        "time": _TIME,
        "timestamp": _TIME,
        "datacontenttype": "application/json",
        "data": data,
    }


def _example_data(kind: str) -> Json:
    data: JobEventData | BatchEventData
    if kind == BATCH_COMPLETED:
        data = BatchEventData(
            batch_id=_BATCH, total=4, succeeded=3, failed=1, canceled=0, expired=0
        )
    else:
        data = _example_job(JobStatus(kind.rpartition(".")[2]))
    return data.model_dump(mode="json", exclude_unset=True)


def _example_job(status: JobStatus) -> JobEventData:
    ran = status in {JobStatus.RUNNING, JobStatus.SUCCEEDED, JobStatus.FAILED}
    known: Json = {"job_id": _JOB, "status": status, "attempt": int(ran)}
    if status in TERMINAL:
        known |= {"batch_id": _BATCH, "metadata": _REQUEST.metadata}
    if status is JobStatus.SUCCEEDED:
        known["result"] = _RESULT
    elif status in TERMINAL:
        known["error"] = _REASONS[status]
    return JobEventData(**known)


if __name__ == "__main__":
    sys.stdout.write(text())  # noqa: TID251 - our own
