"""What the model has started and not ended: a batch, and the output of each of its images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from maskq.contract import FailureCode
from maskq_worker.batching.interface import BatchContext, PendingBatch
from maskq_worker.errors import PermanentError
from maskq_worker.model.device import DeviceGuard
from maskq_worker.model.inputs_and_outputs import ModelInfo, ModelInput, ModelOutput

if TYPE_CHECKING:
    from maskq_worker.model.backend import PendingMask

_SMALL: Final = 2**16  # pixels of a mask that is computed faster by one core than by several
_LARGE: Final = 2**21  # pixels of a mask that takes as long as a forward, and more


class MaskSizes(Enum):
    """How large the masks of a batch are."""

    SMALL = auto()  # all of them
    LARGE = auto()  # one at least
    OTHER = auto()


class PendingOutput(Protocol):
    """The output of one image after its forward."""

    def wait(self) -> ModelOutput:
        """Wait for the output: in any thread, once.

        Raises:
            PermanentError: `out_of_memory` for a mask that does not fit the device, `internal` for
                scores that are NaN or infinite.
        """


@dataclass(frozen=True, slots=True)
class StartedOutput:
    """A `PendingOutput` whose mask the backend has started."""

    item: ModelInput
    mask: PendingMask
    info: ModelInfo
    guard: DeviceGuard

    def wait(self) -> ModelOutput:
        with self.guard.memory_errors(mask_of(self.item)):
            output = self.mask.wait()
        if output is None:
            raise PermanentError(
                FailureCode.INTERNAL,
                f"{self.info.name} gave NaN or infinite scores for this image in "
                f"{self.info.dtype}: try MASKQ_DTYPE=float32",
            )
        output = replace(output, info=self.info)
        area = self.item.views.area
        if area is not None:
            output = output.extended(area, self.item.size, len(self.info.labels))
        if self.item.uncertain and output.uncertain is None:  # float32: none is
            output = replace(output, uncertain=np.zeros(self.item.size, np.bool_))
        return output


@dataclass(frozen=True, slots=True)
class FailedOutput:
    """A `PendingOutput` whose mask could not be started."""

    error: Exception

    def wait(self) -> ModelOutput:
        raise self.error


@dataclass(frozen=True, slots=True)
class ReadyOutput:
    """A `PendingOutput` that is computed already."""

    output: ModelOutput

    def wait(self) -> ModelOutput:
        return self.output


@dataclass(frozen=True, slots=True)
class OneCoreOutput:
    """A `PendingOutput` that the caller's thread computes on one core.

    The other cores compute the next forward meanwhile. And if several threads have OpenMP workers, all
    workers sleep between their tasks instead of spinning for the next one.
    """

    started: PendingOutput

    def wait(self) -> ModelOutput:
        compute_on_one_core()
        return self.started.wait()


class SegmenterBatch(PendingBatch[PendingOutput]):
    """A batch whose forwards are queued on the device."""

    def __init__(
        self,
        outputs: Sequence[PendingOutput],
        context: BatchContext,
        guard: DeviceGuard,
        *,
        callers_may_compute: bool,
        masks: MaskSizes,
    ) -> None:
        """
        Args:
            outputs: of the batch's images, in order.
            callers_may_compute: whether several threads may wait for outputs at once.
            masks: how large they are.
        """
        self._outputs = outputs
        self._context = context
        self._guard = guard
        self._callers_may_compute = callers_may_compute
        self._masks = masks

    def wait(self) -> list[PendingOutput | Exception]:
        """Wait for the device, in any thread; an error of one image takes its place.

        On a CPU small masks are left to the callers' threads, and so are large ones if another batch
        waits for the model. Others are computed here on all cores: a mask beside a forward holds it up
        for longer than it takes itself.
        """
        beside = self._masks is MaskSizes.SMALL or (
            self._masks is MaskSizes.LARGE and self._context.has_backlog
        )
        if self._callers_may_compute and beside:
            return [OneCoreOutput(output) for output in self._outputs]
        with self._guard.loss():
            return [ready_or_error(output, self._guard) for output in self._outputs]


class OneCoreBatch(PendingBatch[PendingOutput]):
    """A batch that the waiting thread computes on one core, beside other batches.

    The threads of one forward wait for one another after each step. Where something else computes
    beside it, all wait for the one that shares its core. With an image for each core nobody waits.
    """

    def __init__(self, compute: Callable[[], list[PendingOutput | Exception]]) -> None:
        self._compute = compute

    def wait(self) -> list[PendingOutput | Exception]:
        compute_on_one_core()
        return self._compute()


def compute_on_one_core() -> None:
    """Let torch compute with this thread alone, from now on."""
    import torch

    if torch.get_num_threads() != 1:
        torch.set_num_threads(1)  # of this thread, and of threads that have not used torch yet


def ready_or_error(output: PendingOutput, guard: DeviceGuard) -> PendingOutput | Exception:
    """Wait for an output. Raises only an error after which the device is lost."""
    computed = output_or_error(output, guard)
    return computed if isinstance(computed, Exception) else ReadyOutput(computed)


def output_or_error(output: PendingOutput, guard: DeviceGuard) -> ModelOutput | Exception:
    """Wait for an output. Raises only an error after which the device is lost."""
    try:
        return output.wait()
    except Exception as error:
        if guard.is_lost(error):
            raise
        return error


def mask_sizes(batch: Sequence[ModelInput]) -> MaskSizes:
    pixels = [height * width for height, width in (item.size for item in batch)]
    if max(pixels) <= _SMALL:
        return MaskSizes.SMALL
    return MaskSizes.LARGE if max(pixels) > _LARGE else MaskSizes.OTHER


def mask_of(item: ModelInput) -> str:
    """The mask of an image, as errors name it."""
    height, width = item.size
    return f"the mask of {width}x{height} px"
