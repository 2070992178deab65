"""Micro-batching: one thread owns the model and runs what is ready as one batch.

There is no timer: an item never waits for others, and under load batches grow by themselves.

The way of one item: `submit` queues it; the model's thread takes a batch in `_take` and starts it in
`_start`; `BatchSlots` waits for the batch and delivers its results to the futures.
"""

from __future__ import annotations

import logging
import threading
import traceback
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

from maskq_worker.batching.batch_slots import BatchSlots
from maskq_worker.batching.errors import BatcherClosed
from maskq_worker.batching.interface import BatchModel
from maskq_worker.batching.running_batch import Batch, Entry, OnStart, StartedBatch

logger = logging.getLogger(__name__)

In = TypeVar("In")
Out = TypeVar("Out")


class MicroBatcher(Generic[In, Out]):
    """Runs items in batches of 1 to `max_batch_size`, first come first served.

    It is the `BatchContext` of the batches that it submits.
    """

    def __init__(
        self,
        model: BatchModel[In, Out],
        *,
        max_batch_size: int,
        name: str,
        max_running_batches: int = 1,
        side_by_side: bool = False,
        weight: Callable[[In], int] = lambda _: 1,
        initialise: Callable[[], None] | None = None,
        on_batch: Callable[[int], None] | None = None,
    ) -> None:
        """
        Args:
            model: runs the batches. If `submit_batch` raises for several items, they are submitted
                again in halves, down to one: an error stays with the item that caused it, and a batch
                that does not fit the device runs in parts.
            name: of the model's thread.
            max_running_batches: the number of batches that may run at the same time. With 1 the
                model's thread waits for its batch. With more another thread waits, and a full batch is
                submitted behind the running one, so that the device has no pause. A batch that is not
                full stays open until no batch runs.
            side_by_side: whether a thread of its own waits for each running batch, because a batch is
                computed by the thread that waits for it. They may end in any order.
            weight: the work of an item, 1 or more. A batch weighs at most `max_batch_size`; an item
                that alone weighs more runs alone.
            initialise: called first in the model's thread. `start` raises what it raises.
            on_batch: called in the model's thread with the size of each batch before it is submitted.
        """
        if max_batch_size < 1:
            raise ValueError(f"max_batch_size is {max_batch_size}; expected 1 or more")
        self._model = model
        self._max_batch_size = max_batch_size
        self._weight = weight
        self._initialise = initialise
        self._on_batch = on_batch
        self._waiting: deque[Entry[In, Out]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._died = False
        self._started = 0  # batches
        self._ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)
        self._slots = BatchSlots(
            max_running_batches, self._changed, name=f"{name}-ends", in_order=not side_by_side
        )

    def start(self) -> None:
        """Start the thread, and return when it is ready for items. Raises what `initialise` raises."""
        if self._closed:
            raise BatcherClosed(f"{self._thread.name} was closed before it started")
        self._thread.start()
        self._ready.result()

    def submit(self, item: In, on_start: OnStart | None = None) -> Future[Out]:
        """Queue an item. Its future can be cancelled until its batch is taken.

        on_start: called in the model's thread before the item's batch starts.
        """
        entry: Entry[In, Out] = Entry(item, Future(), on_start)
        with self._changed:
            if self._closed or not self._thread.is_alive():
                raise BatcherClosed(f"{self._thread.name} is not running")
            self._waiting.append(entry)
            self._changed.notify_all()
        return entry.future

    @property
    def has_backlog(self) -> bool:
        """Whether items wait for the next batch."""
        return bool(self._waiting)

    @property
    def is_alone(self) -> bool:
        """Whether no other batch runs beside the one that is being submitted, and too few items wait
        for all slots: one after another, on all cores, they end sooner."""
        return self._slots.taken_count == 1 and len(self._waiting) < max(1, self._slots.count - 1)

    def heartbeat(self) -> None:
        """Note that the running batch makes progress: a batch may have several forwards."""
        self._slots.heartbeat()

    def busy_since(self) -> float | None:
        """The start or last progress of the running batch, by time.monotonic(); None: idle."""
        return self._slots.busy_since

    @property
    def busy_seconds(self) -> float:
        """Seconds since the start in which at least one batch ran."""
        return self._slots.busy_seconds

    def died(self) -> bool:
        """Whether the model's thread ended without `close`: nothing runs here any more."""
        return self._died

    def close(self, *, drain: bool = True, timeout_s: float | None = None) -> None:
        """Take no more items, and wait for the model's thread.

        May be called more than once, and by the model's thread itself.

        Args:
            drain: whether waiting items still run. Those that do not run fail with BatcherClosed.
            timeout_s: the longest wait; None: no limit.
        """
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if not drain:
            self._fail_waiting()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)
        self._fail_waiting()

    def _main(self) -> None:
        try:
            if not self._became_ready():
                return
            while self._step():
                pass
        except BaseException:
            self._died = True
            raise
        finally:  # however the thread ends, nobody may wait for it for ever
            self._closed = True
            self._fail_waiting()
            self._slots.close()

    def _became_ready(self) -> bool:
        try:
            if self._initialise:
                self._initialise()
        except BaseException as error:  # noqa: BLE001 - raised by start()
            self._closed = True
            self._ready.set_exception(error)
            return False
        self._ready.set_result(None)
        return True

    def _step(self) -> bool:
        """Start the next batch; False: closed, and no item waits.

        A function of its own, so that a batch's arrays are freed before the thread waits again.
        """
        batch = self._take()
        if batch is None:
            return False
        try:
            if batch:
                self._start(batch)
        except BaseException:  # SystemExit and the like end the thread: the waiters must hear of it
            batch.fail_unfinished(BatcherClosed(f"{self._thread.name} died"))
            raise
        return True

    def _take(self) -> Batch[In, Out] | None:
        """Wait for items and take a batch of them, perhaps empty. None: closed, and no item waits."""
        with self._changed:
            self._changed.wait_for(self._may_take)
            if not self._waiting:
                return None
            batch: list[Entry[In, Out]] = []
            room = self._max_batch_size
            while self._waiting and room > 0:
                weight = self._weight(self._waiting[0].item)
                if batch and weight > room:
                    break
                entry = self._waiting.popleft()
                if entry.future.set_running_or_notify_cancel():
                    batch.append(entry)
                    room -= weight
            return Batch(batch)

    def _may_take(self) -> bool:
        if self._slots.all_free:
            return bool(self._waiting) or self._closed
        # While another batch runs, a batch that is not full stays open for more items.
        full = sum(self._weight(entry.item) for entry in self._waiting) >= self._max_batch_size
        return full and self._slots.has_free_slot

    def _start(self, batch: Batch[In, Out]) -> None:
        self._report(batch)
        try:
            with self._slots.taken() as slot:
                pending = self._model.submit_batch(batch.items, self)
        except Exception as error:  # noqa: BLE001 - goes to the item's own future
            self._start_again(batch, error)
            return
        self._slots.finish(StartedBatch(batch, pending), slot)

    def _start_again(self, batch: Batch[In, Out], error: Exception) -> None:
        _free_frames(error)
        if self._slots.wait_until_free():  # beside another batch it may only have lacked memory
            self._start(batch)
            return
        if len(batch) == 1:
            batch.fail_unfinished(error)
            return
        logger.warning("a batch of %d failed (%r); it runs again in halves", len(batch), error)
        for half in batch.halves():
            self._start(half)

    def _report(self, batch: Batch[In, Out]) -> None:
        self._started += 1
        try:
            batch.started(self._started)
            if self._on_batch:
                self._on_batch(len(batch))
        except Exception:
            logger.exception("the report of a batch failed; it runs all the same")

    def _fail_waiting(self) -> None:
        with self._changed:
            waiting, self._waiting = self._waiting, deque()
        for entry in waiting:
            if entry.future.set_running_or_notify_cancel():
                entry.future.set_exception(BatcherClosed(f"{self._thread.name} was closed first"))


def _free_frames(error: BaseException | None) -> None:
    """Free the local variables of the functions that raised an error. They may hold most of the
    device's memory, which the next try needs."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
