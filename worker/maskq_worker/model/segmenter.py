"""The model as the rest of the worker sees it: prepare, run, test itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from PIL import Image, ImageDraw

from maskq.contract import FailureCode, Output
from maskq.contract.options import Mode
from maskq_worker.errors import PermanentError
from maskq_worker.model.checkpoint.folder import CONFIG, Checkpoint, read_json, resolve
from maskq_worker.model.checkpoint.labels import read_labels
from maskq_worker.model.errors import ModelError
from maskq_worker.model.families import Family, family_of
from maskq_worker.model.output import ModelOutput, void
from maskq_worker.process.capacity import capacity_of

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from maskq_worker.model.backends import TransformersBackend
    from maskq_worker.model.preprocess import Place, Preprocessor
    from maskq_worker.model.views import Merged, View, Views
    from maskq_worker.settings import WorkerSettings


_NO_MEMORY: Final = ("can't allocate memory", "CUDA error: out of memory", "STATUS_ALLOC_FAILED")
_SMALL: Final = 2**16  # pixels of a mask that no second core is woken for


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What is served, as it is announced and stands in results."""

    name: str  # as served: MASKQ_MODEL_NAME, else a hub id, `demo` or a folder's name
    revision: str  # commit of the hub, else `sha256:…` of the weights
    labels: tuple[str, ...]  # by class id
    backend: str  # transformers | cpu | cuda | openvino
    device: str  # cpu | cuda:0
    dtype: str  # float32 | float16 | bfloat16 | int8
    input_size: tuple[int, int]  # (height, width) px that the network was trained on
    preprocessing: Mapping[str, Any]  # of images, for the network


@dataclass(frozen=True, slots=True)
class ModelInput:
    """One image, ready for the network."""

    views: Views  # what the network looks at
    size: tuple[int, int]  # (H, W) px of the image, and so of its mask
    logits: bool = False  # whether the caller wants the scores too
    confidence: bool = False  # and how sure of each pixel the network is
    notes: tuple[str, ...] = ()  # what whoever reads the mask has to know


@dataclass(frozen=True, slots=True)
class PendingOutput:
    """One image after its forward.

    output: for any thread, once. Raises PermanentError `out_of_memory` for a mask that does not fit
    the device, `internal` for scores that are no numbers.
    """

    output: Callable[[], ModelOutput]


