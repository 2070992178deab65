"""The network without its last upsampling, which follows the graph.

A graph keeps its scores for each batch size: at half the size they take a quarter of the memory. The
upsampling writes to memory that no later graph overwrites.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import nn

from maskq_worker.model.network import Network
from maskq_worker.model.network.dpt import Head
from maskq_worker.model.network.rewrites import upsample
from maskq_worker.model.network.upsampled import convolve_upsampled

_INDEXED: Final = 2**31  # elements: torch's upsampling has 32-bit indices


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
    """Change a network in place: its scores are to be upsampled by two. Returns it."""
    if isinstance(network.head, Head):
        network.head = CoarseHead(network.head)  # type: ignore[assignment]  # one with the same parts
    return network


def upsampled(scores: torch.Tensor) -> torch.Tensor:
    """(N, C, h, w) -> (N, C, 2h, 2w), in parts if the batch is too large for one call."""
    images = max(1, (_INDEXED - 1) // (4 * scores[0].numel()))
    if len(scores) <= images:
        return upsample(scores)
    return torch.cat([upsample(part) for part in scores.split(images)])
