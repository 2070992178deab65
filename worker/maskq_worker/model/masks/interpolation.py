"""Linear interpolation: each output position is the weighted mean of two source positions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Interpolation:
    """Two source positions for each of N output positions."""

    first: torch.Tensor  # (N,) int64
    second: torch.Tensor  # (N,) int64: first + 1, but for the last position
    first_weight: torch.Tensor  # (N,) float32, 0..1
    second_weight: torch.Tensor  # (N,) float32, 0..1

    @classmethod
    def of(cls, source: int, target: int, device: torch.device) -> Interpolation:
        """That of torch's `interpolate` from `source` to `target` positions (`align_corners=False`).

        The weights are read off `interpolate` itself. A computed weight would differ: at 4000 px the
        float32 coordinate is off by 1e-5 and more, depending on how torch was compiled. Three signals
        mark the positions 0, 1, 2, 0, 1, 2, …, so that neighbours differ in each signal.
        """
        position = torch.arange(source, device=device)
        signals = functional.one_hot(position % 3, 3).T.float()[None]
        weights = functional.interpolate(signals, size=target, mode="linear", align_corners=False)[
            0
        ]
        centre = (torch.arange(target, device=device) + 0.5) * (source / target) - 0.5
        guess = centre.floor().long()  # off by one at most
        near = torch.stack([guess - 1, guess, guess + 1]).clamp_(0, source - 1)
        lowest = weights.gather(0, near % 3).gt(0).byte().argmax(dim=0, keepdim=True)
        first = near.gather(0, lowest)[0]
        second = (first + 1).clamp_(max=source - 1)
        first_weight = weights.gather(0, first[None] % 3)[0]
        second_weight = weights.gather(0, second[None] % 3)[0] * (second > first)
        return cls(first, second, first_weight, second_weight)

    @classmethod
    def identity(cls, size: int, device: torch.device) -> Interpolation:
        """The interpolation that changes nothing: as many output positions as source positions."""
        first = torch.arange(size, device=device)
        ones = torch.ones(size, device=device)
        return cls(first, (first + 1).clamp_(max=size - 1), ones, torch.zeros_like(ones))

    def window(self, some: slice) -> tuple[slice, Interpolation]:
        """The source positions that some output positions need, and their interpolation from these."""
        interpolation = self.at(some)
        low, high = int(interpolation.first[0]), int(interpolation.second[-1]) + 1
        return slice(low, high), Interpolation(
            interpolation.first - low,
            interpolation.second - low,
            interpolation.first_weight,
            interpolation.second_weight,
        )

    def at(self, index: torch.Tensor | slice) -> Interpolation:
        """The interpolation of some output positions."""
        return Interpolation(
            self.first[index],
            self.second[index],
            self.first_weight[index],
            self.second_weight[index],
        )


@dataclass(frozen=True, slots=True)
class PlainInterpolation:
    """An `Interpolation` as numpy arrays."""

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    first_weight: NDArray[np.float32]
    second_weight: NDArray[np.float32]

    def at(self, some: slice) -> PlainInterpolation:
        """The interpolation of some output positions."""
        return PlainInterpolation(
            self.first[some], self.second[some], self.first_weight[some], self.second_weight[some]
        )

    def interpolated(self, values: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
        """Interpolate values (C, h, w) along axis 1 or 2."""
        shape = (-1, 1) if axis == 1 else (1, -1)
        first = values.take(self.first, axis)
        first *= self.first_weight.reshape(shape)
        second = values.take(self.second, axis)
        second *= self.second_weight.reshape(shape)
        first += second
        return first


@lru_cache(maxsize=32)
def plain_interpolation(source: int, target: int) -> PlainInterpolation:
    """The interpolation on the CPU. Cached: images share sizes, and a small mask takes less time."""
    interpolation = Interpolation.of(source, target, torch.device("cpu"))
    return PlainInterpolation(
        interpolation.first.numpy(),
        interpolation.second.numpy(),
        interpolation.first_weight.numpy(),
        interpolation.second_weight.numpy(),
    )
