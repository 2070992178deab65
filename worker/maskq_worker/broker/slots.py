"""Counts the free job threads, which decides whether a message may be taken off a list.

Celery counts the requests that it has reserved and whose end it has not seen. A request whose handling
fails in between counts forever. Here a slot is taken when a task is handed to a thread, and released
when the thread has finished the task, whatever its outcome.

A thread that waits for a store without an answer does not count. The worker takes another message
instead: it has as many extra threads as slots. So a bucket that hangs does not delay other jobs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Slots:
    """Slots of job threads. The main loop takes them, the threads release them."""

    def __init__(self, count: int, *, stalled: Callable[[], int] = lambda: 0) -> None:
        """stalled: how many threads wait for a silent store; at most `count` are not counted."""
        self.count = count
        self._taken = 0
        self._stalled = stalled
        self._moved_at = time.monotonic()
        self._lock = threading.Lock()

    @property
    def threads(self) -> int:
        """How many threads the pool may start."""
        return threads_for(self.count)

    @property
    def free(self) -> int:
        """Negative for a moment when stalled stores answer and their threads continue."""
        free = self.count - self._taken
        return free if free > 0 else free + min(self.count, self._stalled())

    @property
    def idle_s(self) -> float:
        """Seconds since a slot was last taken or released."""
        return time.monotonic() - self._moved_at

    def take(self) -> None:
        with self._lock:
            self._taken += 1
            self._moved_at = time.monotonic()

    def release(self) -> None:
        with self._lock:
            self._taken -= 1
            self._moved_at = time.monotonic()


def threads_for(slots: int) -> int:
    """How many job threads there are for so many slots: as many again may wait for stalled stores."""
    return 2 * slots
