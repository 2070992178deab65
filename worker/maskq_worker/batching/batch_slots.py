"""The batches that a model runs at the same time, and the threads that wait for them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Protocol


class RunningBatch(Protocol):
    """A batch that holds a slot."""

    has_ended: bool  # whether there is nothing to wait for

    def wait(self) -> None:
        """Wait until the batch has ended. An error of the batch is one of its results."""

    def deliver(self) -> None:
        """Give the results to those who wait for them, after the slot is free."""


@dataclass(slots=True, eq=False)
class Slot:
    """A slot that a batch holds."""

    progress_at: float  # by time.monotonic(): the batch's start, or its last progress


class BatchSlots:
    """A slot for each batch that may run at the same time.

    With one slot, the thread that starts a batch also waits for it. With more, another thread does, in
    the order of their start, or a thread for each slot, in any order.
    """

    def __init__(
        self, slots: int, changed: threading.Condition, *, name: str, in_order: bool = True
    ) -> None:
        """
        Args:
            slots: the number of batches that may run at the same time.
            changed: notified when a slot becomes free.
            name: of the threads that wait for batches. They start with the first batch.
            in_order: whether one thread waits for all batches.
        """
        if slots < 1:
            raise ValueError(f"max_running_batches is {slots}; expected 1 or more")
        self.count = slots
        self._changed = changed
        self._in_order = in_order
        self._taken = list[Slot]()  # in the order of their start
        self._busy_since: float | None = None
        self._began = 0.0  # when a slot was taken while all were free
        self._busy_seconds = 0.0  # until all slots were free the last time
        self._running: SimpleQueue[tuple[RunningBatch, Slot] | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._main, name=name, daemon=True)
            for _ in range(1 if in_order else slots)
        ]

    @property
    def busy_since(self) -> float | None:
        """By time.monotonic(), the last start, progress or end of a batch; where batches end in any
        order, that of the batch whose progress is the oldest. None: no batch runs."""
        if self._in_order:
            return self._busy_since
        with self._changed:
            return min((slot.progress_at for slot in self._taken), default=None)

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
    def taken_count(self) -> int:
        """How many batches run."""
        return len(self._taken)

    @property
    def has_free_slot(self) -> bool:
        """Whether another batch may start."""
        return len(self._taken) < self.count

    def heartbeat(self) -> None:
        """Note that the batch that was started last makes progress. Without a running batch (in a
        warm-up) nothing happens."""
        with self._changed:
            if self._taken:
                self._busy_since = self._taken[-1].progress_at = time.monotonic()

    @contextmanager
    def taken(self) -> Iterator[Slot]:
        """Wait for a free slot and take it. If the body raises, the slot is free again."""
        with self._changed:
            self._changed.wait_for(lambda: self.has_free_slot)
            slot = Slot(time.monotonic())
            self._taken.append(slot)
            if len(self._taken) == 1:
                self._busy_since = self._began = slot.progress_at
        try:
            yield slot
        except BaseException:
            self._release(slot)
            raise

    def finish(self, batch: RunningBatch, slot: Slot) -> None:
        """Wait for a batch that holds a slot, free the slot and deliver the results.

        With one slot, and if there is nothing to wait for, the caller does so; otherwise another thread
        does, and this returns at once.
        """
        if self.count == 1 or batch.has_ended:
            self._finish(batch, slot)
            return
        for thread in self._threads:
            if not thread.is_alive():
                thread.start()
        self._running.put((batch, slot))

    def wait_until_free(self) -> bool:
        """Wait until no batch runs. False: none was running."""
        with self._changed:
            if self.all_free:
                return False
            self._changed.wait_for(lambda: self.all_free)
            return True

    def close(self) -> None:
        """Wait for the batches that run. No batch may start any more."""
        alive = [thread for thread in self._threads if thread.is_alive()]
        for _ in alive:
            self._running.put(None)
        for thread in alive:
            thread.join()

    def _main(self) -> None:
        while self._finish_next():
            pass

    def _finish_next(self) -> bool:
        """A function of its own, so that a batch's arrays are freed before the thread waits again."""
        running = self._running.get()
        if running is None:
            return False
        self._finish(*running)
        return True

    def _finish(self, batch: RunningBatch, slot: Slot) -> None:
        try:
            batch.wait()
        finally:
            self._release(slot)
        batch.deliver()

    def _release(self, slot: Slot) -> None:
        with self._changed:
            self._taken.remove(slot)
            self._busy_since = time.monotonic() if self._taken else None
            if not self._taken:
                self._busy_seconds += time.monotonic() - self._began
            self._changed.notify_all()
