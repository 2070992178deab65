"""Which source positions an interpolated position is a mean of, and with which weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional


@dataclass(frozen=True, slots=True)
class Taps:
    """Two source positions for each of N output positions."""

    first: torch.Tensor  # (N,) int64
    second: torch.Tensor  # (N,) int64: first + 1, but for the last position
    first_weight: torch.Tensor  # (N,) float32, 0..1
    second_weight: torch.Tensor  # (N,) float32, 0..1

    @classmethod
    def of(cls, source: int, target: int, device: torch.device) -> Taps:
        """The taps of `interpolate` from `source` to `target` positions (`align_corners=False`).

        The weights are read off `interpolate` itself: at 4000 px the float32 coordinate is off by
        1e-5 and more, by an amount that depends on how torch was compiled, and masks would differ by
        it. Positions 0, 1, 2, 0, 1, 2, … are marked in three signals: neighbours are told apart in
        each.
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

    def at(self, index: torch.Tensor | slice) -> Taps:
        """Those of some output positions."""
        return Taps(
            self.first[index],
            self.second[index],
            self.first_weight[index],
            self.second_weight[index],
        )
