"""The spans of one attempt at a job: `maskq process`, and one for each stage."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from maskq.contract import JobRecord
from maskq.contract.tracing import TraceContext, span_id_of_attempt, trace_id_of_job
from maskq.telemetry import tracing
from maskq_worker.errors import JobError
from maskq_worker.telemetry.stopwatch import StageListener

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer

MODEL_STAGE: Final = "model"  # its two parts have spans of their own
LEASE_LOST: Final = "LeaseLost"  # as the exception that ends its stage

_Links = list[tuple[TraceContext, Mapping[str, tracing.Value]]]


class AttemptTrace(StageListener):
    """Records nothing: what an attempt has where nothing is traced."""

    def ended(self, error: JobError | None = None) -> None:
        """The attempt ended; error: why, unless it succeeded."""

    def lost(self) -> None:
        """The attempt ended because its job is no longer this worker's."""


UNTRACED: Final = AttemptTrace()


def attempt_trace(record: JobRecord, retried: TraceContext | None = None) -> AttemptTrace:
    """The trace of the attempt that begins now. Raises nothing: no job fails for its trace.

    retried: the context of the job that this one retries, if that was traced.
    """
    using = tracing.tracer()
    if using is not None:
        with tracing.errors_logged():
            span = _started(using, record, retried)
            if span.is_recording():
                return _Recorded(using, span, record)
    return UNTRACED


def _started(using: Tracer, record: JobRecord, retried: TraceContext | None) -> Span:
    parent = TraceContext.parse(record.traceparent, record.tracestate)
    # The trace of a job that was submitted without one follows from its id, as in the next attempt.
    trace_id = parent.trace_id if parent else trace_id_of_job(record.id)
    ids = tracing.Ids(int(trace_id, 16), int(span_id_of_attempt(record.id, record.attempt), 16))
    return tracing.start(
        using,
        "maskq process",
        "CONSUMER",
        parent=parent,
        links=_links(record, trace_id, retried),
        attributes=_attributes(record),
        ids=ids,
    )


def trace_id_of(record: JobRecord) -> str | None:
    """The trace of a job; None if there is none."""
    if parent := TraceContext.parse(record.traceparent):
        return parent.trace_id
    return trace_id_of_job(record.id) if tracing.is_exporting() else None


def _links(record: JobRecord, trace_id: str, retried: TraceContext | None) -> _Links:
    """To the attempt before this one, or to the job that this one retries."""
    if record.attempt > 1:
        before = record.attempt - 1
        about: dict[str, tracing.Value] = {"maskq.attempt": before}
        if record.error:
            about["error.type"] = record.error.code.value
        return [(TraceContext(trace_id, span_id_of_attempt(record.id, before)), about)]
    if record.retry_of is None:
        return []
    if retried is None and record.traceparent is None:  # nor was that one traced, perhaps
        first = span_id_of_attempt(record.retry_of, 1)
        retried = TraceContext(trace_id_of_job(record.retry_of), first)
    return [(retried, {"maskq.job.retry_of": record.retry_of})] if retried else []


def _attributes(record: JobRecord) -> dict[str, tracing.Value]:
    named: dict[str, tracing.Value | None] = {
        "messaging.system": tracing.NAME,
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.message.id": record.id,
        "maskq.job.id": record.id,
        "maskq.attempt": record.attempt,
        "maskq.model": record.model,
        "maskq.priority": record.priority.value,
        "maskq.tenant": record.tenant,
        "maskq.batch_id": record.batch_id,
        "maskq.worker": record.owner,
        "maskq.job.retry_of": record.retry_of,
    }
    return {name: value for name, value in named.items() if value is not None}


@dataclass(slots=True)
class _Forward:
    """The forward that an image took part in. Its start is told by the model's thread."""

    batch: int
    images: int
    began_ns: int
    ended_ns: int = 0


class _Recorded(AttemptTrace):
    """Spans of stages are made when the stage has ended, from the times of the stopwatch."""

    def __init__(self, using: Tracer, span: Span, record: JobRecord) -> None:
        self._tracer = using
        self._span = span
        self._inside = tracing.inside(span)
        self._worker = record.owner or ""
        self._forward: _Forward | None = None

    def forward_started(self, batch: int, images: int) -> None:
        self._forward = _Forward(batch, images, time.time_ns())

    def forward_ended(self) -> None:
        if self._forward:
            self._forward.ended_ns = time.time_ns()

    def stage_ended(
        self, stage: str, began_ns: int, ended_ns: int, error: BaseException | None
    ) -> None:
        with tracing.errors_logged():
            stage_span = self._child(stage, self._inside, began_ns, ended_ns, error=error)
            if stage == MODEL_STAGE and self._forward:
                self._forward.ended_ns = self._forward.ended_ns or ended_ns
                self._parts_of_model(tracing.inside(stage_span), began_ns, self._forward, error)

    def _parts_of_model(
        self, parent: Context, began_ns: int, forward: _Forward, error: BaseException | None
    ) -> None:
        about: dict[str, tracing.Value] = {
            "maskq.forward.id": f"{self._worker}/{forward.batch}",
            "maskq.forward.images": forward.images,
        }
        self._span.set_attributes(about)
        self._child("wait for batch", parent, began_ns, forward.began_ns)
        self._child("forward", parent, forward.began_ns, forward.ended_ns, about, error)

    def _child(
        self,
        name: str,
        parent: Context,
        began_ns: int,
        ended_ns: int,
        attributes: Mapping[str, tracing.Value] | None = None,
        error: BaseException | None = None,
    ) -> Span:
        span = tracing.start(
            self._tracer,
            name,
            "INTERNAL",
            parent=parent,
            attributes=attributes or {},
            start_ns=began_ns,
        )
        if error is not None:
            tracing.set_error(span, _code_of(error), str(error))
        span.end(max(began_ns, ended_ns))
        return span

    def ended(self, error: JobError | None = None) -> None:
        with tracing.errors_logged():
            if error:
                tracing.set_error(self._span, error.code.value, error.message)
            self._span.end()

    def lost(self) -> None:
        with tracing.errors_logged():
            text = "the job was canceled, timed out, or went to another worker"
            tracing.set_error(self._span, LEASE_LOST, text)
            self._span.end()


def _code_of(error: BaseException) -> str:
    if isinstance(error, JobError):
        return error.code.value
    return type(error).__name__
