"""What goes into the model and what comes out, image by image, and what is known about the model.

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from maskq_worker.model.preprocess.frame import ImageArea
    from maskq_worker.model.views import Views


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """The served model, as it is announced and named in results."""

    name: str  # as served: MASKQ_MODEL_NAME, else a hub id, `demo` or a folder's name
    revision: str  # commit of the hub, else `sha256:…` of the weights
    labels: tuple[str, ...]  # by class id
    backend: str  # transformers | cpu | cuda | openvino
    device: str  # cpu | cuda:0
    dtype: str  # float32 | float16 | bfloat16 | int8
    input_size: tuple[int, int]  # (height, width) px that the network was trained on
    preprocessing: Mapping[str, Any]  # of images, for the network
    precision: str | None = None  # exact | fast | certified; None: half or 8 bits, without a bound

    @property
    def is_exact(self) -> bool:
        """Whether it computes in float32."""
        return self.dtype == "float32"


@dataclass(frozen=True, slots=True)
class ModelInput:
    """One image, ready for the network."""

    views: Views  # the inputs of the network's forwards
    size: tuple[int, int]  # (H, W) px of the image, and so of its mask
    logits: bool = False  # whether the caller wants the scores
    confidence: bool = False  # whether the caller wants the confidence of each pixel
    uncertain: bool = False  # whether the caller wants the uncertain pixels
    notes: tuple[str, ...] = ()  # sentences for the reader of the mask


@dataclass(frozen=True, slots=True)
class ModelOutput:
    """The mask of one image, and what else the caller asked for."""

    mask: NDArray[Any]  # (H, W) class ids, uint8 up to 256 classes, else uint16
    # (H, W) softmax probability of the pixel's class, 0..255 for 0..1, if asked for
    confidence: NDArray[np.uint8] | None
    logits: NDArray[np.float32] | None  # (C, h, w) at the model's own size, if asked for
    # (H, W) pixels whose class may differ from float32's; None: not known, or float32 computed it
    uncertain: NDArray[np.bool_] | None = None
    info: ModelInfo | None = None  # of the network that computed it; None: while it is computed

    @property
    def uncertain_share(self) -> float | None:
        """The share of uncertain pixels, 0..1; None: not known."""
        if self.uncertain is not None:
            return float(self.uncertain.mean())
        return 0.0 if self.info is not None and self.info.is_exact else None

    def extended(self, area: ImageArea, size: tuple[int, int], classes: int) -> ModelOutput:
        """The output of a whole image, made from the output of a part.

        Args:
            area: the part of the image.
            size: (H, W) px of the whole image.
            classes: the number of classes.

        Returns:
            The same, with `no_class`, confidence 0 and no uncertain pixel outside the part.
        """
        fill = no_class(classes)
        mask = np.full(size, fill, np.uint8 if fill == 255 else np.uint16)
        confidence = None if self.confidence is None else np.zeros(size, np.uint8)
        rows, part_rows = _overlap(area.top, area.height, size[0])
        columns, part_columns = _overlap(area.left, area.width, size[1])
        mask[rows, columns] = self.mask[part_rows, part_columns]
        if confidence is not None and self.confidence is not None:
            confidence[rows, columns] = self.confidence[part_rows, part_columns]
        uncertain = None if self.uncertain is None else np.zeros(size, np.bool_)
        if uncertain is not None and self.uncertain is not None:
            uncertain[rows, columns] = self.uncertain[part_rows, part_columns]
        return replace(self, mask=mask, confidence=confidence, uncertain=uncertain)


def no_class(classes: int) -> int:
    """The value of a mask's pixels without a class: 255, or 65535 if 255 is a class id."""
    return 255 if classes < 256 else 65535


def _overlap(start: int, length: int, whole: int) -> tuple[slice, slice]:
    """The overlap of a part and the whole: its place in the whole, and in the part."""
    first, last = max(0, start), min(whole, start + length)
    return slice(first, last), slice(first - start, last - start)
