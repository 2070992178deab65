"""The 8-bit network of a checkpoint: load it, or build it."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import torch

from maskq_worker.model.transformers_backend import NativeBackend
from maskq_worker.model.checkpoint.folder import CONFIG, Checkpoint, read_json
from maskq_worker.model.checkpoint.loading import load_source
from maskq_worker.model.errors import ModelError
from maskq_worker.model.families import family_of
from maskq_worker.model.families.dpt import DPT
from maskq_worker.model.network import Network, UnsupportedError
from maskq_worker.model.openvino import cache, int8, runtime
from maskq_worker.model.openvino.backend import OpenVINO
from maskq_worker.model.openvino.convert import converted
from maskq_worker.model.preprocess.preprocessor import Preprocessor

if TYPE_CHECKING:
    from PIL import Image

THRESHOLD: Final = 0.98  # of pixels that agree with float32
_log = logging.getLogger(__name__)


def load_openvino(checkpoint: Checkpoint, preprocessor: Preprocessor) -> OpenVINO:
    """The 8-bit network that `quantize` built. Raises ModelError."""
    _warn_where_slow()
    model, record = cache.load(checkpoint)
    _log.info("the 8-bit network of %s %s", checkpoint.name, record.figures)
    return OpenVINO(model, preprocessor, dtype=torch.int8)


def quantize(
    checkpoint: Checkpoint, images: Iterable[Image.Image], *, threshold: float = THRESHOLD
) -> cache.Record:
    """Calibrate 8 bits with two thirds of the images, compare masks with float32's on the others, and
    store both network and figures: below the threshold, too, where no worker will serve it.

    images: RGB, upright, any size. Raises ModelError.
    """
    family = family_of(read_json(checkpoint.directory / CONFIG), checkpoint.directory)
    if family is not DPT:
        raise ModelError(f"{checkpoint.name} cannot be had in 8 bits: only {DPT.architecture} can")
    _warn_where_slow()
    preprocessor = Preprocessor.from_checkpoint(checkpoint.directory)
    calibration, held_out = int8.split([preprocessor(image) for image in images])
    openvino = runtime.openvino()
    network = _network(checkpoint)
    exact = int8.masks(_torch(network, preprocessor).forward, held_out)
    model = int8.quantised(converted(network), calibration, preprocessor)
    masks = int8.masks(OpenVINO(model, preprocessor, dtype=torch.int8).forward, held_out)
    return cache.store(
        checkpoint,
        lambda path: openvino.save_model(model, path, compress_to_fp16=False),
        int8.agreement(exact, masks),
        threshold=threshold,
        calibration_images=len(calibration),
        checked_images=len(held_out),
    )


def _warn_where_slow() -> None:
    if not runtime.has_dot_products():
        _log.warning(
            "this CPU has no dot products of 8-bit numbers (VNNI, AMX): 8 bits are no faster on it "
            "than float32"
        )


def _network(checkpoint: Checkpoint) -> Network:
    try:
        return Network(load_source(checkpoint.directory))
    except UnsupportedError as error:
        raise ModelError(
            f"{checkpoint.name} is not a network that can be had in 8 bits ({error}): set "
            "MASKQ_DTYPE=float32"
        ) from error


def _torch(network: Network, preprocessor: Preprocessor) -> NativeBackend:
    device = torch.device("cpu")
    return NativeBackend(network, preprocessor, name="cpu", device=device, dtype=torch.float32)
