"""How many job threads are free: what decides whether a message may be taken off a list.

Celery counts requests that it has reserved and not yet seen the end of. One whose handling fails
between the two counts for ever. Here a slot is taken when a task is handed to a thread, and given back
when the thread is done with it, however that ends.
"""

from __future__ import annotations

import threading
import time


class Slots:
    """A count; taken by the main loop, given back by the threads."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._taken = 0
        self._moved_at = time.monotonic()
        self._lock = threading.Lock()

    @property
    def free(self) -> int:
        return self.count - self._taken

    @property
    def still_for_s(self) -> float:
        """Seconds since one was last taken or given back."""
        return time.monotonic() - self._moved_at

    def take(self) -> None:
        with self._lock:
            self._taken += 1
            self._moved_at = time.monotonic()

    def give_back(self) -> None:
        with self._lock:
            self._taken -= 1
            self._moved_at = time.monotonic()
