"""Memory that the images of one process may take together.

Job threads are there for many small images: as many large ones at once would not fit. Whoever finds
no room waits, and what is smaller may pass, but not for ever.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

_PASSED = 32  # at most so many may pass one that waits


class Room:
    """limit: bytes. What alone is larger than that gets the room to itself."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken = 0
        self._inside = 0
        self._waiting: list[_Waiting] = []  # in the order of their coming
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, wanted: int) -> Iterator[None]:
        """Wait until there is room for `wanted` bytes, and keep it."""
        self._enter(_Waiting(wanted))
        try:
            yield
        finally:
            with self._changed:
                self._taken -= wanted
                self._inside -= 1
                self._changed.notify_all()

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

    def _may_enter(self, mine: _Waiting) -> bool:
        fits = self._taken + mine.wanted <= self._limit or not self._inside
        before = self._waiting[: self._waiting.index(mine)]
        return fits and all(other.passed < _PASSED for other in before)


class _Waiting:
    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self.passed = 0
