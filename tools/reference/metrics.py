"""docs/reference/metrics.md."""

from __future__ import annotations

from collections.abc import Iterable

from tools.reference.markdown import code, page, table

from maskq.telemetry import deployment
from maskq.telemetry.series import Series
from maskq_worker.telemetry import series as process

_HEAD = ("series", "type", "labels", "")


def metrics() -> str:
    """The page."""
    return page(
        "Metrics",
        "[monitoring.md](../monitoring.md) says how to scrape them, and has queries.",
        "## Of the deployment",
        "`GET /metrics` of the gateway and `maskq metrics` export the same values, read from Redis.",
        table(_HEAD, _rows(deployment.SERIES)),
        "## Of a worker process",
        "Each process exports its own values at its port. They begin at 0 with the process.",
        table(_HEAD, _rows(process.SERIES)),
    )


def _rows(series: Iterable[Series]) -> Iterable[tuple[str, ...]]:
    for one in series:
        yield code(one.name), one.kind, " ".join(map(code, one.labels)), one.help
