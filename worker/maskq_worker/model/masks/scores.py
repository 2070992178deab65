"""What a network's scores say about the mask: its dtype, and whether there can be one."""

from __future__ import annotations

import math

import numpy as np
import torch


def mask_dtype(classes: int) -> type[np.uint8] | type[np.uint16]:
    """The dtype of a mask: 8 bits if they hold every class id."""
    return np.uint8 if classes <= 256 else np.uint16


def all_finite(scores: torch.Tensor) -> bool:
    """Whether no score is NaN or infinite. scores: (C, h, w), floating point."""
    # Our network's scores are contiguous in this order, which takes a twentieth of the time.
    channels_last = scores.movedim(0, -1)
    in_order = channels_last if channels_last.is_contiguous() else scores
    # A sum with a NaN or an infinite term is not finite. It takes half the time of aminmax, which
    # decides if the sum of finite scores is too large.
    if math.isfinite(in_order.sum().item()):
        return True
    low, high = in_order.aminmax()  # NaN if there is one
    return math.isfinite(low.item()) and math.isfinite(high.item())
