"""A batch of items with the futures of their results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Generic, TypeVar

from maskq_worker.batching.errors import BatcherClosed
from maskq_worker.batching.interface import EndedBatch, PendingBatch

In = TypeVar("In")
Out = TypeVar("Out")


OnStart = Callable[[int, int], None]
"""Told the number of the batch that an item starts in, and how many items it has."""


@dataclass(frozen=True, slots=True)
class Entry(Generic[In, Out]):
    """An item, and the future of its result."""

    item: In
    future: Future[Out]
    on_start: OnStart | None = None


class Batch(Generic[In, Out]):
    """Items that run together."""

    def __init__(self, entries: Sequence[Entry[In, Out]]) -> None:
        self._entries = entries

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def items(self) -> list[In]:
        """The items, in order."""
        return [entry.item for entry in self._entries]

    def started(self, number: int) -> None:
        """Tell each item that its batch starts. It may start again, with fewer items."""
        for entry in self._entries:
            if entry.on_start:
                entry.on_start(number, len(self._entries))

    def halves(self) -> tuple[Batch[In, Out], Batch[In, Out]]:
        """Two batches with the same items, in the same order."""
        half = len(self._entries) // 2
        return Batch(self._entries[:half]), Batch(self._entries[half:])

    def deliver(self, results: Sequence[Out | Exception]) -> None:
        """Set the futures. results: one for each item, in order."""
        for entry, result in zip(self._entries, results, strict=True):
            if isinstance(result, Exception):
                entry.future.set_exception(result)
            else:
                entry.future.set_result(result)

    def fail_unfinished(self, error: Exception) -> None:
        """Set the error on all futures without a result."""
        for entry in self._entries:
            if not entry.future.done():
                entry.future.set_exception(error)


class StartedBatch(Generic[In, Out]):
    """A batch that the model has started. It is a `RunningBatch`."""

    def __init__(self, batch: Batch[In, Out], pending: PendingBatch[Out]) -> None:
        self.has_ended = isinstance(pending, EndedBatch)
        self._batch = batch
        self._pending = pending
        self._results: Sequence[Out | Exception] = ()

    def wait(self) -> None:
        """Wait for the model, and keep its results. An error of the whole batch goes to each item."""
        size = len(self._batch)
        try:
            results = self._pending.wait()
            if len(results) != size:
                raise RuntimeError(f"{size} items gave {len(results)} results")
        except Exception as error:  # noqa: BLE001 - goes to the futures
            results = [error] * size
        except BaseException as error:  # noqa: BLE001 - it must not end the thread that waits
            results = [BatcherClosed(f"a batch was cut off ({error!r})")] * size
        self._results = results

    def deliver(self) -> None:
        """Set the futures of the items."""
        self._batch.deliver(self._results)