class Segmenter:
    """One model on one device. `prepare`, and what `launch` returns, are for any thread; the rest is
    for the model's own."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        backend: TransformersBackend,
        preprocessor: Preprocessor,
        *,
        max_batch_size: int,
        max_score_bytes: int,
        multiple: int | None = None,
        name: str | None = None,
    ) -> None:
        """multiple: what sides of an input are multiples of, px; None: the network takes its trained
        size only. name: what it is served as, if not by the checkpoint's own."""
        # After each forward, in the model's thread; once the card is lost, in whichever hears of it.
        self.on_forward: Callable[[], None] = lambda: None
        self.on_device_lost: Callable[[Exception], None] = lambda error: None
        # Whether the model is wanted for another forward already.
        self.crowded: Callable[[], bool] = lambda: False
        self._max_score_bytes = max_score_bytes
        self._backend = backend
        self._preprocessor = preprocessor
        self._max_batch_size = max_batch_size
        self._multiple = multiple
        self.info = ModelInfo(
            name=name or checkpoint.name,
            revision=checkpoint.revision or f"sha256:{checkpoint.sha256}",
            labels=read_labels(checkpoint.directory),
            backend=backend.name,
            device=str(backend.device),
            dtype=str(backend.dtype).removeprefix("torch."),
            input_size=preprocessor.frame.size,
            preprocessing=preprocessor.description,
        )

    def prepare(
        self,
        image: Image.Image,
        *,
        outputs: frozenset[Output] = frozenset(),
        mode: Mode = Mode.WHOLE,
    ) -> ModelInput:
        """image: RGB, upright, any size. outputs, mode: what the job asks for.

        Raises PermanentError `invalid_request` for a mode that this network cannot do.
        """
        from maskq_worker.model.views import look

        self._check_mode(mode)
        if mode is Mode.WHOLE:
            self._check_shape(image)
        views = look(
            image,
            mode,
            self._preprocessor,
            size=self.info.input_size,
            multiple=self._multiple or 1,
            classes=len(self.info.labels),
            budget=self._max_score_bytes,
        )
        size = (image.height, image.width)
        notes = () if views.place is None else (_note(views.place, size, len(self.info.labels)),)
        return ModelInput(
            views, size, Output.LOGITS in outputs, Output.CONFIDENCE in outputs, notes
        )

    def _check_shape(self, image: Image.Image) -> None:
        """An image processor that keeps the ratio makes a panorama as large as it is long."""
        frame = self._preprocessor.frame
        if frame.shortest_edge is None or frame.cropped:
            return
        width, height = frame.resized(*image.size)
        held = self._max_score_bytes // (8 * len(self.info.labels))
        if width * height > max(held, 4 * math.prod(frame.size)):
            raise PermanentError(
                FailureCode.INVALID_REQUEST,
                f"mode whole would show the network {width}x{height} px of this image of "
                f"{image.width}x{image.height}, as the model's image processor says; that is more "
                "than MASKQ_MAX_SCORE_BYTES holds: choose mode tiled",
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
        if mode is Mode.ASPECT and not self._backend.supports_rectangles:
            raise PermanentError(
                FailureCode.INVALID_REQUEST,
                f"mode aspect needs a network that takes rectangles; {info.name} runs on backend "
                f"{info.backend}, which takes squares: choose whole, tiled or multiscale",
            )

    def launch(self, batch: Sequence[ModelInput]) -> Callable[[], list[PendingOutput | Exception]]:
        """One forward for all; what is returned waits, in any thread, until the device is done.

        On a GPU all work is queued when this returns, and what is queued next follows without a pause.
        On a CPU masks are left to do: then and there, or, where it is `crowded` or images are small, by
        those who ask (not those of transformers' own backend). What goes wrong with one image's mask is
        its own error.

        Raises PermanentError `out_of_memory` if the forward does not fit the device: a batch of
        several is then launched again in parts.
        """
        small = all(height * width <= _SMALL for height, width in (item.size for item in batch))
        return partial(self._ended, self._launched(batch), small)

    def run(self, batch: Sequence[ModelInput]) -> list[ModelOutput | Exception]:
        """All of it, here and now."""
        launched = self._launched(batch)
        with self._device_watched():
            return [_output_or_error(one) for one in launched]

    def _launched(self, batch: Sequence[ModelInput]) -> list[PendingOutput]:
        with self._device_watched():
            merged = self._merged(batch)
            answers = [self._begun(item, one) for item, one in zip(batch, merged, strict=True)]
        return [
            PendingOutput(partial(self._output, item, answer))
            for item, answer in zip(batch, answers, strict=True)
        ]

    def _ended(
        self, batch: Sequence[PendingOutput], small: bool
    ) -> list[PendingOutput | Exception]:
        if self._backend.thread_safe_masks and (small or self.crowded()):
            return [PendingOutput(partial(_in_one_thread, one.output)) for one in batch]
        with self._device_watched():
            return [_computed(one) for one in batch]

    @contextmanager
    def _device_watched(self) -> Iterator[None]:
        """Tells of a card that is lost."""
        from maskq_worker.model.cuda.faults import is_fault

        try:
            yield
        except Exception as error:
            if is_fault(error):
                self.on_device_lost(error)
            raise

    def _merged(self, batch: Sequence[ModelInput]) -> list[Merged]:
        """The scores of every image, from all its views; views of one size share forwards."""
        from maskq_worker.model.views import Merged

        merged = [Merged(item.views) for item in batch]
        by_size: dict[tuple[int, ...], list[tuple[Merged, View]]] = {}
        for item, one in zip(batch, merged, strict=True):
            for view in item.views.each:
                by_size.setdefault(view.pixels.shape, []).append((one, view))
        for waiting in by_size.values():
            for start in range(0, len(waiting), self._max_batch_size):
                some = waiting[start : start + self._max_batch_size]
                scores = self._forward([view.pixels for _, view in some])
                with self._fitting("the merged scores", "lower MASKQ_MAX_SCORE_BYTES"):
                    for (one, view), logits in zip(some, scores, strict=True):
                        one.add(view, logits)
                self.on_forward()
        return merged

    def warm_up(self) -> None:
        """On a GPU, run once as jobs will, and with a full batch, which takes the memory it needs.

        On a CPU the self-test does as much. Raises ModelError for what does not run.
        """
        from maskq_worker.model.cuda.faults import is_fault

        try:
            self._warm_up()
        except (PermanentError, RuntimeError) as error:
            if is_fault(error):
                raise  # another process may have more luck with the card
            raise ModelError(
                f"{self.info.name} does not run on {self.info.device} in batches of "
                f"{self._max_batch_size}: {error}"
            ) from error

    def _warm_up(self) -> None:
        self._backend.warm_up(self._max_batch_size)
        if self._backend.device.type == "cpu":
            return
        plain = self.prepare(golden_image())
        # The mask kernel is compiled once with confidence and once without: before a job waits for it.
        sure = self.prepare(golden_image(), outputs=frozenset({Output.CONFIDENCE}))
        for batch in ([sure], [plain], [plain] * self._max_batch_size):
            for output in self.run(batch):
                if isinstance(output, Exception):
                    raise ModelError(f"{self.info.name} fails on a drawn image: {output}")

    def self_test(self) -> None:
        """Raises ModelError unless a drawn image gives sound scores and, twice, the right mask."""
        item = self.prepare(golden_image())
        first, second = (self._test_forward(item) for _ in range(2))
        mask = self._backend.mask(first, item.size)
        if not np.array_equal(mask, self._backend.mask(second, item.size)):
            self._fail("gave two masks for one image")
        from maskq_worker.model.backends import plain_mask, reference_mask
        from maskq_worker.model.masks import untied_differences

        # Where transformers is loaded already: a processor may make masks of its own kind.
        if self._preprocessor.by_transformers:
            expected = reference_mask(self._preprocessor.processor, first, item.size)
        else:
            expected = plain_mask(first, item.size)
        wrong = untied_differences(first, mask, expected)
        if wrong:
            self._fail(f"gave a mask that differs from transformers' own in {wrong} pixels")

    def close(self) -> None:
        """Give the device's memory back. No other method may be called after it."""
        del self._backend
        if self.info.device.startswith("cuda"):
            import torch

            with suppress(RuntimeError):
                torch.cuda.empty_cache()

    def _forward(self, pixels: Sequence[NDArray[np.uint8]]) -> torch.Tensor:
        advice = "lower MASKQ_MAX_BATCH_SIZE, or give the worker a device of its own"
        with self._fitting(f"a batch of {len(pixels)}", advice):
            scores = self._backend.forward(pixels)
        return scores

    @contextmanager
    def _fitting(self, what: str, advice: str = "") -> Iterator[None]:
        """Raises PermanentError `out_of_memory` for what does not fit the device."""
        import torch

        try:
            yield
        except Exception as error:
            if not _out_of_memory(error):
                raise
            with suppress(RuntimeError):  # after a capture that was cut short it may fail
                torch.cuda.empty_cache()
            raise PermanentError(
                FailureCode.OUT_OF_MEMORY,
                f"{what} does not fit the memory of {self.info.device}"
                + (advice and f": {advice}"),
            ) from error

    def _begun(self, item: ModelInput, merged: Merged) -> Callable[[], ModelOutput | None]:
        """What goes wrong already is raised by what is returned, but for a want of memory: the batch is
        then launched again in parts."""
        try:
            with self._fitting(_mask_of(item)):
                place = item.views.place
                return self._backend.answer(
                    merged.scores(),
                    (place.height, place.width) if place else item.size,
                    confidence=item.confidence,
                    logits=item.logits,
                )
        except PermanentError:
            raise
        except Exception as error:  # noqa: BLE001 - raised in its place
            return partial(_raise, error)

    def _output(self, item: ModelInput, answer: Callable[[], ModelOutput | None]) -> ModelOutput:
        with self._fitting(_mask_of(item)):
            found = answer()
        if found is None:
            raise PermanentError(
                FailureCode.INTERNAL,
                f"{self.info.name} gave scores that are no numbers for this image in "
                f"{self.info.dtype}: try MASKQ_DTYPE=float32",
            )
        if item.views.place:
            return found.placed(item.views.place, item.size, len(self.info.labels))
        return found

    def _test_forward(self, item: ModelInput) -> torch.Tensor:
        try:
            logits = self._backend.forward(item.views.each[0].pixels[None])[0]
        except (RuntimeError, ValueError) as error:
            raise ModelError(
                f"{self.info.name} cannot take its own processor's images: {error}"
            ) from error
        if logits.ndim != 3 or len(logits) != len(self.info.labels):
            self._fail(
                f"gave scores of shape {tuple(logits.shape)} for {len(self.info.labels)} labels"
            )
        from maskq_worker.model.backends import finite

        if not finite(logits):
            self._fail(f"gave scores that are no numbers in {self.info.dtype}")
        return logits

    def _fail(self, what: str) -> None:
        raise ModelError(
            f"{self.info.name} ({self.info.backend}, {self.info.device}) {what} in its self-test"
        )


def _output_or_error(scored: PendingOutput) -> ModelOutput | Exception:
    """Raises only what concerns the whole device."""
    from maskq_worker.model.cuda.faults import is_fault

    try:
        return scored.output()
    except Exception as error:
        if is_fault(error):
            raise
        return error


def _computed(scored: PendingOutput) -> PendingOutput | Exception:
    output = _output_or_error(scored)
    return output if isinstance(output, Exception) else PendingOutput(lambda: output)


def _in_one_thread(work: Callable[[], ModelOutput]) -> ModelOutput:
    """The cores are the forward's that is computed meanwhile; and where a second thread has helpers of
    OpenMP's, the helpers of all sleep between their tasks instead of looking out for the next."""
    import torch

    if torch.get_num_threads() != 1:
        torch.set_num_threads(1)  # of this thread, and of those that have not used torch yet
    return work()


def goes_to_gpu(settings: WorkerSettings) -> bool:
    """Whether `load_segmenter` puts the model on one. Raises ModelError for a GPU that is not there."""
    from maskq_worker.model.backends import choose_device

    if settings.dtype == "int8":  # for CPUs
        return False
    return choose_device(settings.device, settings.backend).type == "cuda"


def load_segmenter(settings: WorkerSettings) -> Segmenter:
    """Find, load and check the model of the settings. Raises ModelError with what to do."""
    if not settings.model:
        raise ModelError("MASKQ_MODEL is not set: a hub id, a folder in the hub's layout or `demo`")
    checkpoint = resolve(settings.model, settings.model_revision)
    checkpoint.begin_sha256()
    config = read_json(checkpoint.directory / CONFIG)
    family = family_of(config, checkpoint.directory)
    preprocessor = family.preprocessor(checkpoint.directory)
    backend = _backend(settings, checkpoint, preprocessor, family)
    batch = capacity_of(settings, cuda=backend.device.type == "cuda").max_batch_size
    return Segmenter(
        checkpoint,
        backend,
        preprocessor,
        max_batch_size=batch,
        max_score_bytes=settings.max_score_bytes,
        multiple=family.multiple(config, min(preprocessor.frame.size)),
        name=settings.model_name,
    )


def _backend(
    settings: WorkerSettings, checkpoint: Checkpoint, preprocessor: Preprocessor, family: Family
) -> TransformersBackend:
    # Here, not above: the labels, and this module's types, must be there without torch.
    from maskq_worker.model.backends import load_backend

    if settings.dtype != "int8":
        return load_backend(
            checkpoint.directory,
            preprocessor,
            backend=settings.backend,
            device=settings.device,
            dtype=settings.dtype,
            family=family,
        )
    if family.model_type != "dpt":
        raise ModelError(
            f"MASKQ_DTYPE is int8, which {family.architecture} cannot be had in: set it to float32"
        )
    if settings.backend not in ("auto", "cpu") or settings.device not in ("auto", "cpu"):
        raise ModelError(
            f"MASKQ_DTYPE is int8, which is for CPUs; MASKQ_BACKEND is {settings.backend} and "
            f"MASKQ_DEVICE {settings.device}: set one or the other to auto"
        )
    from maskq_worker.model.openvino import load_openvino

    return load_openvino(checkpoint, preprocessor)


def golden_image() -> Image.Image:
    """640x427 px, RGB, the same on every machine: a sky, a ground, a house, a sun."""
    y, x = np.mgrid[0:427, 0:640]
    sky = np.stack([90 + y // 4, 140 + y // 4, 230 - x // 16], axis=2)
    ground = np.stack([60 + x // 16, 110 + (x ^ y) % 16, 40 + y // 8], axis=2)
    image = Image.fromarray(np.where(y[..., None] < 240, sky, ground).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    draw.rectangle((180, 130, 380, 330), fill=(170, 90, 70))
    draw.polygon([(160, 130), (280, 50), (400, 130)], fill=(90, 40, 40))
    draw.ellipse((500, 30, 570, 100), fill=(250, 240, 150))
    return image


def _out_of_memory(error: Exception) -> bool:
    """Of torch's allocator on a GPU it is a type of its own; of the driver, the libraries and the CPU's
    allocator a plain RuntimeError."""
    import torch

    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)
    )


def _note(place: Place, size: tuple[int, int], classes: int) -> str:
    return (
        f"the model's image processor crops: the mask is of {place.width}x{place.height} of "
        f"{size[1]}x{size[0]} px, from the middle, and {void(classes)} elsewhere, which is no class; "
        "mode tiled looks at all of it"
    )


def _mask_of(item: ModelInput) -> str:
    height, width = item.size
    return f"the mask of {width}x{height} px"


def _raise(error: Exception) -> Any:
    raise error
