"""Parses messages from the broker's lists, and builds the messages that Celery gets for them.

Celery never sees a caller's message. The bytes are parsed into the few fields that `maskq.segment`
needs, each of a known type and size. Celery gets a new, decoded message with only these fields: without
`eta` and `expires` (the ledger keeps the time of a deferred job), limits, compression and unknown
headers. A message that cannot be parsed raises Refused.

A ticket only means 'run the next job of this list's model', so its text is not parsed.
"""

from __future__ import annotations

import base64
import itertools
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
)
from pydantic_core import from_json

from maskq.contract.tracing import TRACEPARENT, TRACESTATE, TraceContext
from maskq.ledger import keys
from maskq.ledger.message import ORIGIN
from maskq.validation import without_tracebacks

# Of a caller's message on the list, and of its decoded body. The ledger's answer repeats both with more
# escapes, at worst 3.5 times as long, and must be accepted as well.
MAX_BYTES: Final = 2 * 2**20
MAX_BODY_BYTES: Final = 2**20
MAX_ANSWER_BYTES: Final = 8 * 2**20
# The content type of a decoded body; only messages made here have it.
DECODED: Final = "application/x-maskq-decoded"
# Our header in a message for Celery; celery_callers.py reads it.
MASKQ: Final = "maskq"

_TICKET_MAX_BYTES = 4096
_TICKET_TASK = f'"task":"{keys.TASK_RUN}"'.encode()
_MAX_NESTED_SIGNATURES = 20
_MAX_REASON = 500
_SIGNATURES = frozenset(
    {None, "", "chain", "group", "chord", "chunks", "xmap", "xstarmap", "map", "starmap"}
)

Message = dict[str, Any]


