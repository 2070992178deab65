"""What comes of one image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from maskq_worker.model.preprocess.preprocessor import Place


def void(classes: int) -> int:
    """What stands in a mask where there is no class: 255, or 65535 where 255 is a class."""
    return 255 if classes < 256 else 65535


@dataclass(frozen=True, slots=True)
class ModelOutput:
    """What the network says about one image."""

    mask: NDArray[Any]  # (H, W) class ids, uint8 up to 256 classes, else uint16
    # (H, W) softmax probability of the pixel's class, 0..255 for 0..1, if asked for
    confidence: NDArray[np.uint8] | None
    logits: NDArray[np.float32] | None  # (C, h, w) at the model's own size, if asked for

    def placed(self, place: Place, size: tuple[int, int], classes: int) -> ModelOutput:
        """The same for a whole image (H, W), of which it was a part: elsewhere is no class, and no
        confidence. classes: how many there are."""
        fill = void(classes)
        mask = np.full(size, fill, np.uint8 if fill == 255 else np.uint16)
        confidence = None if self.confidence is None else np.zeros(size, np.uint8)
        rows, columns = (
            _inside(place.top, place.height, size[0]),
            _inside(place.left, place.width, size[1]),
        )
        mask[rows[0], columns[0]] = self.mask[rows[1], columns[1]]
        if confidence is not None and self.confidence is not None:
            confidence[rows[0], columns[0]] = self.confidence[rows[1], columns[1]]
        return ModelOutput(mask, confidence, self.logits)


def _inside(start: int, length: int, whole: int) -> tuple[slice, slice]:
    """Where a stretch that may reach beyond `whole` lies in it, and which part of it that is."""
    first, last = max(0, start), min(whole, start + length)
    return slice(first, last), slice(first - start, last - start)
