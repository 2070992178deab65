"""In how many pixels two masks of the same scores differ."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from torch.nn import functional

TIE: Final = 1e-5  # of the largest score's magnitude: classes that are closer are tied


def untied_differences(logits: torch.Tensor, mask: np.ndarray, other: np.ndarray) -> int:
    """The number of pixels in which two masks differ although their classes are not tied.

    Args:
        logits: (C, h, w), the scores of both masks.
        mask, other: (H, W) class ids.

    Returns:
        That number; for masks of different sizes, all pixels of the larger one.
    """
    if mask.shape != other.shape:
        return max(mask.size, other.size)
    y, x = np.nonzero(mask != other)
    if not len(y):
        return 0
    exact = functional.interpolate(
        logits[None].double().cpu(), size=mask.shape, mode="bilinear", align_corners=False
    )[0].numpy()
    gap = np.abs(exact[mask[y, x], y, x] - exact[other[y, x], y, x])
    return int((gap > TIE * logits.abs().max().item()).sum())
