"""How many jobs a second this process ended in the last minute."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

WINDOW_S: Final = 60


class Throughput:
    """Counts in one slot per second, for a minute. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self._slots = [(0, 0)] * WINDOW_S  # second, count
        self._lock = threading.Lock()

    def count(self) -> None:
        """Count one job that ended now."""
        second = int(self._clock())
        with self._lock:
            of, jobs = self._slots[second % WINDOW_S]
            self._slots[second % WINDOW_S] = (second, jobs + 1 if of == second else 1)

    @property
    def per_s(self) -> float:
        """Jobs a second in the last minute, or since the start if that is less."""
        now = self._clock()
        with self._lock:
            jobs = sum(count for second, count in self._slots if second > int(now) - WINDOW_S)
        return jobs / max(1.0, min(WINDOW_S, now - self._began))
