"""The memory that the images of one process may take together.

A process has many job threads, which suits small images. As many large images at once would not fit.
A thread whose image does not fit waits. Smaller images may overtake it, but only a limited number.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

_MAX_OVERTAKES = 32  # how often one waiting image may be overtaken


class MemoryBudget:
    """limit: bytes. An image that alone needs more than the limit is processed alone."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._reserved = 0  # bytes
        self._images = 0  # that have a reservation
        self._waiting: list[_Waiting] = []  # in the order of arrival
        self._changed = threading.Condition()

    @property
    def reserved(self) -> int:
        """Bytes that are reserved now."""
        return self._reserved

    @property
    def images(self) -> int:
        """How many images have a reservation now."""
        return self._images

    @contextmanager
    def reservation(self, wanted: int = 0) -> Iterator[Reservation]:
        """Wait until `wanted` bytes are free, and reserve them while the block runs."""
        made = Reservation(self)
        try:
            if wanted:
                made.take(wanted)
            yield made
        finally:
            made.shrink(0)

    def reserve(self, wanted: int) -> None:
        """Wait until `wanted` bytes are free, and reserve them for one image."""
        mine = _Waiting(wanted)
        with self._changed:
            self._waiting.append(mine)
            self._changed.wait_for(lambda: self._may_enter(mine))
            for other in self._before(mine):
                other.overtaken += 1
            self._waiting.remove(mine)
            self._reserved += wanted
            self._images += 1
            self._changed.notify_all()

    def release(self, reserved: int, *, kept: int) -> None:
        """Release all but `kept` bytes of what is reserved for one image."""
        if kept >= reserved:
            return
        with self._changed:
            self._reserved -= reserved - kept
            self._images -= not kept
            self._changed.notify_all()

    def _may_enter(self, mine: _Waiting) -> bool:
        fits = self._reserved + mine.wanted <= self._limit or not self._images
        return fits and all(other.overtaken < _MAX_OVERTAKES for other in self._before(mine))

    def _before(self, mine: _Waiting) -> list[_Waiting]:
        return self._waiting[: self._waiting.index(mine)]


class Reservation:
    """The memory reserved for one image; used by one thread."""

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget
        self.bytes = 0

    def take(self, wanted: int) -> None:
        """Wait until `wanted` bytes are free, and reserve them.

        What is reserved so far is released first. Otherwise two threads that keep their share and wait
        for more would wait for each other forever.
        """
        self.shrink(0)
        self._budget.reserve(wanted)
        self.bytes = wanted

    def shrink(self, kept: int) -> None:
        """Release all but `kept` bytes, which is at most what is reserved."""
        self._budget.release(self.bytes, kept=kept)
        self.bytes = min(self.bytes, kept)


class _Waiting:
    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self.overtaken = 0  # how often
