"""From 8-bit pixels to the network's input, by a table on the GPU."""

from __future__ import annotations

import torch
from torch import nn

from maskq_worker.model.preprocess.preprocessor import Preprocessor

_LEVELS = 256


class Normalise(nn.Module):
    """`Preprocessor.normalised` with its table on the device, so that it can be part of a graph."""

    def __init__(
        self, preprocessor: Preprocessor, device: torch.device, dtype: torch.dtype
    ) -> None:
        super().__init__()
        levels = torch.arange(_LEVELS, dtype=torch.uint8).view(1, _LEVELS, 1).expand(-1, -1, 3)
        table = preprocessor.normalised(levels).flatten()  # (768,): of red, then green, then blue
        self.table = table.to(device, dtype)
        self.offsets = torch.arange(0, 3 * _LEVELS, _LEVELS, dtype=torch.int32, device=device)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """pixels: (N, H, W, 3) uint8. Returns (N, 3, H, W), `channels_last`, of the table's dtype."""
        index = (pixels.int() + self.offsets).flatten()
        return self.table.index_select(0, index).view(pixels.shape).movedim(-1, -3)
