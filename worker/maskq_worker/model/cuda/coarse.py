"""The network up to its last upsampling.

Scores at half the size are what a graph keeps for each batch size: a quarter of the memory. The
upsampling comes after it, into memory that no later graph writes.
"""

from __future__ import annotations

import torch
from torch import nn

from maskq_worker.model.network import Network
from maskq_worker.model.network.dpt import Head
from maskq_worker.model.network.upsampled import convolve_upsampled


class CoarseHead(nn.Module):
    """`Head` without its upsampling."""

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.convolution, self.classifier = head.convolution, head.classifier

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """values: (B, F, h, w), to be upsampled. Returns (B, classes, 2h, 2w), to be upsampled."""
        deep = convolve_upsampled(self.convolution, values).relu_()
        scores: torch.Tensor = self.classifier(deep.to(self.classifier.weight.dtype))
        return scores


def coarse(network: Network) -> Network:
    """The same network, changed: it gives scores that are to be upsampled by two."""
    if isinstance(network.head, Head):
        network.head = CoarseHead(network.head)  # type: ignore[assignment]  # one with the same parts
    return network
