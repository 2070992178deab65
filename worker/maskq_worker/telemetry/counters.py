"""What a worker process counts while it works: a few additions for each job and each batch."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from maskq_worker.telemetry.throughput import Throughput

STAGE_BOUNDS: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
"""Upper bounds of the buckets, in seconds."""
BATCH_BOUNDS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""Upper bounds of the buckets, in images."""


@dataclass(frozen=True, slots=True)
class Counted:
    """The state of a histogram."""

    buckets: tuple[tuple[str, int], ...]  # upper bound → how many are not above it
    total: float  # of all values


class Histogram:
    """Counts values by buckets. Its owner guards it against other threads."""

    __slots__ = ("_bounds", "_counts", "_total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0.0

    def add(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    def counted(self) -> Counted:
        """Its state now."""
        below, buckets = 0, []
        for bound, count in zip((*self._bounds, "+Inf"), self._counts, strict=True):
            below += count
            buckets.append((str(bound), below))
        return Counted(tuple(buckets), self._total)


@dataclass(frozen=True, slots=True)
class Work:
    """What a process has done since it started."""

    stages: Mapping[str, Counted]  # seconds
    batches: Counted  # images
    largest_batch: int

    @property
    def efficiency(self) -> float:
        """Images in a forward, as a share of the largest batch; 0: there was none."""
        most = self.batches.buckets[-1][1] * self.largest_batch
        return self.batches.total / most if most else 0.0


class ProcessCounters:
    """Shared by the threads of a process. No method raises, and none waits for I/O."""

    def __init__(self, largest_batch: int = 1) -> None:
        """largest_batch: images in one forward at most."""
        self._largest_batch = largest_batch
        self._lock = threading.Lock()
        self._stages: dict[str, Histogram] = {}
        self._batches = Histogram(BATCH_BOUNDS)
        self._throughput = Throughput()

    def job_ended(self) -> None:
        """Count a job that ended, successfully or not."""
        self._throughput.count()

    @property
    def jobs_per_s(self) -> float:
        """Jobs that ended a second in the last minute, or since the start if that is less."""
        return self._throughput.per_s

    def job_succeeded(self, timings_ms: Mapping[str, float]) -> None:
        """Count the stages of a job. timings_ms: what each took."""
        with self._lock:
            for stage, ms in timings_ms.items():
                histogram = self._stages.get(stage)
                if histogram is None:
                    histogram = self._stages[stage] = Histogram(STAGE_BOUNDS)
                histogram.add(ms / 1000)

    def batch_started(self, size: int) -> None:
        """Count a forward. size: its images."""
        with self._lock:
            self._batches.add(size)

    def work(self) -> Work:
        """What was counted until now."""
        with self._lock:
            stages = {name: one.counted() for name, one in self._stages.items()}
            return Work(stages, self._batches.counted(), self._largest_batch)
