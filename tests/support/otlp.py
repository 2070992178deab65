"""A collector of traces in memory: it takes OTLP over HTTP, as real collectors do."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from support.waiting import until


@dataclass(frozen=True)
class Collected:
    """One span as it was exported."""

    service: str
    name: str
    kind: int  # 1 internal, 2 server, 3 client, 4 producer, 5 consumer
    trace_id: str
    span_id: str
    parent_id: str  # '' of a root
    start_ns: int
    end_ns: int
    attributes: dict[str, Any] = field(hash=False)
    links: tuple[tuple[str, str, dict[str, Any]], ...] = field(hash=False)
    error: str | None

    @property
    def ids(self) -> tuple[str, str]:
        return self.trace_id, self.span_id


class Spans(list[Collected]):
    """Spans of one trace, or of several."""

    def named(self, name: str) -> Spans:
        return Spans(one for one in self if one.name == name)

    def one(self, name: str) -> Collected:
        (found,) = self.named(name)
        return found

    def below(self, parent: Collected) -> Spans:
        found = [one for one in self if one.parent_id == parent.span_id]
        return Spans(sorted(found, key=lambda one: one.start_ns))


class Collector:
    """Listens on loopback."""

    def __init__(self) -> None:
        self._spans = Spans()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self._spans))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def environment(self) -> dict[str, str]:
        """The variables of a process that exports to it, soon after a span has ended."""
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": self.url, "OTEL_BSP_SCHEDULE_DELAY": "100"}

    @property
    def spans(self) -> Spans:
        return Spans(self._spans)

    def trace(self, trace_id: str) -> Spans:
        return Spans(one for one in self._spans if one.trace_id == trace_id)

    def wait(self, trace_id: str, ready: Callable[[Spans], bool]) -> Spans:
        """The spans of a trace once they are ready."""
        return until(lambda: (found := self.trace(trace_id)) and ready(found) and found)

    def wait_for(self, trace_id: str, names: Sequence[str]) -> Spans:
        """The spans of a trace once there are as many of each name."""
        return self.wait(
            trace_id, lambda found: all(len(found.named(n)) >= names.count(n) for n in names)
        )

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _handler(spans: Spans) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            spans.extend(_parsed(body))
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Tests read the spans."""

    return Handler


def _parsed(body: bytes) -> list[Collected]:
    request = ExportTraceServiceRequest.FromString(body)
    return [
        _collected(_values(resource.resource.attributes)["service.name"], span)
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def _collected(service: str, span: Any) -> Collected:
    links = [(one.trace_id.hex(), one.span_id.hex(), _values(one.attributes)) for one in span.links]
    return Collected(
        service=service,
        name=span.name,
        kind=span.kind,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        attributes=_values(span.attributes),
        links=tuple(links),
        error=span.status.message if span.status.code == 2 else None,
    )


def _values(pairs: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in pairs}
