"""Memory that the images of one process may take together.

Job threads are there for many small images: as many large ones at once would not fit. Whoever finds
no room waits, and what is smaller may pass, but not for ever.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

_PASSED = 32  # at most so many may pass one that waits


class MemoryBudget:
    """limit: bytes. What alone is larger than that gets the room to itself."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken = 0
        self._inside = 0
        self._waiting: list[_Waiting] = []  # in the order of their coming
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, wanted: int = 0) -> Iterator[Reservation]:
        """Wait until there is room for `wanted` bytes, and keep it."""
        taken = Reservation(self)
        try:
            if wanted:
                taken.take(wanted)
            yield taken
        finally:
            taken.shrink(0)

    def _enter(self, mine: _Waiting) -> None:
        with self._changed:
            self._waiting.append(mine)
            self._changed.wait_for(lambda: self._may_enter(mine))
            before = self._waiting[: self._waiting.index(mine)]
            for other in before:
                other.passed += 1
            self._waiting.remove(mine)
            self._taken += mine.wanted
            self._inside += 1
            self._changed.notify_all()

    def _leave(self, taken: int, kept: int) -> None:
        if kept >= taken:
            return
        with self._changed:
            self._taken -= taken - kept
            self._inside -= not kept
            self._changed.notify_all()

    def _may_enter(self, mine: _Waiting) -> bool:
        fits = self._taken + mine.wanted <= self._limit or not self._inside
        before = self._waiting[: self._waiting.index(mine)]
        return fits and all(other.passed < _PASSED for other in before)


class Reservation:
    """What one image has of the room; used by one thread."""

    def __init__(self, room: MemoryBudget) -> None:
        self._room = room
        self.bytes = 0

    def take(self, wanted: int) -> None:
        """Have `wanted` bytes, and wait for them.

        What it has is given back first: of two that keep their share and wait for more, neither would
        ever get it.
        """
        self.shrink(0)
        self._room._enter(_Waiting(wanted))
        self.bytes = wanted

    def shrink(self, kept: int) -> None:
        """Give back all but `kept` bytes, which is at most what it has."""
        self._room._leave(self.bytes, kept)
        self.bytes = min(self.bytes, kept)


class _Waiting:
    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self.passed = 0