class Refused(Exception):
    """A message is not accepted.

    reason: one sentence.
    answer: a message for Celery that reports this to the caller; None if the caller is unknown.
    """

    def __init__(self, reason: str, answer: Message | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.answer = answer


# --- the shapes ---------------------------------------------------------------------------------------

Name = Annotated[str, Field(min_length=1, max_length=255)]  # an id
Text = Annotated[str, Field(max_length=1024)]
Limit = float | None


def _signature(value: Mapping[str, Any], depth: int = 0) -> None:
    """Raise ValueError unless it is a signature of a task, as Celery writes it to JSON."""
    if depth > _MAX_NESTED_SIGNATURES:
        raise ValueError(f"has signatures nested more than {_MAX_NESTED_SIGNATURES} deep")
    task = value.get("task")
    if not isinstance(task, str) or not task:
        raise ValueError("is not a signature: it names no task")
    for field, kind, name in (
        ("args", list, "a list"), ("kwargs", dict, "an object"), ("options", dict, "an object")
    ):  # fmt: skip
        if not isinstance(value.get(field), kind | None):
            raise ValueError(f"is not a signature: the {field} of {task!r} are not {name}")
    subtask_type = value.get("subtask_type")
    if not isinstance(subtask_type, str | None) or subtask_type not in _SIGNATURES:
        raise ValueError(f"is not a signature: {subtask_type!r} is not a kind of one")
    inner = value.get("kwargs") or {}
    if subtask_type in ("chain", "group"):
        _signatures(inner.get("tasks"), depth)
    elif subtask_type == "chord":
        header = inner.get("header")
        _signatures(header if isinstance(header, list) else [header], depth)
        _signatures([inner.get("body")], depth)


def _signatures(values: object, depth: int) -> None:
    if not isinstance(values, list) or not all(isinstance(one, dict) for one in values):
        raise ValueError("is not a signature: it holds something else than signatures")
    for one in values:
        _signature(one, depth + 1)


def _checked(value: dict[str, Any]) -> dict[str, Any]:
    _signature(value)
    return value


Signature = Annotated[dict[str, Any], AfterValidator(_checked)]


class _Strict(BaseModel):
    """Types are strict: a string is not accepted as a number. Unknown fields are dropped."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")


class _Headers(_Strict):
    task: Literal["maskq.segment"]
    id: Name
    root_id: Text | None = None
    parent_id: Text | None = None
    group: Text | None = None
    group_index: int | None = None
    ignore_result: bool | None = None
    replaced_task_nesting: int | None = None
    stamped_headers: list[Text] | None = None
    stamps: dict[str, Any] | None = None
    origin: Text | None = None
    # A message with an invalid context is accepted: its job then begins a trace.
    traceparent: Any = None
    tracestate: Any = None
    eta: Text | None = None
    expires: Text | None = None
    # Checked but not used: the request and the ledger define time limits and retries.
    retries: int | None = None
    timelimit: tuple[Limit, Limit] | None = None
    compression: None = None

    @field_validator("eta", "expires")
    @classmethod
    def _is_time(cls, value: str | None) -> str | None:
        if value is not None:
            milliseconds(value)
        return value


class _Properties(_Strict):
    delivery_tag: Name
    correlation_id: Text | None = None
    reply_to: Text | None = None
    body_encoding: Literal["base64", "utf-8"] | None = None
    delivery_info: dict[str, Any]
    priority: int | None = None


class _Envelope(_Strict):
    headers: _Headers
    properties: _Properties
    body: Annotated[str, Field(min_length=1)]
    content_type: Literal["application/json"] = Field(alias="content-type")
    content_encoding: Literal["utf-8"] = Field(alias="content-encoding")


class _Embed(_Strict):
    callbacks: list[Signature] | None = None
    errbacks: list[Signature] | None = None
    chain: list[Signature] | None = None
    chord: Signature | None = None


_BODY: TypeAdapter[tuple[list[Any], dict[str, Any], _Embed | None]] = TypeAdapter(
    tuple[list[Any], dict[str, Any], _Embed | None], config=ConfigDict(strict=True)
)


def milliseconds(time: str) -> int:
    """ISO 8601 as milliseconds since the epoch; without an offset it is UTC. Raises ValueError."""
    try:
        moment = datetime.fromisoformat(time)
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        return max(0, round(moment.timestamp() * 1000))
    except (ValueError, OverflowError):
        raise ValueError("is not a time as ISO 8601 writes it") from None


# --- tickets ------------------------------------------------------------------------------------------


_numbers = itertools.count(1)


def is_ticket(raw: bytes) -> bool:
    """Whether a message on a list of tickets is a ticket. Its other content is ignored."""
    return len(raw) < _TICKET_MAX_BYTES and _TICKET_TASK in raw


def ticket_message(model: str) -> Message:
    """The message that Celery gets for a ticket."""
    name = f"ticket:{next(_numbers)}"
    return _message(
        {"task": keys.TASK_RUN, "id": name, "ignore_result": True}, [[model], {}, {}], tag=name
    )


# --- callers' messages --------------------------------------------------------------------------------


def segment_message(raw: bytes) -> Message:
    """The message for Celery, from a caller's message or the ledger's answer to it. Raises Refused."""
    if len(raw) > MAX_ANSWER_BYTES:
        raise Refused(f"it has {len(raw)} bytes; at most {MAX_BYTES}")
    try:
        envelope = _Envelope.model_validate_json(raw)
        args, kwargs, embed = _decoded(envelope, len(raw))
    except ValueError as error:
        reason = _sentence(error) if isinstance(error, ValidationError) else str(error)
        raise Refused(reason, _refusal(raw, reason)) from None
    headers, properties = envelope.headers, envelope.properties
    given = headers.model_dump(
        exclude={"eta", "expires", "retries", "timelimit", "compression", TRACEPARENT, TRACESTATE},
        exclude_none=True,
    )
    given[MASKQ] = {
        name: milliseconds(time)
        for name, time in (("not_before_ms", headers.eta), ("expires_ms", headers.expires))
        if time
    }
    if trace := TraceContext.parse(headers.traceparent, headers.tracestate):
        given[MASKQ] |= trace.headers()
    follows = embed.model_dump() if embed else {}
    return _message(
        given,
        [
            [args, kwargs],
            {},
            follows,
        ],  # two values, so that a caller's keywords cannot be names of ours
        tag=properties.delivery_tag,
        correlation_id=properties.correlation_id or headers.id,
        reply_to=properties.reply_to or "",
    )


def _decoded(envelope: _Envelope, size: int) -> tuple[list[Any], dict[str, Any], _Embed | None]:
    """size: of the whole message, in bytes. Raises ValueError, ValidationError."""
    limited = envelope.headers.origin != ORIGIN
    if limited and size > MAX_BYTES:
        raise ValueError(f"it has {size} bytes; at most {MAX_BYTES}")
    body = envelope.body.encode()
    if envelope.properties.body_encoding == "base64":
        try:
            body = base64.b64decode(body, validate=True)
        except ValueError:
            raise ValueError("body: is not base64, as its body_encoding says") from None
    if limited and len(body) > MAX_BODY_BYTES:
        raise ValueError(f"body: has {len(body)} bytes; at most {MAX_BODY_BYTES}")
    try:
        return _BODY.validate_json(body)
    except ValidationError as error:
        raise ValueError(_sentence(error, of_body=True)) from None


def _refusal(raw: bytes, reason: str) -> Message | None:
    """The message that reports a refusal to the caller; None if the caller is unknown."""
    try:
        message = from_json(raw)
        headers = message["headers"]
        if "task" not in headers:  # message protocol 1 has them in the body
            headers = from_json(base64.b64decode(message["body"], validate=True))
        task, task_id = headers["task"], headers["id"]
    except (ValueError, TypeError, KeyError):
        return None
    if task != keys.TASK_SEGMENT or not isinstance(task_id, str) or not 0 < len(task_id) < 256:
        return None
    given = {"task": task, "id": task_id, MASKQ: {"refused": reason}}
    return _message(given, [[[], {}], {}, {}], tag=task_id, correlation_id=task_id)


def _message(headers: Message, body: list[Any], *, tag: str, **properties: str) -> Message:
    return {
        "body": body,
        "content-type": DECODED,
        "content-encoding": "utf-8",
        # Else Celery would format the arguments for a log that does not show them.
        "headers": {"lang": "py", "argsrepr": "…", "kwargsrepr": "…", **headers},
        "properties": {
            "delivery_tag": tag,
            "delivery_info": {"exchange": "", "routing_key": ""},
            **properties,
        },
    }


_BODY_PARTS = {"0": "args", "1": "kwargs", "2": "embed"}
_HINTS = {
    "headers.compression": "compressed messages are not taken: set task_compression to None",
    "content-type": "only JSON is taken: set task_serializer to 'json'",
    "headers.task": "the task must be maskq.segment, in message protocol 2 (task_protocol=2)",
}


def _sentence(error: ValidationError, *, of_body: bool = False) -> str:
    """The first validation errors, each with its place. The message itself is kept (transport.py)."""
    errors_found = []
    for mistake in without_tracebacks(error.errors(include_url=False, include_input=False))[:3]:
        place = [str(part) for part in mistake["loc"]]
        if of_body:
            place = ["body", *(_BODY_PARTS.get(part, part) for part in place[:1]), *place[1:]]
        name = ".".join(place)
        text = _HINTS.get(name) or mistake["msg"].removeprefix("Value error, ")
        errors_found.append(f"{name}: {text}" if name else text)
    return "; ".join(errors_found)[:_MAX_REASON]
