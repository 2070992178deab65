"""The span of one attempt to deliver a webhook, in the trace of its job."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from maskq.contract.tracing import TRACEPARENT, TRACESTATE, TraceContext, trace_id_of_job
from maskq.ledger.calls import DueDelivery
from maskq.telemetry import tracing

if TYPE_CHECKING:
    from opentelemetry.trace import Span


def _event(due: DueDelivery) -> dict[str, Any]:
    try:
        event = json.loads(due.body)
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}


def _host(url: str) -> str:
    with suppress(ValueError):  # the delivery itself says so
        return urlsplit(url).hostname or ""
    return ""


class DeliveryTrace:
    """`maskq webhook delivery`. Without a tracer it only passes on what the event has."""

    def __init__(self, due: DueDelivery) -> None:
        event = _event(due)
        self._parent = TraceContext.parse(event.get(TRACEPARENT), event.get(TRACESTATE, ""))
        self._span: Span | None = None
        with tracing.errors_logged():
            self._span = self._started(due, str(event.get("subject", "")))

    def headers(self) -> dict[str, str]:
        """What the receiver gets: `traceparent` and `tracestate`; empty without a trace."""
        passed = (tracing.context_of(self._span) if self._span else None) or self._parent
        return passed.headers() if passed else {}

    def ended(self, status: int | None, error: str | None) -> None:
        """The attempt ended. status: of HTTP, if there was an answer; error: None: it is delivered."""
        if self._span is None:
            return
        with tracing.errors_logged():
            if status is not None:
                self._span.set_attribute("http.response.status_code", status)
            if error is not None:
                tracing.set_error(self._span, str(status or "unreachable"), error)
            self._span.end()

    def _started(self, due: DueDelivery, subject: str) -> Span | None:
        using = tracing.tracer()
        if using is None:
            return None
        about: dict[str, tracing.Value] = {
            "http.request.method": "POST",
            "http.request.resend_count": due.attempts,
            "server.address": _host(due.url),
            "messaging.message.id": due.id,
            "maskq.subject": subject,
        }
        return tracing.start(
            using,
            "maskq webhook delivery",
            "CLIENT",
            parent=self._parent,
            attributes=about,
            ids=None if self._parent else tracing.Ids(int(trace_id_of_job(subject), 16)),
        )
