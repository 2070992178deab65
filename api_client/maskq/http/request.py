"""Requests and answers, as values. They do no I/O, and never hold the API key."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

ANSWER_S: Final = 30.0  # for the gateway to answer a request that does not wait


@dataclass(frozen=True, slots=True)
class Form:
    """A multipart body: one image, and fields that may be repeated."""

    image: bytes = field(repr=False)
    content_type: str
    fields: Mapping[str, str] = field(repr=False)  # presigned URLs are secrets
    file_name: str = (
        ""  # as the caller gave it; sent as the field `filename`, which may hold any text
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request to the gateway, or to the URL of a store that the gateway named.

    `timeout_s`: seconds for the whole answer. A request may be sent again after a lost answer, so one
    that creates something carries an idempotency key.
    """

    method: str
    path: str  # percent-encoded, from /v1 on; or the URL of a store, which never gets the API key
    query: Sequence[tuple[str, str]] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    document: Any = field(default=None, repr=False)  # sent as JSON
    form: Form | None = None
    content: bytes | None = field(default=None, repr=False)  # sent as it is
    timeout_s: float = ANSWER_S

    @property
    def is_elsewhere(self) -> bool:
        """Whether it goes to a store instead of the gateway."""
        return not self.path.startswith("/")


@dataclass(frozen=True, slots=True)
class Answer:
    """The gateway's answer, whatever its status."""

    status: int
    headers: Mapping[str, str]  # lower-case names
    body: bytes = field(repr=False)
    tries: int = 1  # how often the request was sent

    @property
    def content_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    def json(self) -> Any:
        """The document in the body; None if it is not JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenStream:
    """Open an event stream. The answer is a stream for `ReadStream`, or an Answer that is an error.

    `silence_s`: seconds without a byte after which a read ends the stream.
    """

    path: str
    query: Sequence[tuple[str, str]]
    headers: Mapping[str, str]
    silence_s: float


@dataclass(frozen=True, slots=True)
class ReadStream:
    """The next server-sent events: a list of Message; None once the stream has ended."""

    stream: Any = field(repr=False)


@dataclass(frozen=True, slots=True)
class CloseStream:
    """Close a stream."""

    stream: Any = field(repr=False)


@dataclass(frozen=True, slots=True)
class Message:
    """A server-sent event; `event` is '' for one that only holds a cursor."""

    id: str
    event: str
    data: str
