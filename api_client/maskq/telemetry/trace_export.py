"""Exports the spans of a process of ours, as OpenTelemetry's own variables say.

The exporter belongs to the process that calls `start`, so a process is forked before, never after.
"""

from __future__ import annotations

import logging
import os
import random
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import entry_points, version
from typing import TYPE_CHECKING, Final

from maskq.telemetry import tracing

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.sdk.trace.id_generator import IdGenerator

logger = logging.getLogger(__name__)

_EXPORTERS: Final = "opentelemetry_traces_exporter"  # the SDK's own group of entry points
_OTLP: Final = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}
_FLUSH_S: Final = 2.0  # at the end of a process; a collector that does not answer costs no more


def exporters(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The names of the exporters that the variables choose; none: no spans are exported."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return ()
    chosen = environment.get("OTEL_TRACES_EXPORTER", "").strip()
    if not chosen:
        has_endpoint = any(
            environment.get(f"OTEL_EXPORTER_OTLP_{name}", "").strip()
            for name in ("ENDPOINT", "TRACES_ENDPOINT")
        )
        return ("otlp",) if has_endpoint else ()
    names = [name.strip() for name in chosen.split(",")]
    return tuple(name for name in names if name not in ("", "none"))


@contextmanager
def exporting(service: str) -> Iterator[None]:
    """`start` and `stop` around a block."""
    export = start(service)
    try:
        yield
    finally:
        export.stop()


def start(service: str) -> TraceExport:
    """Export this process's spans from now on, if the environment asks for it.

    service: its service.name, unless OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES has another. A
    process works without traces as well, so what is wrong with them is logged and nothing is raised.
    """
    names = exporters(os.environ)
    provider = None
    if names:
        try:
            provider = _provider(service, names)
        except ImportError as error:
            logger.warning(
                "no traces are exported: %s; pip install 'maskq[traces]', or set "
                "OTEL_TRACES_EXPORTER=none",
                error,
            )
        except Exception as error:  # noqa: BLE001 - of an exporter, for a value that it cannot use
            logger.warning("no traces are exported: %s", error)
    return TraceExport(provider)


class TraceExport:
    """The export of one process."""

    def __init__(self, provider: TracerProvider | None) -> None:
        """provider: None: nothing is exported."""
        self._provider = provider
        if provider:
            tracing.use(provider.get_tracer(tracing.NAME, version("maskq")))

    def stop(self) -> None:
        """Send what is left, for a short time."""
        if self._provider is None:
            return
        tracing.use(None)
        sending = threading.Thread(
            target=self._provider.shutdown, name="maskq-traces-end", daemon=True
        )
        sending.start()
        sending.join(_FLUSH_S)


def _provider(service: str, names: tuple[str, ...]) -> TracerProvider:
    """Raises ImportError if a package is not installed, and what an exporter raises."""
    from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    about = {
        "service.version": version("maskq"),
        "service.instance.id": f"{socket.gethostname()}:{os.getpid()}",
    }
    given = OTELResourceDetector().detect().attributes  # of the variables, which win
    resource = Resource.create({SERVICE_NAME: service, **about, **given})
    provider = TracerProvider(resource=resource, id_generator=_ids(), shutdown_on_exit=False)
    for name in names:
        provider.add_span_processor(BatchSpanProcessor(_exporter(name)))
    return provider


def _exporter(name: str) -> SpanExporter:
    """Raises ImportError if nothing installed has this name."""
    chosen = name
    if name == "otlp":
        chosen = _OTLP.get(_protocol(), _OTLP["http/protobuf"])
    for found in entry_points(group=_EXPORTERS, name=chosen):
        made: SpanExporter = found.load()()
        return made
    raise ImportError(f"no exporter {name!r} of OTEL_TRACES_EXPORTER is installed ({chosen})")


def _protocol() -> str:
    name = "OTEL_EXPORTER_OTLP_{}PROTOCOL"
    return os.environ.get(name.format("TRACES_")) or os.environ.get(name.format("")) or ""


def _ids() -> IdGenerator:
    """Random ids, unless the next span has its own (`tracing.Ids`)."""
    from opentelemetry.sdk.trace.id_generator import IdGenerator

    class Generator(IdGenerator):
        def generate_trace_id(self) -> int:
            ids = tracing.wanted_ids.get()
            return ids.trace_id if ids and ids.trace_id else random.getrandbits(128) or 1

        def generate_span_id(self) -> int:
            ids = tracing.wanted_ids.get()
            return ids.span_id if ids and ids.span_id else random.getrandbits(64) or 1

        def is_trace_id_random(self) -> bool:
            return True

    return Generator()
