"""A mask that is computed when it is waited for, on the CPU or by torch's operations on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from maskq_worker.model.inputs_and_outputs import ModelOutput
from maskq_worker.model.masks.bounded import mask_with_confidence
from maskq_worker.model.masks.scores import all_finite

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class LazyMask:
    """One image's mask, not computed yet. It is a `PendingMask`."""

    scores: torch.Tensor  # (C, h, w) float32
    size: tuple[int, int]  # (H, W) px of the mask
    draw: Callable[[torch.Tensor, tuple[int, int]], NDArray[Any]]  # a mask of scores and a size
    confidence: bool  # whether the confidence is wanted
    logits: bool  # whether the scores are wanted

    @torch.inference_mode()
    def wait(self) -> ModelOutput | None:
        """Compute the mask in the caller's thread. None: some scores are NaN or infinite."""
        if not all_finite(self.scores):
            return None
        confidence = None
        if self.confidence:
            mask, confidence = mask_with_confidence(self.scores, self.size)
        else:
            mask = self.draw(self.scores, self.size)
        logits = self.scores.cpu().numpy().copy() if self.logits else None
        return ModelOutput(mask, confidence, logits)
