"""From our own network to OpenVINO's: the same arithmetic, for inputs of any shape.

A traced network must not branch on a shape, so three parts are written again here. torch computes the
last upsampling: that is faster, and OpenVINO returns a quarter of the numbers.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import nn
from torch.nn import functional

from maskq_worker.model.errors import ModelError
from maskq_worker.model.network import Network
from maskq_worker.model.network.dpt import Head
from maskq_worker.model.network.neck import Fusion
from maskq_worker.model.network.rewrites import upsample
from maskq_worker.model.network.vit import Embedding
from maskq_worker.model.openvino.runtime import openvino

CLASSIFIER: Final = "head.classifier"  # part of the name of what computes the scores
_MULTIPLE: Final = 32  # px: what all views but the whole image's are multiples of


class AnyShapeEmbedding(nn.Module):
    """`Embedding` whose positions are always stretched. At the trained size this changes nothing."""

    def __init__(self, source: Embedding) -> None:
        super().__init__()
        self.projection, self.cls_token = source.projection, source.cls_token
        side = math.isqrt(source.positions.shape[1] - 1)
        square = source.positions[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
        self.square = nn.Parameter(square.contiguous(), requires_grad=False)  # (1, C, side, side)
        self.readout = nn.Parameter(
            source.cls_token + source.positions[:, :1], requires_grad=False
        )  # (1, 1, C)

    def forward(self, values: torch.Tensor) -> tuple[torch.Tensor, tuple[int, int]]:
        """values: (1, I, H, W). Returns tokens (1, 1 + h * w, C), the readout token first; (h, w)."""
        patches = self.projection(values)
        height, width = patches.shape[-2:]
        positions = functional.interpolate(
            self.square, size=(height, width), mode="bilinear", align_corners=False
        )
        tokens = (patches + positions).flatten(2).transpose(1, 2)
        return torch.cat([self.readout, tokens], dim=1), (height, width)


class AnyShapeFusion(nn.Module):
    """`Fusion` that always brings the level to the coarser one's size."""

    def __init__(self, source: Fusion) -> None:
        super().__init__()
        self.of_level, self.of_both = source.of_level, source.of_both
        self.projection = source.projection

    def forward(self, level: torch.Tensor, coarser: torch.Tensor | None) -> torch.Tensor:
        """level: (1, C, h, w); coarser: (1, C, H, W), or None for the first. Returns (1, C, H, W)."""
        both = level
        if coarser is not None and self.of_level is not None:
            fitting = functional.interpolate(
                level, size=coarser.shape[-2:], mode="bilinear", align_corners=False
            )
            both = self.of_level(fitting) + coarser
        projected: torch.Tensor = self.projection(self.of_both(both))
        return projected


class CoarseHead(nn.Module):
    """`Head` without its last upsampling, and its convolution computed as it stands."""

    def __init__(self, source: Head) -> None:
        super().__init__()
        self.convolution, self.classifier = source.convolution, source.classifier

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """values: (1, F, h, w), to be upsampled. Returns (1, classes, 2h, 2w), to be upsampled."""
        scores: torch.Tensor = self.classifier(self.convolution(upsample(values)).relu())
        return scores


class ChannelsLast(nn.Module):
    """A network whose input and output have the channels last, as they lie in memory."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """pixels: (1, H, W, 3), normalised. Returns (1, h, w, classes), to be upsampled by two."""
        scores: torch.Tensor = self.network(pixels.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return scores


def converted(network: Network) -> Any:
    """OpenVINO's model of `ChannelsLast`, for one image of any height and width.

    network: float32, on the CPU; it may not be used any more. Raises ModelError for a hybrid.
    """
    if network.backbone is not None:  # OpenVINO 2026.4 crashes as it compiles one
        raise ModelError("a DPT-Hybrid cannot be converted to 8 bits: set MASKQ_DTYPE=float32")
    unit = math.lcm(_MULTIPLE, network.embedding.projection.kernel_size[0])
    example = torch.zeros(1, 2 * unit, 3 * unit, 3)
    with torch.no_grad(), _quiet_torch():
        traced = torch.jit.freeze(torch.jit.trace(_traceable(network), example, check_trace=False))
        model = openvino().convert_model(traced, example_input=example)
    model.reshape([1, -1, -1, 3])
    return model


def _traceable(network: Network) -> nn.Module:
    parts: Any = network  # the new parts are of other types
    parts.embedding = AnyShapeEmbedding(network.embedding)
    parts.neck.fusions = nn.ModuleList(AnyShapeFusion(fusion) for fusion in parts.neck.fusions)
    parts.head = CoarseHead(network.head)
    return ChannelsLast(network).eval()


@contextmanager
def _quiet_torch() -> Iterator[None]:
    """Tracing is deprecated, and what OpenVINO itself does."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`?torch\.jit\.", DeprecationWarning)
        yield
