"""The model as the rest of the worker sees it: prepare images, and run batches of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from PIL import Image

from maskq.contract import FailureCode, Output
from maskq.contract.options import Mode
from maskq_worker.batching.interface import BatchContext, EndedBatch, PendingBatch
from maskq_worker.errors import PermanentError
from maskq_worker.model.device import DeviceGuard
from maskq_worker.model.inputs_and_outputs import ModelInfo, ModelInput, ModelOutput, no_class
from maskq_worker.model.pending import (
    FailedOutput,
    OneCoreBatch,
    PendingOutput,
    ReadyOutput,
    SegmenterBatch,
    StartedOutput,
    mask_of,
    mask_sizes,
    output_or_error,
    ready_or_error,
)
from maskq_worker.model.precision.rating import UNRATED, Rating

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from maskq_worker.model.backend import Backend
    from maskq_worker.model.preprocess.frame import ImageArea
    from maskq_worker.model.preprocess.preprocessor import Preprocessor
    from maskq_worker.model.views import MergedScores, View


class NoContext:
    """The `BatchContext` of a batch that runs outside a batcher."""

    has_backlog = False
    is_alone = True

    def heartbeat(self) -> None:
        """Nobody listens."""


class Segmenter:
    """One model on one device. Any thread may call `prepare`; the rest is for the model's thread."""

    def __init__(
        self,
        info: ModelInfo,
        backend: Backend,
        preprocessor: Preprocessor,
        *,
        max_batch_size: int,
        max_score_bytes: int,
        multiple: int | None = None,
        side_by_side: bool = False,
        rating: Rating = UNRATED,
        on_device_lost: Callable[[str, Exception], None] | None = None,
    ) -> None:
        """
        Args:
            max_batch_size: views in one forward.
            max_score_bytes: the memory for the merged scores of one image.
            multiple: px. The sides of an input may be any multiple of it; None: the network takes its
                trained size only.
            side_by_side: whether images are computed at the same time, each on a core, while several
                wait. The networks must allow it (`thread_safe_forwards`).
            rating: of the masks that `backend` makes.
            on_device_lost: called with the device and the error, in the thread that hears of it, when
                the GPU is lost to this process.
        """
        self.info = info
        self.backend = backend
        self.preprocessor = preprocessor
        self.max_batch_size = max_batch_size
        self.guard = DeviceGuard(info.device, on_device_lost)
        self._max_score_bytes = max_score_bytes
        self._multiple = multiple
        self._rating = rating
        self.is_side_by_side = side_by_side and all(
            one.thread_safe_forwards for one in self.backends
        )

    @property
    def backends(self) -> tuple[Backend, ...]:
        """The network that computes images, and the float32 one that may compute them again."""
        exact = self._rating.exact
        return (self.backend,) if exact is None else (self.backend, exact)

    def prepare(
        self,
        image: Image.Image,
        *,
        outputs: frozenset[Output] = frozenset(),
        mode: Mode = Mode.WHOLE,
    ) -> ModelInput:
        """Resize an image for the network.

        Args:
            image: RGB, upright, any size.
            outputs: what the job asks for.
            mode: which views of the image the network sees.

        Raises:
            PermanentError: `invalid_request` for a mode that this network does not support, or for the
                output `uncertain` if masks are not rated.
        """
        from maskq_worker.model.views import make_views

        self._check_mode(mode)
        self._check_outputs(outputs)
        if mode is Mode.WHOLE:
            self._check_shape(image)
        views = make_views(
            image,
            mode,
            self.preprocessor,
            size=self.info.input_size,
            multiple=self._multiple or 1,
            classes=len(self.info.labels),
            budget=self._max_score_bytes,
        )
        size = (image.height, image.width)
        notes = () if views.area is None else (_note(views.area, size, len(self.info.labels)),)
        return ModelInput(
            views,
            size,
            logits=Output.LOGITS in outputs,
            confidence=Output.CONFIDENCE in outputs,
            uncertain=Output.UNCERTAIN in outputs,
            notes=notes,
        )

    def weight(self, item: ModelInput) -> int:
        """The work of an image: forwards of the trained size, and more for larger views."""
        trained = math.prod(self.info.input_size)
        return sum(math.ceil(math.prod(v.pixels.shape[:2]) / trained) for v in item.views.each)

    def submit_batch(
        self, batch: Sequence[ModelInput], context: BatchContext
    ) -> PendingBatch[PendingOutput]:
        """Start the forwards of a batch.

        On a GPU this returns when all work is queued, and what is queued next follows without a pause.
        On a CPU the scores are computed when it returns, and `SegmenterBatch.wait` computes the masks
        or leaves them to the threads that wait for them. Where float32 may compute an image again, its
        mask is computed when this returns.

        Side by side, the batch has ended when this returns, computed by all cores, if it is alone or is
        more work than an image of the trained size. Otherwise `OneCoreBatch.wait` computes all of it.

        Args:
            batch: prepared images.
            context: hears a heartbeat after each forward, and says whether the batch is alone.

        Raises:
            PermanentError: `out_of_memory` if the batch does not fit the device's memory. Fewer images
                may fit.
        """
        if self.is_side_by_side:
            if context.is_alone or sum(map(self.weight, batch)) > 1:
                return EndedBatch(self._started_batch(batch, context).wait())
            return OneCoreBatch(lambda: self._whole(batch))
        return self._started_batch(batch, context)

    def run(self, batch: Sequence[ModelInput]) -> list[ModelOutput | Exception]:
        """Run a batch from start to end. An error of one image takes the place of its output."""
        outputs = self._started(batch, NoContext())
        with self.guard.loss():
            return [output_or_error(output, self.guard) for output in outputs]

    def close(self) -> None:
        """Free the device's memory. No other method may be called after it."""
        del self.backend, self._rating
        if self.info.device.startswith("cuda"):
            self.guard.free_memory()

    def _check_shape(self, image: Image.Image) -> None:
        """Refuse panoramas that an image processor with a kept aspect ratio makes too large."""
        frame = self.preprocessor.frame
        if frame.shortest_edge is None or frame.cropped:
            return
        width, height = frame.resized(*image.size)
        allowed = self._max_score_bytes // (8 * len(self.info.labels))
        if width * height > max(allowed, 4 * math.prod(frame.size)):
            raise PermanentError(
                FailureCode.INVALID_REQUEST,
                f"mode whole would resize this image of {image.width}x{image.height} px to "
                f"{width}x{height} px, as the model's image processor says; that is more than "
                "MASKQ_MAX_SCORE_BYTES allows: choose mode tiled",
            )

    def _check_mode(self, mode: Mode) -> None:
        info = self.info
        trained = "{1}x{0}".format(*info.input_size)
        if mode in (Mode.ASPECT, Mode.MULTISCALE) and self._multiple is None:
            raise PermanentError(
                FailureCode.INVALID_REQUEST,
                f"mode {mode} needs a network that takes other sizes than its own; {info.name} takes "
                f"{trained} only: choose whole or tiled",
            )
        if mode is Mode.ASPECT and not self.backend.supports_rectangles:
            raise PermanentError(
                FailureCode.INVALID_REQUEST,
                f"mode aspect needs a network that takes rectangles; {info.name} runs on backend "
                f"{info.backend}, which takes squares: choose whole, tiled or multiscale",
            )

    def _check_outputs(self, outputs: frozenset[Output]) -> None:
        if (
            Output.UNCERTAIN in outputs
            and self._rating.uncertain_below is None
            and not self.info.is_exact
        ):
            raise PermanentError(
                FailureCode.INVALID_REQUEST,
                f"output uncertain needs a worker with MASKQ_PRECISION; {self.info.name} is computed "
                f"in {self.info.dtype} without a bound for uncertain pixels: ask for other outputs",
            )

    def _started(self, batch: Sequence[ModelInput], context: BatchContext) -> list[PendingOutput]:
        """Run the forwards, and start the masks."""
        with self.guard.loss():
            rating = self._rating
            outputs = self._started_by(self.backend, batch, context, self.info)
            if rating.exact is None:
                return outputs
            return self._certified(batch, outputs, context, rating.exact)

    def _started_batch(self, batch: Sequence[ModelInput], context: BatchContext) -> SegmenterBatch:
        return SegmenterBatch(
            self._started(batch, context),
            context,
            self.guard,
            callers_may_compute=self.backend.thread_safe_masks,
            masks=mask_sizes(batch),
        )

    def _whole(self, batch: Sequence[ModelInput]) -> list[PendingOutput | Exception]:
        """Forwards and masks of a batch."""
        outputs = self._started(batch, NoContext())
        with self.guard.loss():
            return [ready_or_error(output, self.guard) for output in outputs]

    def _certified(
        self,
        batch: Sequence[ModelInput],
        outputs: Sequence[PendingOutput],
        context: BatchContext,
        exact: Backend,
    ) -> list[PendingOutput]:
        """Wait for the outputs, and let float32 compute again those that the rating refuses."""
        made = [output_or_error(output, self.guard) for output in outputs]
        refused = [index for index, one in enumerate(made) if self._rating.refuses(one)]
        certified: list[PendingOutput] = [
            FailedOutput(one) if isinstance(one, Exception) else ReadyOutput(one) for one in made
        ]
        info = replace(self.info, backend=exact.name, dtype="float32")
        again = self._started_by(exact, [batch[index] for index in refused], context, info)
        for index, output in zip(refused, again, strict=True):
            certified[index] = output
        return certified

    def _started_by(
        self,
        backend: Backend,
        batch: Sequence[ModelInput],
        context: BatchContext,
        info: ModelInfo,
    ) -> list[PendingOutput]:
        """Run the forwards of one network, and start the masks. info: of that network."""
        merged = self._merged(backend, batch, context)
        return [
            self._start_mask(backend, item, scores, info)
            for item, scores in zip(batch, merged, strict=True)
        ]

    def _merged(
        self, backend: Backend, batch: Sequence[ModelInput], context: BatchContext
    ) -> list[MergedScores]:
        """The scores of every image from all its views. Views of one size share forwards."""
        from maskq_worker.model.views import MergedScores

        merged = [MergedScores(item.views) for item in batch]
        by_size: dict[tuple[int, ...], list[tuple[MergedScores, View]]] = {}
        for item, one in zip(batch, merged, strict=True):
            for view in item.views.each:
                by_size.setdefault(view.pixels.shape, []).append((one, view))
        for waiting in by_size.values():
            for start in range(0, len(waiting), self.max_batch_size):
                some = waiting[start : start + self.max_batch_size]
                scores = self._forward(backend, [view.pixels for _, view in some])
                with self.guard.memory_errors("the merged scores", "lower MASKQ_MAX_SCORE_BYTES"):
                    for (one, view), logits in zip(some, scores, strict=True):
                        one.add(view, logits)
                context.heartbeat()
        return merged

    def _forward(self, backend: Backend, pixels: Sequence[NDArray[np.uint8]]) -> torch.Tensor:
        """pixels: N times (H, W, 3) uint8. Returns (N, C, h, w) float32 on the device."""
        advice = "lower MASKQ_MAX_BATCH_SIZE, or give the worker a device of its own"
        with self.guard.memory_errors(f"a batch of {len(pixels)}", advice):
            return backend.forward(pixels)

    def _start_mask(
        self, backend: Backend, item: ModelInput, merged: MergedScores, info: ModelInfo
    ) -> PendingOutput:
        """Raises only PermanentError `out_of_memory`: the batch may run in parts."""
        area = item.views.area
        try:
            with self.guard.memory_errors(mask_of(item)):
                mask = backend.start_mask(
                    merged.scores(),
                    (area.height, area.width) if area else item.size,
                    confidence=item.confidence,
                    logits=item.logits,
                    uncertain_below=None if info.is_exact else self._rating.uncertain_below,
                )
        except PermanentError:
            raise
        except Exception as error:  # noqa: BLE001 - raised by the output's wait()
            return FailedOutput(error)
        return StartedOutput(item, mask, info, self.guard)


def _note(area: ImageArea, size: tuple[int, int], classes: int) -> str:
    return (
        f"the model's image processor crops: the mask is of {area.width}x{area.height} of "
        f"{size[1]}x{size[0]} px, from the middle, and {no_class(classes)} elsewhere, which means no "
        "class; mode tiled covers the whole image"
    )
