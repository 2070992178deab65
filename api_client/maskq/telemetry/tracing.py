"""Spans of OpenTelemetry, where the program or this process records any.

A program that traces has imported OpenTelemetry, and a process of ours does so in trace_export.py. As
long as nothing has, this module does not either, and there are no spans.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from maskq.contract.tracing import TraceContext
from maskq.errors import MaskqError
from maskq.inert import without_secrets

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, SpanContext, Tracer

logger = logging.getLogger(__name__)

Kind = Literal["PRODUCER", "CONSUMER", "CLIENT", "INTERNAL"]
Value = str | int | float | bool
NAME: Final = "maskq"  # of the instrumentation, and of the messaging system
_API: Final = "opentelemetry.trace"
_LONGEST: Final = 500  # characters of an error

_incoming: ContextVar[TraceContext | None] = ContextVar("maskq_incoming_trace", default=None)


@dataclass(frozen=True, slots=True)
class Ids:
    """Ids for the next span instead of random ones. `trace_id` counts only without a parent."""

    trace_id: int
    span_id: int | None = None


@dataclass(slots=True)
class _Own:
    """The tracer of a process of ours; None: it exports no spans."""

    tracer: Tracer | None = None


_own = _Own()
wanted_ids: ContextVar[Ids | None] = ContextVar("maskq_wanted_ids", default=None)


def use(own: Tracer | None) -> None:
    """Record the spans of this process with this tracer; None: with that of the program."""
    _own.tracer = own


def is_exporting() -> bool:
    """Whether this process exports spans by itself."""
    return _own.tracer is not None


def tracer() -> Tracer | None:
    """The tracer; None if the program does not trace."""
    if _own.tracer is not None:
        return _own.tracer
    api = sys.modules.get(_API)
    found: Tracer | None = api.get_tracer(NAME) if api else None
    return found


def current() -> TraceContext | None:
    """The context of the code that runs: of its span, or of the request that it answers."""
    if api := sys.modules.get(_API):
        context: SpanContext = api.get_current_span().get_span_context()
        if context.is_valid:
            return _carried(context)
    return _incoming.get()


@contextmanager
def answering(context: TraceContext | None) -> Iterator[None]:
    """The code of the block answers a request with this context."""
    token = _incoming.set(context)
    try:
        yield
    finally:
        _incoming.reset(token)


@contextmanager
def submission(parent: TraceContext | None = None, *, jobs: int = 1) -> Iterator[Submission]:
    """The span of a submission. parent: default: `current()`. jobs: how many are submitted.

    The block may be part of a generator: the span is not made the current one.
    """
    parent = parent or current()
    span = _started_submission(parent, jobs)
    if span is None:
        yield Submission(parent, None)
        return
    try:
        yield Submission(context_of(span) or parent, span)
    except Exception as error:
        with errors_logged():
            set_error(span, _code_of(error), str(error))
        raise
    finally:
        with errors_logged():
            span.end()


def _started_submission(parent: TraceContext | None, jobs: int) -> Span | None:
    using = tracer()
    if using is None:
        return None
    attributes: dict[str, Value] = {
        "messaging.system": NAME,
        "messaging.operation.name": "submit",
        "messaging.operation.type": "send",
    }
    if jobs != 1:
        attributes["messaging.batch.message_count"] = jobs
    with errors_logged():
        return start(using, "maskq submit", "PRODUCER", parent=parent, attributes=attributes)
    return None


def _code_of(error: Exception) -> str:
    return error.code.value if isinstance(error, MaskqError) else type(error).__name__


@dataclass(frozen=True, slots=True)
class Submission:
    """What a submission hands on to its jobs."""

    context: TraceContext | None  # for their records
    span: Span | None

    def accepted(self, job_id: str) -> None:
        """Name the job in the span."""
        if self.span:
            self.span.set_attribute("messaging.message.id", job_id)
            self.span.set_attribute("maskq.job.id", job_id)


def start(
    using: Tracer,
    name: str,
    kind: Kind,
    *,
    parent: TraceContext | Context | None = None,
    links: Sequence[tuple[TraceContext, Mapping[str, Value]]] = (),
    attributes: Mapping[str, Value],
    ids: Ids | None = None,
    start_ns: int | None = None,
) -> Span:
    """Start a span. The caller ends it.

    parent: None: it begins a trace. links: other spans, with attributes. start_ns: since the epoch.
    """
    from opentelemetry.context import Context
    from opentelemetry.trace import Link, SpanKind

    token = wanted_ids.set(ids)
    try:
        return using.start_span(
            name,
            context=parent if isinstance(parent, Context) else _parent(parent),
            kind=SpanKind[kind],
            attributes=attributes,
            links=[Link(_remote(context), about) for context, about in links],
            start_time=start_ns,
        )
    finally:
        wanted_ids.reset(token)


@contextmanager
def errors_logged() -> Iterator[None]:
    """Log what is raised in the block, such as by a sampler that somebody installed."""
    try:
        yield
    except Exception:
        logger.exception("a span is missing; the work goes on")


def set_error(span: Span, code: str, text: str) -> None:
    """Mark a span as failed. code: one of docs/reference/errors.md, or the name of an exception."""
    from opentelemetry.trace import Status, StatusCode

    span.set_attribute("error.type", code)
    span.set_status(Status(StatusCode.ERROR, without_secrets(text)[:_LONGEST]))


def context_of(span: Span) -> TraceContext | None:
    """The context to send on, so that later spans have this one as parent; None without a trace."""
    context = span.get_span_context()
    return _carried(context) if context.is_valid else None


def inside(span: Span) -> Context:
    """The parent for spans of this process."""
    from opentelemetry.context import Context
    from opentelemetry.trace import set_span_in_context

    return set_span_in_context(span, Context())


def _carried(context: SpanContext) -> TraceContext:
    state = context.trace_state.to_header()
    return TraceContext(
        f"{context.trace_id:032x}", f"{context.span_id:016x}", f"{context.trace_flags:02x}", state
    )


def _parent(context: TraceContext | None) -> Context:
    from opentelemetry.context import Context
    from opentelemetry.trace import NonRecordingSpan, set_span_in_context

    if context is None:
        return Context()
    return set_span_in_context(NonRecordingSpan(_remote(context)), Context())


def _remote(context: TraceContext) -> SpanContext:
    from opentelemetry.trace import SpanContext, TraceFlags, TraceState

    return SpanContext(
        int(context.trace_id, 16),
        int(context.span_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(int(context.flags, 16)),
        trace_state=TraceState.from_header([context.tracestate]) if context.tracestate else None,
    )
