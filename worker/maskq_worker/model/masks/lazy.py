"""A mask that is computed when it is waited for, on the CPU or by torch's operations on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from maskq_worker.model.inputs_and_outputs import ModelOutput
from maskq_worker.model.masks.bounded import mask_with_confidence, mask_with_uncertain
from maskq_worker.model.masks.scores import all_finite

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class LazyMask:
    """One image's mask, not computed yet. It is a `PendingMask`."""

    scores: torch.Tensor  # (C, h, w) float32
    size: tuple[int, int]  # (H, W) px of the mask
    draw: Callable[[torch.Tensor, tuple[int, int]], NDArray[Any]]  # a mask of scores and a size
    confidence: bool  # whether the confidence is wanted
    logits: bool  # whether the scores are wanted
    uncertain_below: float | None = None  # as of `mask_with_uncertain`; None: not wanted

    @torch.inference_mode()
    def wait(self) -> ModelOutput | None:
        """Compute the mask in the caller's thread. None: some scores are NaN or infinite."""
        if not all_finite(self.scores):
            return None
        mask, confidence, uncertain = self.drawn()
        logits = self.scores.cpu().numpy().copy() if self.logits else None
        return ModelOutput(mask, confidence, logits, uncertain)

    def drawn(
        self,
    ) -> tuple[NDArray[Any], NDArray[np.uint8] | None, NDArray[np.bool_] | None]:
        """The mask, its confidence and its uncertain pixels, where they are wanted."""
        mask, confidence, uncertain = None, None, None
        if self.uncertain_below is not None:
            mask, uncertain = mask_with_uncertain(self.scores, self.size, self.uncertain_below)
        if self.confidence:
            mask, confidence = mask_with_confidence(self.scores, self.size)
        return self.draw(self.scores, self.size) if mask is None else mask, confidence, uncertain
