"""What comes of one image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class ModelOutput:
    """What the network says about one image."""

    mask: NDArray[Any]  # (H, W) class ids, uint8 up to 256 classes, else uint16
    # (H, W) softmax probability of the pixel's class, 0..255 for 0..1, if asked for
    confidence: NDArray[np.uint8] | None
    logits: NDArray[np.float32] | None  # (C, h, w) at the model's own size, if asked for
