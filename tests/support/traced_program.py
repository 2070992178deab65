"""A program that traces by a provider of its own, in this process."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter


class Program:
    """Keeps the spans that have ended."""

    def __init__(self) -> None:
        self._kept = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._kept))
        self.tracer = provider.get_tracer("shop")

    def spans(self, name: str | None = "maskq submit") -> list[ReadableSpan]:
        """Those with this name, in the order of their ends; None: all."""
        return [one for one in self._kept.get_finished_spans() if name in (None, one.name)]

    def span(self, name: str = "maskq submit") -> ReadableSpan:
        (found,) = self.spans(name)
        return found


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Program:
    """It is found as the provider that the program has set; a real one could not be unset."""
    made = Program()
    monkeypatch.setattr("opentelemetry.trace.get_tracer", lambda *_, **__: made.tracer)
    return made
