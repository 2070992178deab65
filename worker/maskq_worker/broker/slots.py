"""How many job threads are free: what decides whether a message may be taken off a list.

Celery counts requests that it has reserved and not yet seen the end of. One whose handling fails
between the two counts for ever. Here a slot is taken when a task is handed to a thread, and given back
when the thread is done with it, however that ends.

A thread whose store is silent does not count: the worker takes another message instead, on one of as
many extra threads as it has slots. So a bucket that hangs does not slow down the jobs of others.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Slots:
    """A count; taken by the main loop, given back by the threads."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._taken = 0
        self._stalled: Callable[[], int] = lambda: 0
        self._moved_at = time.monotonic()
        self._lock = threading.Lock()

    @property
    def threads(self) -> int:
        """How many threads the pool may start."""
        return 2 * self.count

    @property
    def free(self) -> int:
        """Negative for a moment when silent stores answer and their threads go on."""
        free = self.count - self._taken
        return free if free > 0 else free + min(self.count, self._stalled())

    def leave_out(self, stalled: Callable[[], int]) -> None:
        """Do not count as many threads as `stalled()` returns, at most `count`."""
        self._stalled = stalled

    @property
    def still_for_s(self) -> float:
        """Seconds since one was last taken or given back."""
        return time.monotonic() - self._moved_at

    def take(self) -> None:
        with self._lock:
            self._taken += 1
            self._moved_at = time.monotonic()

    def release(self) -> None:
        with self._lock:
            self._taken -= 1
            self._moved_at = time.monotonic()
