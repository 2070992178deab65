"""What traces cost a job: `python -m bench.trace_cost`.

The calls of one job: its submission, and its attempt with seven stages and a forward. Microseconds of
processor time, by turns: with traces off, with an OpenTelemetry that the program has imported without a
provider, with spans that the sampler drops, and with spans that are encoded as for OTLP and dropped.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from statistics import median

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler

from maskq.telemetry import tracing
from maskq.testing import make_record
from maskq_worker.telemetry.attempt_trace import attempt_trace
from maskq_worker.telemetry.stopwatch import Stopwatch

TURNS, JOBS = 15, 300
STAGES = ("fetch", "decode", "prepare", "model", "encode", "store", "commit")
RECORD = make_record()


def main() -> None:
    ways = {"off": None, "imported only": None, "not sampled": ALWAYS_OFF, "on": ALWAYS_ON}
    times: dict[str, list[float]] = {name: [] for name in ways}
    bare: list[float] = []
    for _ in range(TURNS):
        bare.append(us_a_job(stopwatch))
        for name, sampler in ways.items():
            with not_imported() if name == "off" else recording(sampler):
                times[name].append(us_a_job(job))
    print(f"{'stopwatch alone':24} {spread(bare)}")
    for name, measured in times.items():
        print(f"traces {name:17} {spread(measured)}")
    figures = {name: round(median(measured), 1) for name, measured in times.items()}
    off = median(measured - alone for measured, alone in zip(times["off"], bare, strict=True))
    print(json.dumps({"us_per_job": figures, "off_beyond_stopwatch": round(off, 1)}))
    sys.exit(0 if off <= 10 else 1)


def spread(times: Sequence[float]) -> str:
    return f"{median(times):7.1f} µs a job ({min(times):.1f} to {max(times):.1f})"


def us_a_job(work: object) -> float:
    """Microseconds of processor time, of all threads."""
    assert callable(work)
    began = time.process_time()
    for _ in range(JOBS):
        work()
    tracing_flush()
    return (time.process_time() - began) / JOBS * 1e6


def stopwatch() -> None:
    times = Stopwatch()
    with times:
        for stage in STAGES:
            times.begin(stage)


def job() -> None:
    with tracing.submission() as submitting:
        submitting.accepted(RECORD.id)
    trace = attempt_trace(RECORD)
    times = Stopwatch(trace)
    with times:
        for stage in STAGES:
            times.begin(stage)
            if stage == "model":
                times.listener.forward_started(1, 4)
                times.listener.forward_ended()
    trace.ended()


class Encoded(SpanExporter):
    """Encodes as OTLP does, and sends nothing."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        encode_spans(spans).SerializeToString()
        return SpanExportResult.SUCCESS


_providers: list[TracerProvider] = []


def tracing_flush() -> None:
    for provider in _providers:
        provider.force_flush()


@contextmanager
def not_imported() -> Iterator[None]:
    """As in a process that does not trace."""
    api = sys.modules.pop("opentelemetry.trace")
    try:
        yield
    finally:
        sys.modules["opentelemetry.trace"] = api


@contextmanager
def recording(sampler: Sampler | None) -> Iterator[None]:
    """Record spans with this sampler; None: tracing is off."""
    if sampler is None:
        yield
        return
    provider = TracerProvider(sampler, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(Encoded(), max_queue_size=16 * JOBS))
    tracing.use(provider.get_tracer("maskq"))
    _providers.append(provider)
    try:
        yield
    finally:
        _providers.clear()
        tracing.use(None)
        provider.shutdown()


if __name__ == "__main__":
    main()
