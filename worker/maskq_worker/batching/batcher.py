"""Micro-batching: one thread owns the model and takes, whenever it is free, what is ready.

No timer: an item never waits for company, and under load batches grow by themselves.
"""

from __future__ import annotations

import logging
import threading
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Generic, TypeVar

from maskq_worker.batching.batch_slots import InFlight

logger = logging.getLogger(__name__)

In = TypeVar("In")
Out = TypeVar("Out")


class BatcherClosed(RuntimeError):
    """The batcher takes no items, or was closed before it ran this one."""


class MicroBatcher(Generic[In, Out]):
    """Runs items in batches of 1 to `max_batch_size`, first come first served.

    launch: begins a batch; what it returns waits for its end and gives one result or exception per
        item, in order. If `launch` raises for several items, they are launched again in halves, down
        to one: an error stays with the item that caused it, and a batch that is only too large for the
        device passes in parts.
    at_once: batches that may have begun and not ended. With 1 the thread that launches a batch waits
        for it, too. With more another thread waits, and a batch that is full is launched behind the
        one that is not done, so that a device goes on without a pause. One that is not full stays open
        until nothing is left to wait for.
    weight: of an item, where one is the work of several. A batch weighs at most `max_batch_size`,
        but an item that alone weighs more still runs, alone.
    initialise: called first in the thread that will call `launch`; what it raises, `start` raises.
    on_batch: called in that thread with the size of each batch before it is launched.
    """

    def __init__(
        self,
        launch: Callable[[Sequence[In]], Callable[[], Sequence[Out | Exception]]],
        *,
        max_batch_size: int,
        name: str,
        at_once: int = 1,
        weight: Callable[[In], int] = lambda _: 1,
        initialise: Callable[[], None] | None = None,
        on_batch: Callable[[int], None] | None = None,
    ) -> None:
        if max_batch_size < 1:
            raise ValueError(f"max_batch_size is {max_batch_size}; expected 1 or more")
        self._launch = launch
        self._max_batch_size = max_batch_size
        self._weight = weight
        self._initialise = initialise
        self._on_batch = on_batch
        self._waiting: deque[tuple[In, Future[Out]]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._died = False
        self._ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)
        self._in_flight = InFlight(at_once, self._changed, name=f"{name}-ends")

    def start(self) -> None:
        """Start the thread; returns when it is ready for items. Raises what `initialise` raises."""
        if self._closed:
            raise BatcherClosed(f"{self._thread.name} was closed before it started")
        self._thread.start()
        self._ready.result()

    def submit(self, item: In) -> Future[Out]:
        """Queue an item. Its future can be cancelled until its batch begins."""
        future: Future[Out] = Future()
        with self._changed:
            if self._closed or not self._thread.is_alive():
                raise BatcherClosed(f"{self._thread.name} is not running")
            self._waiting.append((item, future))
            self._changed.notify_all()
        return future

    def crowded(self) -> bool:
        """Whether items wait for the batch in progress to end."""
        return bool(self._waiting)

    def busy_since(self) -> float | None:
        """When the batch in progress began, or last made progress, by time.monotonic(); None: idle."""
        return self._in_flight.busy_since

    def died(self) -> bool:
        """Whether its thread ended though nobody closed it: nothing will run here any more."""
        return self._died

    def progress(self) -> None:
        """For a batch of several forwards: one of them is done. Call it from within `launch`."""
        self._in_flight.progress()

    def close(self, *, drain: bool = True, timeout_s: float | None = None) -> None:
        """Take no more items, and wait up to `timeout_s` (None: as long as needed) for the thread.

        drain: whether items that wait are still run. Those that are not run by then fail with
        BatcherClosed. May be called more than once, and by the thread itself.
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
            self._in_flight.close()

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
        """Launch the next batch; False when closed and empty.

        A function of its own, so that a batch's arrays are freed before the thread waits again.
        """
        batch = self._take()
        if batch is None:
            return False
        try:
            if batch:
                self._launch_batch(batch)
        except BaseException:  # SystemExit and the like end the thread, but not without a word
            for _, future in batch:
                if not future.done():
                    future.set_exception(BatcherClosed(f"{self._thread.name} died"))
            raise
        return True

    def _take(self) -> list[tuple[In, Future[Out]]] | None:
        """What is ready, at most a batch; it may be empty. None when closed and nothing waits."""
        with self._changed:
            self._changed.wait_for(self._may_take)
            if not self._waiting:
                return None
            batch: list[tuple[In, Future[Out]]] = []
            room = self._max_batch_size
            while self._waiting and room > 0:
                weight = self._weight(self._waiting[0][0])
                if batch and weight > room:
                    break
                item, future = self._waiting.popleft()
                if future.set_running_or_notify_cancel():
                    batch.append((item, future))
                    room -= weight
            return batch

    def _may_take(self) -> bool:
        if not self._in_flight:
            return bool(self._waiting) or self._closed
        # More could still join it while the device computes, unless it is full.
        full = sum(self._weight(item) for item, _ in self._waiting) >= self._max_batch_size
        return full and self._in_flight.has_room

    def _launch_batch(self, batch: list[tuple[In, Future[Out]]]) -> None:
        self._report(len(batch))
        items = [item for item, _ in batch]
        try:
            with self._in_flight.beginning():
                ending = self._launch(items)
        except Exception as error:  # noqa: BLE001 - goes to the item's own future
            self._launch_again(batch, error)
            return
        self._in_flight.end(partial(self._ended, batch, ending))

    def _launch_again(self, batch: list[tuple[In, Future[Out]]], error: Exception) -> None:
        _let_go(error)
        if (
            self._in_flight.await_none()
        ):  # there were others on the device: perhaps it only lacked room
            self._launch_batch(batch)
            return
        if len(batch) == 1:
            batch[0][1].set_exception(error)
            return
        logger.warning("a batch of %d failed (%r); it runs again in halves", len(batch), error)
        half = len(batch) // 2
        self._launch_batch(batch[:half])
        self._launch_batch(batch[half:])

    def _ended(
        self,
        batch: list[tuple[In, Future[Out]]],
        ending: Callable[[], Sequence[Out | Exception]],
    ) -> Callable[[], None]:
        """Wait for a batch; what is returned hands its results out."""
        try:
            results = ending()
            if len(results) != len(batch):
                raise RuntimeError(f"{len(batch)} items gave {len(results)} results")
        except Exception as error:  # noqa: BLE001 - goes to the futures
            results = [error] * len(batch)
        except BaseException as error:  # noqa: BLE001 - it must not end the thread that waits
            results = [BatcherClosed(f"a batch was cut off ({error!r})")] * len(batch)
        return partial(_hand_out, batch, results)

    def _report(self, size: int) -> None:
        if self._on_batch is None:
            return
        try:
            self._on_batch(size)
        except Exception:
            logger.exception("on_batch failed; the batch goes on")

    def _fail_waiting(self) -> None:
        with self._changed:
            waiting, self._waiting = self._waiting, deque()
        for _, future in waiting:
            if future.set_running_or_notify_cancel():
                future.set_exception(BatcherClosed(f"{self._thread.name} was closed first"))


def _let_go(error: BaseException | None) -> None:
    """Of what the functions that raised it held: else the device's memory is still taken when they run
    again."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _hand_out(batch: Sequence[tuple[In, Future[Out]]], results: Sequence[Out | Exception]) -> None:
    for (_, future), result in zip(batch, results, strict=True):
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)
