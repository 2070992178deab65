"""W3C Trace Context, as it travels with a job: https://www.w3.org/TR/trace-context/

It stands in the record and in each event of the job (the extension attributes `traceparent` and
`tracestate` of CloudEvents), and in the headers of requests and webhooks.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"
TRACE_CONTEXT: Final = (
    TRACEPARENT,
    TRACESTATE,
)  # headers, fields of a record, attributes of an event
MAX_TRACESTATE: Final = 512  # characters; W3C asks for no more to be passed on

_TRACEPARENT: Final = re.compile(
    r"(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})"
    r"(?P<more>-.*)?",
    re.ASCII,
)
_LONGEST_TRACEPARENT: Final = 256  # of a later version of the standard, which may append fields
# A member of a tracestate. For any other OpenTelemetry would log a warning, with the caller's text.
_MEMBER: Final = re.compile(
    r"(?P<key>[a-z][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13})"
    r"=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]",
    re.ASCII,
)
_MOST_MEMBERS: Final = 32


@dataclass(frozen=True, slots=True)
class TraceContext:
    """A place in a trace: what follows a span elsewhere names it as its parent."""

    trace_id: str  # 32 hexadecimal digits
    span_id: str  # 16 hexadecimal digits
    flags: str = "01"  # 2 hexadecimal digits; the lowest bit: the trace is recorded
    tracestate: str = ""

    @classmethod
    def parse(cls, traceparent: object, tracestate: object = "") -> TraceContext | None:
        """The context of two headers; None if `traceparent` is not valid. An invalid tracestate is
        dropped."""
        if not isinstance(traceparent, str) or len(traceparent) > _LONGEST_TRACEPARENT:
            return None
        found = _TRACEPARENT.fullmatch(traceparent.strip())
        if found is None or found["version"] == "ff":
            return None
        if found["version"] == "00" and found["more"]:
            return None
        if not int(found["trace"], 16) or not int(found["span"], 16):
            return None
        return cls(found["trace"], found["span"], found["flags"], _tracestate(tracestate))

    @classmethod
    def of_headers(cls, headers: Mapping[str, str]) -> TraceContext | None:
        """The context in the headers of a message; None if they have no valid one."""
        return cls.parse(headers.get(TRACEPARENT), headers.get(TRACESTATE, ""))

    @property
    def traceparent(self) -> str:
        """In version 00 of the standard."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags}"

    def headers(self) -> dict[str, str]:
        """Headers that pass the context on."""
        passed = {TRACEPARENT: self.traceparent}
        return passed | {TRACESTATE: self.tracestate} if self.tracestate else passed


def _tracestate(value: object) -> str:
    if not isinstance(value, str) or len(value) > MAX_TRACESTATE:
        return ""
    members = [stripped for member in value.split(",") if (stripped := member.strip(" \t"))]
    found = [_MEMBER.fullmatch(member) for member in members]
    keys = {one["key"] for one in found if one}
    return ",".join(members) if len(keys) == len(members) <= _MOST_MEMBERS else ""


# --- ids that follow from a job ----------------------------------------------------------------------
# A worker that was killed has told nobody the id of its span. The next attempt links to it all the
# same, because both derive it from the job.


def trace_id_of_job(subject: str) -> str:
    """The trace of a job or batch whose submission was not traced: the same in each process."""
    return _digest(f"trace:{subject}", 16)


def span_id_of_attempt(job_id: str, attempt: int) -> str:
    """The span of an attempt."""
    return _digest(f"attempt:{job_id}:{attempt}", 8)


def _digest(text: str, size: int) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).digest()[:size].hex()
