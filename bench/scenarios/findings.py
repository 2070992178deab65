"""What a scenario is told, and what it found."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.scenarios import processes
from bench.scenarios.service import Batch, Cost, Service

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Options:
    model: str
    jobs: int | None  # None: as many as the scenario finds right
    workers: int
    seed: int
    load: float  # of the capacity, for Poisson arrivals
    seconds: float  # of the bare forward, for each size of batch, before and after
    price_per_hour: float | None  # of the machine, in any currency


@dataclass(frozen=True, slots=True)
class Findings:
    """`figures` have their unit in their name, `tables` and `plots` (SVG) what they show."""

    figures: dict[str, Any]
    tables: dict[str, list[Row]] = field(default_factory=dict)
    plots: dict[str, str] = field(default_factory=dict)


def cpu_ms_a_job(
    cost: Cost, jobs: int, of: Sequence[str] = ("worker", "client", "store", "redis")
) -> dict[str, float]:
    return {f"{name}_cpu_ms_a_job": round(1e3 * getattr(cost, name) / jobs, 3) for name in of}


def memory(service: Service) -> dict[str, float | None]:
    gpu = processes.gpu_mib()
    return {
        "worker_peak_rss_mib": round(processes.peak_rss_mib(service.pids), 1),
        "gpu_memory_mib": gpu,
    }


def price(options: Options, rate: float) -> dict[str, float]:
    """rate: jobs a second."""
    if options.price_per_hour is None:
        return {}
    return {"cost_per_million": round(options.price_per_hour / 3600 / rate * 1e6, 2)}


def batch_rows(batches: Sequence[Batch]) -> list[Row]:
    """How many batches of each size there were, and how long they took."""
    if not batches:
        raise RuntimeError("the workers wrote down no batch: bench/scenarios/worker.py must follow")
    return [
        {
            "batch": size,
            "times": count,
            "median ms": _median_ms(b.seconds for b in batches if b.size == size),
            "of it forward": _median_ms(b.forward_s for b in batches if b.size == size),
        }
        for size, count in sorted(histogram(batches).items())
    ]


def histogram(batches: Sequence[Batch]) -> Counter[int]:
    return Counter(batch.size for batch in batches)


def _median_ms(seconds: Any) -> float:
    return round(1e3 * statistics.median(seconds), 2)
