"""Batches that have begun and not ended, and who waits for their ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue

# Waits for a batch; what it returns hands the results out.
Ending = Callable[[], Callable[[], None]]


class InFlight:
    """At most `limit`. They end in the order in which they began.

    With a limit of 1 whoever begins a batch waits for it, too; with more a thread does, which is
    started with the first.
    """

    def __init__(self, limit: int, changed: threading.Condition, *, name: str) -> None:
        """changed: told of each end; name: of the thread."""
        if limit < 1:
            raise ValueError(f"{limit} batches at once; expected 1 or more")
        self.busy_since: float | None = None  # by time.monotonic()
        self._limit = limit
        self._changed = changed
        self._count = 0
        self._endings: SimpleQueue[Ending | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)

    def __len__(self) -> int:
        return self._count

    @property
    def has_room(self) -> bool:
        """Whether another may begin."""
        return self._count < self._limit

    def progress(self) -> None:
        """A batch is not done, but further. Nothing happens where there is none (in a warm-up, say)."""
        if self._count:
            self.busy_since = time.monotonic()

    @contextmanager
    def beginning(self) -> Iterator[None]:
        """Around the begin of a batch, which waits for room; one that raises has not begun."""
        with self._changed:
            self._changed.wait_for(lambda: self.has_room)
            self._count += 1
            if self._count == 1:
                self.progress()
        try:
            yield
        except BaseException:
            self._left()
            raise

    def end(self, ending: Ending) -> None:
        """Wait for a batch that has begun, here or in the thread."""
        if self._limit == 1:
            self._end(ending)
            return
        if not self._thread.is_alive():
            self._thread.start()
        self._endings.put(ending)

    def await_none(self) -> bool:
        """Wait until all have ended. False: there were none."""
        with self._changed:
            if not self._count:
                return False
            self._changed.wait_for(lambda: not self._count)
            return True

    def close(self) -> None:
        """No batch begins any more. Waits for those that have."""
        if self._thread.is_alive():
            self._endings.put(None)
            self._thread.join()

    def _main(self) -> None:
        while self._end_next():
            pass

    def _end_next(self) -> bool:
        """A function of its own, so that a batch's arrays are freed before the thread waits again."""
        ending = self._endings.get()
        if ending is None:
            return False
        self._end(ending)
        return True

    def _end(self, ending: Ending) -> None:
        try:
            hand_out = ending()
        finally:
            self._left()
        hand_out()

    def _left(self) -> None:
        with self._changed:
            self._count -= 1
            self.busy_since = time.monotonic() if self._count else None
            self._changed.notify_all()
