"""Build the 8-bit network of a checkpoint, and load it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

import torch

from maskq_worker.model.checkpoint.files import CONFIG, read_json
from maskq_worker.model.checkpoint.folder import Checkpoint
from maskq_worker.model.checkpoint.loading import load_source
from maskq_worker.model.errors import ModelError
from maskq_worker.model.families import family_of
from maskq_worker.model.families.dpt import DPT
from maskq_worker.model.native_backend import NativeBackend
from maskq_worker.model.network import Network, UnsupportedError
from maskq_worker.model.openvino import cache, int8, runtime
from maskq_worker.model.openvino.backend import OpenVINOBackend
from maskq_worker.model.openvino.convert import converted
from maskq_worker.model.precision.measure import measure, samples
from maskq_worker.model.preprocess.from_checkpoint import load_preprocessor

if TYPE_CHECKING:
    from PIL import Image

    from maskq_worker.model.preprocess.preprocessor import Preprocessor

THRESHOLD: Final = 0.98  # of pixels that agree with float32
STEPS: Final = 3  # of `quantize`
_log = logging.getLogger(__name__)


def load_openvino(
    checkpoint: Checkpoint, preprocessor: Preprocessor
) -> tuple[OpenVINOBackend, cache.Record]:
    """The 8-bit network that `quantize` built, and its figures. Raises ModelError."""
    _warn_if_slow()
    model, record = cache.load(checkpoint)
    _log.info("the 8-bit network of %s %s", checkpoint.name, record.figures)
    return OpenVINOBackend(model, preprocessor, dtype=torch.int8), record


def quantize(
    checkpoint: Checkpoint,
    images: Iterable[Image.Image],
    *,
    threshold: float = THRESHOLD,
    on_progress: Callable[[int, str], object] = lambda _steps, _what: None,
) -> cache.Record:
    """Build the 8-bit network of a checkpoint and store it, with its measured agreement.

    Two thirds of the images calibrate it; on the others its masks are compared with float32's. Below
    the threshold it is stored, too, but no worker serves it.

    Args:
        images: RGB, upright, any size.
        threshold: the share of pixels that must have float32's class, 0..1.
        on_progress: is called with the number of steps done (of `STEPS`) and what was done.

    Raises:
        ModelError: with what to do.
    """
    family = family_of(read_json(checkpoint.directory / CONFIG), checkpoint.directory)
    if family is not DPT:
        raise ModelError(
            f"{checkpoint.name} cannot be converted to 8 bits: only {DPT.architecture} can"
        )
    _warn_if_slow()
    preprocessor = load_preprocessor(checkpoint.directory)
    calibration, held_out = int8.split(samples(preprocessor, images))
    on_progress(1, "images read")
    openvino = runtime.openvino()
    pixels = [sample.pixels for sample in calibration]
    model = int8.quantised(converted(_network(checkpoint)), pixels, preprocessor)
    on_progress(2, "network converted")
    measured = measure(
        _torch_backend(_network(checkpoint), preprocessor).forward,
        OpenVINOBackend(model, preprocessor, dtype=torch.int8).forward,
        held_out,
    )
    on_progress(STEPS, "masks compared")
    return cache.store(
        checkpoint,
        lambda path: openvino.save_model(model, path, compress_to_fp16=False),
        measured,
        threshold=threshold,
        calibration_images=len(calibration),
    )


def _warn_if_slow() -> None:
    if not runtime.has_dot_products():
        _log.warning(
            "this CPU has no dot products of 8-bit numbers (VNNI, AMX): on it 8 bits are no faster "
            "than float32"
        )


def _network(checkpoint: Checkpoint) -> Network:
    try:
        return Network(load_source(checkpoint.directory, DPT))
    except UnsupportedError as error:
        raise ModelError(
            f"{checkpoint.name} is not a network that can be converted to 8 bits ({error}): set "
            "MASKQ_DTYPE=float32"
        ) from error


def _torch_backend(network: Network, preprocessor: Preprocessor) -> NativeBackend:
    device = torch.device("cpu")
    return NativeBackend(network, preprocessor, name="cpu", device=device, dtype=torch.float32)
