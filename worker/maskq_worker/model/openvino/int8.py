"""Quantise a network to 8 bits by NNCF."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any, Final, TypeVar

from maskq_worker.model.openvino import runtime
from maskq_worker.model.openvino.convert import CLASSIFIER
from maskq_worker.model.precision.measure import refuse_too_few

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from maskq_worker.model.preprocess.preprocessor import Preprocessor

EVERY: Final = 3  # one of so many images is held out
_T = TypeVar("_T")


def split(images: Sequence[_T]) -> tuple[list[_T], list[_T]]:
    """Images to calibrate with, and images to check with. Raises ModelError for too few."""
    refuse_too_few(images, "calibrate 8 bits")
    return [one for index, one in enumerate(images) if index % EVERY], list(images[::EVERY])


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
