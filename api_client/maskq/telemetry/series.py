"""What a series is. Its text for Prometheus needs prometheus-client, of the extra `metrics`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
    )
    from prometheus_client.metrics_core import Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Series:
    """A name under which values are exported; one value for each combination of labels."""

    name: str
    kind: Literal["gauge", "counter", "histogram"]
    help: str
    labels: tuple[str, ...] = ()

    def gauge(self) -> GaugeMetricFamily:
        """An empty family for the values of a gauge."""
        from prometheus_client.core import GaugeMetricFamily

        return GaugeMetricFamily(self.name, self.help, labels=self.labels)

    def counter(self) -> CounterMetricFamily:
        """An empty family for the values of a counter."""
        from prometheus_client.core import CounterMetricFamily

        return CounterMetricFamily(self.name, self.help, labels=self.labels)

    def histogram(self) -> HistogramMetricFamily:
        """An empty family for the values of a histogram."""
        from prometheus_client.core import HistogramMetricFamily

        return HistogramMetricFamily(self.name, self.help, labels=self.labels)


class _Families:
    """As much of a registry as prometheus-client needs to write families."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def exposition(families: Iterable[Metric]) -> bytes:
    """The families in Prometheus' text format."""
    from prometheus_client import generate_latest

    return generate_latest(_Families(families))


def own_process() -> bytes:
    """This process's CPU time, memory, files and start, by Prometheus' standard names (on Linux)."""
    from prometheus_client import ProcessCollector

    return exposition(ProcessCollector(registry=None).collect())
