"""What the batcher asks of a model, and what it offers to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

In = TypeVar("In", contravariant=True)
Out = TypeVar("Out", covariant=True)


class BatchContext(Protocol):
    """What a model may tell and ask while it runs a batch. Any thread may use it."""

    def heartbeat(self) -> None:
        """Tell that the batch makes progress, so that it does not count as hanging."""

    @property
    def has_backlog(self) -> bool:
        """Whether items wait for the next batch."""

    @property
    def is_alone(self) -> bool:
        """Whether no other batch runs beside the one that is being submitted, and too few items wait
        for all slots."""


class PendingBatch(Protocol[Out]):
    """A batch that has started."""

    def wait(self) -> Sequence[Out | Exception]:
        """Wait for the batch, in any thread, once: a result or an exception for each item, in order."""


class EndedBatch(PendingBatch[Out]):
    """A batch that had ended when `submit_batch` returned."""

    def __init__(self, results: Sequence[Out | Exception]) -> None:
        self._results = results

    def wait(self) -> Sequence[Out | Exception]:
        return self._results


class BatchModel(Protocol[In, Out]):
    """Runs batches of items."""

    def submit_batch(self, batch: Sequence[In], context: BatchContext) -> PendingBatch[Out]:
        """Start a batch, in the model's own thread.

        Raises an exception if the batch as a whole cannot run, for example because it does not fit the
        device's memory.
        """
