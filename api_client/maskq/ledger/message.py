"""Messages for Celery's workers, written without a Celery producer.

A ticket says 'run the next job of this model'; it names no job. The scripts LPUSH it in the same
transaction that queues a job, so a crash cannot separate the two, and a client needs neither Celery
nor kombu. The messages have the layout that kombu's Redis transport writes: message protocol 2, a
JSON body, `body_encoding: utf-8` instead of base64. tests/integration/ledger/test_message.py compares
them with what Celery's own producer writes.
"""

from __future__ import annotations

import json
from typing import Any

from maskq.ledger import keys

# What Celery's tracer needs of the caller's message to answer it: result, callbacks, chain and chord.
_HEADERS = (
    "id", "root_id", "parent_id", "group", "group_index", "ignore_result",
    "replaced_task_nesting", "stamped_headers", "stamps",
)  # fmt: skip
ORIGIN = "maskq"  # in the messages written here, where Celery has the name of a process
_EMBED = ("callbacks", "errbacks", "chain", "chord")


def celery_head(caller: dict[str, Any], args: list[Any], prefix: str) -> str:
    """The caller's own message as JSON, cut off just before the value of its delivery tag.

    Kept in the record; the finishing transaction appends a fresh tag and sends it, and the task that
    receives it finds the ended record and answers. `caller` is the task's request context.
    """
    headers = {name: caller.get(name) for name in _HEADERS} | {
        "lang": "py",
        "task": keys.TASK_SEGMENT,
        "retries": 0,
        "timelimit": [None, None],
        "argsrepr": "",
        "kwargsrepr": "",
        "origin": ORIGIN,
    }
    message = {
        "body": json.dumps([args, {}, {name: caller.get(name) for name in _EMBED}]),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": headers,
        "properties": {
            "correlation_id": caller.get("correlation_id") or caller["id"],
            "reply_to": caller.get("reply_to") or "",
            "delivery_mode": 2,
            "priority": 0,
            "body_encoding": "utf-8",
            "delivery_info": {"exchange": "", "routing_key": keys.callers_queue().within(prefix)},
            "delivery_tag": "",
        },
    }
    return json.dumps(message, separators=(",", ":")).removesuffix('""}}')
