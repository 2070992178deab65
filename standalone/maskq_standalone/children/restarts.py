"""When a child that died is started again."""

from __future__ import annotations

import time

LONGEST_S = 30.0
GOOD_S = 60.0  # a run longer than this clears the record


class Restarts:
    """Waits `first_s`, then 1, 2, 4 … 30 s between the restarts of one child."""

    def __init__(self, first_s: float) -> None:
        self._first_s = first_s
        self._next_s = first_s
        self._started_at = time.monotonic()
        self._due_at: float | None = None

    @property
    def scheduled(self) -> bool:
        return self._due_at is not None

    @property
    def due(self) -> bool:
        return self._due_at is not None and time.monotonic() >= self._due_at

    def started(self) -> None:
        self._started_at = time.monotonic()
        self._due_at = None

    def ended(self) -> float:
        """Schedule the next start; returns the seconds until then."""
        if time.monotonic() - self._started_at > GOOD_S:
            self._next_s = self._first_s
        wait_s, self._next_s = self._next_s, min(max(1.0, 2 * self._next_s), LONGEST_S)
        self._due_at = time.monotonic() + wait_s
        return wait_s
