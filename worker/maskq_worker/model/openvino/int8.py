"""Quantise a network to 8 bits by NNCF, and measure what that changes in its masks."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from maskq_worker.model.errors import ModelError
from maskq_worker.model.openvino import runtime
from maskq_worker.model.openvino.convert import CLASSIFIER

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from maskq_worker.model.preprocess.preprocessor import Preprocessor

EVERY: Final = 3  # one of so many images is held out
FEWEST: Final = 12  # images

# From pixels (N, H, W, 3) uint8 to scores (N, C, h, w) float32.
Forward = Callable[["NDArray[np.uint8]"], "torch.Tensor"]


@dataclass(frozen=True, slots=True)
class Agreement:
    """How a network's masks agree with float32's, over all pixels of some images together."""

    pixels: float  # share with the same class, 0..1
    miou: float  # mean intersection over union of float32's classes, 0..1


def split(
    images: Sequence[NDArray[np.uint8]],
) -> tuple[list[NDArray[np.uint8]], list[NDArray[np.uint8]]]:
    """Images to calibrate with, and images to check with. Raises ModelError for too few."""
    if len(images) < FEWEST:
        raise ModelError(
            f"{len(images)} images are too few to calibrate 8 bits and check them: give at least "
            f"{FEWEST}, some dozens like those of your jobs"
        )
    calibration = [image for index, image in enumerate(images) if index % EVERY]
    return calibration, list(images[::EVERY])


def quantised(model: Any, images: Sequence[NDArray[np.uint8]], preprocessor: Preprocessor) -> Any:
    """Quantise OpenVINO's model to 8 bits; progress goes to stderr.

    LayerNorm, softmax and GELU stay float32, as NNCF does for transformers, and so does the classifier,
    whose scores decide.

    Args:
        model: as of `converted`; it is left unchanged.
        images: (side, side, 3) uint8 each.
    """
    import torch

    def values(image: NDArray[np.uint8]) -> NDArray[np.float32]:
        by_channel = preprocessor.normalised(torch.from_numpy(image)[None])
        array: NDArray[np.float32] = by_channel.movedim(1, -1).contiguous().numpy()
        return array

    nncf = runtime.nncf()
    with redirect_stdout(sys.stderr):
        return nncf.quantize(
            model,
            nncf.Dataset(images, values),
            subset_size=len(images),
            model_type=nncf.ModelType.TRANSFORMER,
            target_device=nncf.TargetDevice.CPU,
            ignored_scope=nncf.IgnoredScope(patterns=[rf".*{CLASSIFIER}.*"]),
        )


def agreement(
    exact: Iterable[NDArray[np.integer[Any]]], other: Iterable[NDArray[np.integer[Any]]]
) -> Agreement:
    """Compare masks (H, W) of the same images, in the same order."""
    pairs = list(zip(exact, other, strict=True))
    classes = 1 + max(int(mask.max()) for pair in pairs for mask in pair)
    counts = np.zeros(classes * classes, dtype=np.int64)
    for expected, mask in pairs:
        places = expected.astype(np.int64) * classes + mask
        counts += np.bincount(places.ravel(), minlength=classes * classes)
    table = counts.reshape(classes, classes)
    same = table.diagonal()
    present = table.sum(axis=1) > 0
    union = table.sum(axis=0) + table.sum(axis=1) - same
    return Agreement(
        pixels=float(same.sum() / table.sum()),
        miou=float((same[present] / union[present]).mean()),
    )


def masks(forward: Forward, images: Iterable[NDArray[np.uint8]]) -> list[NDArray[np.uint16]]:
    """The best class at every place of the scores, (h, w) uint16, image by image."""
    return [forward(image[None])[0].argmax(dim=0).numpy().astype(np.uint16) for image in images]
