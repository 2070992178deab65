"""The batches that a model runs at the same time, and the thread that waits for them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Protocol


class RunningBatch(Protocol):
    """A batch that holds a slot."""

    def wait(self) -> None:
        """Wait until the batch has ended. An error of the batch is one of its results."""

    def deliver(self) -> None:
        """Give the results to those who wait for them, after the slot is free."""


class BatchSlots:
    """A slot for each batch that may run at the same time. Batches end in the order of their start.

    With one slot, the thread that starts a batch also waits for it. With more, another thread does.
    """

    def __init__(self, slots: int, changed: threading.Condition, *, name: str) -> None:
        """
        Args:
            slots: the number of batches that may run at the same time.
            changed: notified when a slot becomes free.
            name: of the thread that waits for batches. It starts with the first batch.
        """
        if slots < 1:
            raise ValueError(f"max_running_batches is {slots}; expected 1 or more")
        self._slots = slots
        self._changed = changed
        self._taken = 0
        self._busy_since: float | None = None
        self._began = 0.0  # when a slot was taken while all were free
        self._busy_seconds = 0.0  # until all slots were free the last time
        self._running: SimpleQueue[RunningBatch | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)

    @property
    def busy_since(self) -> float | None:
        """The last start, progress or end of a batch, by time.monotonic(); None: no batch runs."""
        return self._busy_since

    @property
    def busy_seconds(self) -> float:
        """Seconds in which at least one slot was taken."""
        with self._changed:
            running_s = time.monotonic() - self._began if self._taken else 0.0
            return self._busy_seconds + running_s

    @property
    def all_free(self) -> bool:
        """Whether no batch runs."""
        return not self._taken

    @property
    def has_free_slot(self) -> bool:
        """Whether another batch may start."""
        return self._taken < self._slots

    def heartbeat(self) -> None:
        """Note that a batch makes progress. Without a running batch (in a warm-up) nothing happens."""
        if self._taken:
            self._busy_since = time.monotonic()

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Wait for a free slot and take it. If the body raises, the slot is free again."""
        with self._changed:
            self._changed.wait_for(lambda: self.has_free_slot)
            self._taken += 1
            if self._taken == 1:
                self._began = time.monotonic()
                self.heartbeat()
        try:
            yield
        except BaseException:
            self._release()
            raise

    def finish(self, batch: RunningBatch) -> None:
        """Wait for a batch that holds a slot, free the slot and deliver the results.

        With one slot the caller waits; with more the other thread does, and this returns at once.
        """
        if self._slots == 1:
            self._finish(batch)
            return
        if not self._thread.is_alive():
            self._thread.start()
        self._running.put(batch)

    def wait_until_free(self) -> bool:
        """Wait until no batch runs. False: none was running."""
        with self._changed:
            if self.all_free:
                return False
            self._changed.wait_for(lambda: self.all_free)
            return True

    def close(self) -> None:
        """Wait for the batches that run. No batch may start any more."""
        if self._thread.is_alive():
            self._running.put(None)
            self._thread.join()

    def _main(self) -> None:
        while self._finish_next():
            pass

    def _finish_next(self) -> bool:
        """A function of its own, so that a batch's arrays are freed before the thread waits again."""
        batch = self._running.get()
        if batch is None:
            return False
        self._finish(batch)
        return True

    def _finish(self, batch: RunningBatch) -> None:
        try:
            batch.wait()
        finally:
            self._release()
        batch.deliver()

    def _release(self) -> None:
        with self._changed:
            self._taken -= 1
            self._busy_since = time.monotonic() if self._taken else None
            if not self._taken:
                self._busy_seconds += time.monotonic() - self._began
            self._changed.notify_all()
