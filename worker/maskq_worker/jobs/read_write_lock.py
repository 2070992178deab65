"""Jobs run side by side in a process; a suspect runs alone.

A suspect is a job whose process died while it ran other jobs as well. It runs again alone (ledger:
`alone`), so that the job that ends its process is found and the others are not charged for it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class ReadWriteLock:
    """Shared by any number of threads, or held by one. A thread that wants it alone goes first."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._sharers = 0
        self._is_alone = False
        self._waiting = 0

    @property
    def is_wanted_alone(self) -> bool:
        """Whether a thread waits to hold it alone."""
        return self._waiting > 0

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Hold it together with others. Waits for a thread that holds it alone, or waits to."""
        with self._changed:
            self._changed.wait_for(lambda: not self._is_alone and not self._waiting)
            self._sharers += 1
        try:
            yield
        finally:
            with self._changed:
                self._sharers -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold it exclusively. Waits for all others."""
        with self._changed:
            self._waiting += 1
            self._changed.wait_for(lambda: not self._is_alone and not self._sharers)
            self._waiting -= 1
            self._is_alone = True
        try:
            yield
        finally:
            with self._changed:
                self._is_alone = False
                self._changed.notify_all()
