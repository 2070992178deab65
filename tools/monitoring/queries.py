"""The queries of the dashboard's JSON, run by a Prometheus as Grafana would run them."""

from __future__ import annotations

import json
import math
import re
import time
from dataclasses import dataclass
from typing import Any, Final

import urllib3

_POINTS: Final = 240  # of a graph
_LABEL: Final = re.compile(r"\{\{\s*(\w+)\s*\}\}")


@dataclass(frozen=True, slots=True)
class Line:
    """One series of a panel."""

    name: str
    points: list[tuple[float, float]]  # seconds since 1970, value


@dataclass(frozen=True, slots=True)
class Period:
    """What a graph shows."""

    start: float  # seconds since 1970
    seconds: float
    rate_interval: str  # $__rate_interval: at least four scrapes

    @classmethod
    def last(cls, seconds: float, rate_interval: str) -> Period:
        return cls(time.time() - seconds, seconds, rate_interval)

    @property
    def step(self) -> float:
        return max(1.0, self.seconds / _POINTS)


def lines(panel: dict[str, Any], prometheus: str, period: Period) -> list[Line]:
    """Every series that a panel's queries return. Raises RuntimeError with Prometheus' own words."""
    return [line for target in panel["targets"] for line in _run(target, prometheus, period)]


def _run(target: dict[str, Any], prometheus: str, period: Period) -> list[Line]:
    query = target["expr"].replace("$__rate_interval", period.rate_interval).replace("$model", ".*")
    fields = {
        "query": query,
        "start": f"{period.start}",
        "end": f"{period.start + period.seconds}",
        "step": f"{period.step}",
    }
    answer = urllib3.request("GET", f"{prometheus}/api/v1/query_range", fields=fields)
    said = json.loads(answer.data)
    if said["status"] != "success":
        raise RuntimeError(f"{query}: {said['error']}")
    return [_line(target["legendFormat"], found) for found in said["data"]["result"]]


def _line(legend: str, found: dict[str, Any]) -> Line:
    labels = found["metric"]
    name = "" if legend == "__auto" else _LABEL.sub(lambda match: labels.get(match[1], ""), legend)
    points = [(float(at), float(value)) for at, value in found["values"]]
    return Line(name.strip(), [point for point in points if math.isfinite(point[1])])
