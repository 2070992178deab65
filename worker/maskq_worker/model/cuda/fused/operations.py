"""What the faster layers are made of, by torch alone: the definition, and the fallback."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from maskq_worker.model.cuda.coarse import upsampled

_SIGNIFICANT = {torch.float16: 11, torch.bfloat16: 8}  # bits of a number's significand
_FLOAT32 = 22  # bits: as many as two parts of float16 have, and near to float32's 24
_ALIGNED = 8  # classes: the tensor cores take multiples


@dataclass(frozen=True, slots=True)
class SplitClassifier:
    """A float32 classifier as weights of half precision that add up to it.

    weight = sum of parts[i] * scale^i: each part holds the bits that the part before it could not. A
    product with half precision inputs is exact in float32, so the sum over the parts is a float32
    product up to rounding, on the tensor cores.
    """

    parts: torch.Tensor  # (number of parts * stride, features), zero beyond the classes
    bias: torch.Tensor  # (classes,) float32
    number: int  # of parts
    stride: int  # classes, and zeros to a multiple of eight
    scale: float  # of each part to the one before

    @classmethod
    def of(cls, classifier: nn.Conv2d, dtype: torch.dtype) -> SplitClassifier:
        """classifier: 1x1, float32, with a bias."""
        weight = classifier.weight.detach().flatten(1)
        classes, features = weight.shape
        bits = _SIGNIFICANT[dtype]
        number, scale = -(-_FLOAT32 // bits), 2.0**-bits
        stride = -(-classes // _ALIGNED) * _ALIGNED
        parts = torch.zeros(number, stride, features, dtype=dtype, device=weight.device)
        left = weight.double()
        for part in parts:
            part[:classes] = left.to(dtype)
            left = (left - part[:classes].double()) / scale
        bias = classifier.get_parameter("bias").detach()
        return cls(parts.flatten(0, 1), bias, number, stride, scale)


class TorchOperations:
    """Every operation by torch. Maps are (B, C, h, w), `channels_last`; tokens are (B, N, C)."""

    def upsample(self, values: torch.Tensor) -> torch.Tensor:
        """values (B, C, h, w) -> (B, C, 2h, 2w), bilinear, corner on corner."""
        return upsampled(values)

    def convolve_and_rectify(self, convolution: nn.Conv2d, values: torch.Tensor) -> torch.Tensor:
        """max(convolution(values), 0)."""
        answer: torch.Tensor = convolution(values)
        return answer.relu_()

    def add_maps(
        self,
        values: torch.Tensor,
        bias: torch.Tensor,
        shortcut: torch.Tensor,
        other: torch.Tensor | None = None,
        *,
        rectified: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """values + bias + shortcut (+ other), and if `rectified` max(that, 0) as well.

        All maps (B, C, h, w); bias: (C,).
        """
        total = (values + bias[:, None, None]).add_(shortcut)
        if other is not None:
            total.add_(other)
        return total, functional.relu(total) if rectified else None

    def widen(self, linear: nn.Linear, activation: nn.Module, tokens: torch.Tensor) -> torch.Tensor:
        """activation(linear(tokens))."""
        answer: torch.Tensor = activation(linear(tokens))
        return answer

    def add_and_normalise(
        self, tokens: torch.Tensor, change: torch.Tensor, norm: nn.LayerNorm
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """tokens + change, and the norm of that."""
        total = tokens + change
        return total, norm(total)

    def classify(self, values: torch.Tensor, classifier: SplitClassifier) -> torch.Tensor:
        """Scores (B, classes, h, w) float32 of a map (B, features, h, w), `channels_last`."""
        batch, features, height, width = values.shape
        places = values.permute(0, 2, 3, 1).reshape(-1, features)
        products = functional.linear(places.float(), classifier.parts.float())
        parts = products.unflatten(1, (classifier.number, classifier.stride))
        classes = len(classifier.bias)
        total = parts[:, -1, :classes]
        for part in range(classifier.number - 2, -1, -1):
            total = parts[:, part, :classes] + total * classifier.scale
        scores = total + classifier.bias
        return scores.view(batch, height, width, classes).permute(0, 3, 1, 2)
