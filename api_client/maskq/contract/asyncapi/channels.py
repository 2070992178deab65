"""Channels and operations: where messages go, and who sends them."""

from __future__ import annotations

from typing import Final

from maskq.contract.asyncapi.celery_callers import TASK
from maskq.contract.asyncapi.refs import Json, ref
from maskq.contract.events import EVENT_DATA
from maskq.contract.webhooks.signing import ID

KEY_PREFIX: Final[Json] = {
    "description": "MASKQ_KEY_PREFIX of the deployment: every key and queue begins with it.",
    "default": "maskq",
}


def channels() -> Json:
    parameters = {"key_prefix": ref("parameters", "key_prefix")}
    return {
        "events": {
            "address": "{key_prefix}:events",
            "title": "Events of a deployment",
            "description": "A Redis stream. Each entry has one field, `event`, which holds the "
            "CloudEvent as JSON. Read with XREAD or XREADGROUP; the entry's id is the cursor. "
            "Entries are removed after MASKQ_EVENT_RETENTION_S, or sooner when there are more than "
            "about 100000.",
            "parameters": parameters,
            "messages": _messages(*EVENT_DATA),
        },
        "webhooks": {
            "address": None,
            "title": "Webhooks",
            "description": "Standard Webhooks: a POST to `webhook` of the request or of the batch. "
            "Default for jobs: MASKQ_WEBHOOK_URL of the client that submits. The body is the event "
            "as on the stream, byte for byte. An answer of 2xx or 410 ends the delivery. After any "
            f"other, or none, it is repeated a limited number of times with the same {ID}.",
            "messages": _messages(*EVENT_DATA),
        },
        "segment": {
            "address": "{key_prefix}",
            "title": "Raw Celery callers",
            "description": "A queue of Celery (message protocol 2, JSON) on Redis: "
            f'`send_task("{TASK}", args=[request], queue=key_prefix)`, or '
            '`kwargs={"request": request}`. The payload is that one argument. A task id that was '
            "sent before names the same job. The job starts after `eta` (or `countdown`) and before "
            "`expires`. Lists of the priorities 1 to 9 are read as well.",
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


def operations() -> Json:
    return {
        "publishEvent": {
            "action": "send",
            "summary": "Every event, in the transaction that makes it true.",
            **_on("events", *EVENT_DATA),
        },
        "deliverWebhook": {
            "action": "send",
            "summary": "Posts the events that `webhook_events` of the request names.",
            **_on("webhooks", *EVENT_DATA),
            "bindings": {"http": {"method": "POST", "bindingVersion": "0.3.0"}},
        },
        "receiveSegment": {
            "action": "receive",
            "summary": "Accepts a job from a program that has Celery, but not maskq.",
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
    return {name: ref("messages", name) for name in names}
