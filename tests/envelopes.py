"""Messages as they lie on a broker's list: as Celery's producer writes one, and malformed ones."""

from __future__ import annotations

import base64
import copy
import json
import uuid
import zlib
from collections.abc import Callable
from typing import Any

REQUEST = {"image_uri": "s3://photos/a.png"}


def envelope(
    request: Any = REQUEST, *, task_id: str | None = None, embed: Any = None, **headers: Any
) -> dict[str, Any]:
    """`app.send_task("maskq.segment", args=[request], queue="maskq")`, as kombu puts it on Redis."""
    task_id = task_id or str(uuid.uuid4())
    nothing = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    return {
        "body": encoded([[request], {}, nothing | (embed or {})]),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {
            "lang": "py",
            "task": "maskq.segment",
            "id": task_id,
            "shadow": None,
            "eta": None,
            "expires": None,
            "group": None,
            "group_index": None,
            "retries": 0,
            "timelimit": [None, None],
            "root_id": task_id,
            "parent_id": None,
            "argsrepr": "[...]",
            "kwargsrepr": "{}",
            "origin": "gen1@host",
            "ignore_result": False,
            "replaced_task_nesting": 0,
            "stamped_headers": None,
            "stamps": {},
            **headers,
        },
        "properties": {
            "correlation_id": task_id,
            "reply_to": str(uuid.uuid4()),
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": "maskq"},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": str(uuid.uuid4()),
        },
    }


def encoded(body: Any) -> str:
    """A body as kombu writes it: JSON in base64."""
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return base64.b64encode(text).decode()


def _with(*path: str, value: Any) -> bytes:
    message = envelope()
    inner: Any = message
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    return json.dumps(message).encode()


def _without(*path: str) -> bytes:
    message = envelope()
    inner: Any = message
    for name in path[:-1]:
        inner = inner[name]
    del inner[path[-1]]
    return json.dumps(message).encode()


def _embed(**embed: Any) -> bytes:
    return json.dumps(envelope(embed=embed)).encode()


def _body(body: Any) -> bytes:
    return json.dumps(envelope() | {"body": body}).encode()


def _compressed() -> bytes:
    """70 kB on the wire, 50 MB once it is unpacked."""
    message = envelope(compression="application/x-gzip")
    return json.dumps(message | {"body": encoded(zlib.compress(bytes(50_000_000)))}).encode()


def _protocol_1() -> bytes:
    message = envelope()
    body = {"task": "maskq.segment", "id": str(uuid.uuid4()), "args": [REQUEST], "kwargs": {}}
    return json.dumps(message | {"headers": {}, "body": encoded(body)}).encode()


MALFORMED: dict[str, bytes] = {
    "not JSON": b"not json",
    "not UTF-8": b"\xff\xfe{}",
    "empty": b"",
    "empty object": b"{}",
    "cut off": json.dumps(envelope()).encode()[:-20],
    "list": b"[1, 2]",
    "text": b'"text"',
    "number": b"17",
    "null": b"null",
    "a number of 5000 digits": b'{"body": ' + b"1" * 5000 + b"}",
    "nested 100,000 deep": b"[" * 100_000,
    "nested and closed": b"[" * 100_000 + b"]" * 100_000,
    "body nested 100,000 deep": _body(encoded(b"[" * 100_000 + b"]" * 100_000)),
    "three megabytes": _with("headers", "argsrepr", value="x" * 3_000_000),
    "tag a dict": _with("properties", "delivery_tag", value={}),
    "tag null": _with("properties", "delivery_tag", value=None),
    "no tag": _without("properties", "delivery_tag"),
    "no properties": _without("properties"),
    "properties a list": _with("properties", value=[]),
    "delivery_info a text": _with("properties", "delivery_info", value="x"),
    "correlation_id a number": _with("properties", "correlation_id", value=5),
    "body_encoding unknown": _with("properties", "body_encoding", value="hex"),
    "body_encoding a number": _with("properties", "body_encoding", value=5),
    "no headers": _without("headers"),
    "headers null": _with("headers", value=None),
    "headers a list": _with("headers", value=["task"]),
    "no task": _without("headers", "task"),
    "another task": _with("headers", "task", value="shop.count"),
    "task a list": _with("headers", "task", value=["maskq.segment"]),
    "a ticket on the callers' queue": _with("headers", "task", value="maskq.run"),
    "no id": _without("headers", "id"),
    "id null": _with("headers", "id", value=None),
    "id empty": _with("headers", "id", value=""),
    "id a number": _with("headers", "id", value=5),
    "id a dict": _with("headers", "id", value={"a": 1}),
    "id of 10,000 characters": _with("headers", "id", value="x" * 10_000),
    "timelimit a text": _with("headers", "timelimit", value="x"),
    "timelimit of three": _with("headers", "timelimit", value=[1, 2, 3]),
    "retries a text": _with("headers", "retries", value="many"),
    "eta a text": _with("headers", "eta", value="tomorrow"),
    "eta a dict": _with("headers", "eta", value={}),
    "eta beyond time": _with("headers", "eta", value="9999-12-31T23:59:59.999999-23:59"),
    "expires a list": _with("headers", "expires", value=[1]),
    "group a list": _with("headers", "group", value=["g"]),
    "group_index a text": _with("headers", "group_index", value="first"),
    "stamps a list": _with("headers", "stamps", value=["a"]),
    "stamped_headers a number": _with("headers", "stamped_headers", value=7),
    "compressed": _compressed(),
    "compression unknown": _with("headers", "compression", value="lzma?"),
    "content-type pickle": _with("content-type", value="application/x-python-serialize"),
    "content-type a number": _with("content-type", value=1),
    "content-encoding unknown": _with("content-encoding", value="ebcdic"),
    "no body": _without("body"),
    "body null": _body(None),
    "body a number": _body(5),
    "body a list": _body([1]),
    "body empty": _body(""),
    "body not base64": _body("abc"),
    "body not JSON": _body(encoded(b"abc")),
    "body not UTF-8": _body(encoded(b"\xff\xff\xff")),
    "body an object": _body(encoded({"args": []})),
    "body of two": _body(encoded([[], {}])),
    "args a text": _body(encoded(["x", {}, {}])),
    "kwargs a list": _body(encoded([[], [], {}])),
    "embed a text": _body(encoded([[REQUEST], {}, "x"])),
    "callbacks a text": _embed(callbacks="x"),
    "callbacks of a number": _embed(callbacks=[5]),
    "errbacks a number": _embed(errbacks=5),
    "errbacks of null": _embed(errbacks=[None]),
    "an errback without a task": _embed(errbacks=[{"args": []}]),
    "chain of a number": _embed(chain=[5]),
    "a signature whose args are a text": _embed(chain=[{"task": "a", "args": "x"}]),
    "a signature whose options are a list": _embed(callbacks=[{"task": "a", "options": []}]),
    "a signature of an unknown kind": _embed(callbacks=[{"task": "a", "subtask_type": "spiral"}]),
    "a group of numbers": _embed(
        callbacks=[{"task": "celery.group", "subtask_type": "group", "kwargs": {"tasks": [5]}}]
    ),
    "chord a text": _embed(chord="x"),
    "protocol 1": _protocol_1(),
}


def changed(message: dict[str, Any], change: Callable[[dict[str, Any]], None]) -> bytes:
    """A message with one thing about it changed, as it lies on the list."""
    other = copy.deepcopy(message)
    change(other)
    return json.dumps(other).encode()
