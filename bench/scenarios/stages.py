"""Where the time of a job went: parts that add up to the whole, from its record alone."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from maskq.contract import JobRecord

WHOLE = "whole"
REST = "rest"  # commit, claim's answer, finish, and handing over between threads
# Within the stage `model`, should a worker say them.
_WITHIN_MODEL = frozenset({"forward", "mask", "wait"})
PERCENTILES = (50, 90, 99, 99.9)


@dataclass(frozen=True, slots=True)
class Ended:
    """A job that has succeeded, and when it was meant to arrive."""

    scheduled_ms: float  # since the epoch
    record: JobRecord

    @property
    def latency_ms(self) -> float:
        """From the scheduled arrival to the end that the ledger wrote."""
        return (self.record.ended_ms or 0) - self.scheduled_ms


def parts(job: Ended) -> dict[str, float]:
    """Milliseconds by part, in order; they add up to `latency_ms`.

    submit: from the schedule until the ledger has it; queue: until a worker claimed it; then the
    worker's own stages, and what of its time is in none of them.
    """
    record = job.record
    if record.result is None or record.started_ms is None or record.ended_ms is None:
        raise ValueError(f"job {record.id} is {record.status}: only a succeeded one has stages")
    timed = {k: v for k, v in record.result.timings_ms.items() if k not in _WITHIN_MODEL}
    return {
        "submit": record.created_ms - job.scheduled_ms,
        "queue": float(record.started_ms - record.created_ms),
        **timed,
        REST: record.ended_ms - record.started_ms - sum(timed.values()),
    }


def rows(jobs: Sequence[Ended]) -> list[dict[str, Any]]:
    """One row a part, and the whole: means (which add up), shares and percentiles, in ms."""
    split = [parts(job) for job in jobs]
    whole = [job.latency_ms for job in jobs]
    columns = {name: [each.get(name, 0.0) for each in split] for name in _names(split)}
    mean = statistics.fmean(whole)
    return [
        {
            "stage": name,
            "mean ms": rounded(statistics.fmean(values)),
            "share": f"{statistics.fmean(values) / mean:.1%}" if mean else None,
            **percentiles(values),
        }
        for name, values in {**columns, WHOLE: whole}.items()
    ]


def percentiles(values: Sequence[float]) -> dict[str, float | None]:
    return {f"p{q:g}": percentile(values, q) for q in PERCENTILES}


def percentile(values: Sequence[float], q: float) -> float | None:
    """By nearest rank; None where there are too few values for one to lie above it."""
    if len(values) * (100 - q) < 100 - 1e-9:
        return None
    rank = max(1, math.ceil(len(values) * q / 100 - 1e-9))
    return rounded(sorted(values)[rank - 1])


def rounded(ms: float) -> float:
    """As it may be read: whole milliseconds from a second on, else hundredths."""
    return round(ms) if abs(ms) >= 1000 else round(ms, 2)


def _names(split: Sequence[Mapping[str, float]]) -> list[str]:
    names = dict.fromkeys(name for each in split for name in each)
    return [*(name for name in names if name != REST), REST]
