"""A network in half precision with the faster layers."""

from __future__ import annotations

import torch
from torch import nn

from maskq_worker.model.cuda.fused.layers import (
    FusedHead,
    FusedNeck,
    FusedTransformer,
    PatchProduct,
)
from maskq_worker.model.cuda.fused.operations import TorchOperations
from maskq_worker.model.network import Network


class FusedNetwork(nn.Module):
    """`Network` with the faster layers. Its scores are to be upsampled by two."""

    def __init__(self, network: Network, operations: TorchOperations, dtype: torch.dtype) -> None:
        """
        Args:
            network: of `coarse`, on the device and in `dtype` but for its classifier, which is float32.
                Its layers become this module's own, so it may not be used any more.
            dtype: float16 or bfloat16.
        """
        super().__init__()
        self.backbone, self.embedding = network.backbone, network.embedding
        if self.backbone is None:
            patches = PatchProduct(self.embedding.projection)
            self.embedding.projection = patches  # type: ignore[assignment]  # of the same shapes
        self.transformer = FusedTransformer(network.transformer, operations)
        self.neck = FusedNeck(network.neck, operations)
        self.head = FusedHead(network.head, operations, dtype)  # type: ignore[arg-type]  # of `coarse`

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """pixels: (B, 3, H, W), normalised. Returns (B, classes, h, w) float32, `channels_last`."""
        values = pixels.contiguous(memory_format=torch.channels_last)
        maps = [] if self.backbone is None else self.backbone(values)
        tokens, grid = self.embedding(maps[-1] if maps else values)
        scores: torch.Tensor = self.head(self.neck(maps[:2], self.transformer(tokens), grid))
        return scores
