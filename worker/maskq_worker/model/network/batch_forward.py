"""The forward of a torch network on a batch of 8-bit images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from maskq_worker.model.preprocess.preprocessor import Preprocessor


class BatchForward:
    """Normalises a batch, computes its scores and waits for them."""

    def __init__(
        self,
        network: nn.Module,
        preprocessor: Preprocessor,
        *,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        """network: on the device, from pixels (N, 3, H, W) of `dtype` to scores (N, C, h, w)."""
        self._network = network
        self._preprocessor = preprocessor
        self._device = device
        self._dtype = dtype

    @torch.inference_mode()
    def __call__(self, pixels: Sequence[NDArray[np.uint8]] | NDArray[np.uint8]) -> torch.Tensor:
        """pixels: N times (H, W, 3) uint8. Returns (N, C, h, w) float32 on the device."""
        stacked = torch.from_numpy(np.stack(list(pixels))).to(self._device)
        batch = self._preprocessor.normalised(stacked)
        scores: torch.Tensor = self._network(batch.to(self._dtype)).float()
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return scores
