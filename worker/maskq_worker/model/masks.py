"""From the network's scores to a mask at the image's own size, in bounded memory.

The reference upsamples every class to the image's size and takes the argmax: 7.2 GB for 150
classes and 12 megapixels. Two facts make it cheap. Every output pixel lies in one cell of the score
grid and is a weighted mean of the cell's four corners; where the four agree on the best class, so
does everything between them. Only pixels of the other cells (the borders of regions) need all
classes, and those are taken some thousand at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torch.nn import functional

if TYPE_CHECKING:
    from numpy.typing import NDArray

BUDGET_BYTES: Final = 32 * 2**20  # of temporary memory, besides one copy of the scores
TIE: Final = 1e-5  # of the largest score's magnitude: closer classes are equally good


def mask_dtype(classes: int) -> type[np.uint8] | type[np.uint16]:
    """The type of a mask: 8 bits where they hold every class id."""
    return np.uint8 if classes <= 256 else np.uint16


def upsampled_argmax(
    logits: torch.Tensor, size: tuple[int, int], *, budget_bytes: int = BUDGET_BYTES
) -> NDArray[np.unsignedinteger[Any]]:
    """The best class of every pixel after bilinear interpolation (`align_corners=False`).

    logits: (C, h, w) floating point, C <= 65536, on any device; size: (H, W) of the mask in px.
    Returns (H, W), uint8 up to 256 classes, else uint16. Equal to `interpolate` and `argmax`
    except where two classes are tied but for rounding.
    """
    classes, height, width = logits.shape
    scores = logits.float().permute(1, 2, 0).contiguous()  # (h, w, C): a pixel's scores together
    best = scores.argmax(dim=2).to(torch.uint8 if classes <= 256 else torch.int32)
    border = _border_cells(best)
    rows, columns = _taps(height, size[0], logits.device), _taps(width, size[1], logits.device)
    mask: NDArray[np.unsignedinteger[Any]] = np.empty(size, mask_dtype(classes))
    at_once = max(1, budget_bytes // (4 * classes + 64))  # border pixels, with indices and weights
    band = max(1, budget_bytes // (64 * size[1]))  # output rows
    for top in range(0, size[0], band):
        y = rows.first[top : top + band]
        part = best[y][:, columns.first]
        for pixels in torch.split(border[y][:, columns.first].nonzero(), at_once):
            i, j = pixels.unbind(1)
            part[i, j] = _interpolated_argmax(scores, rows.at(top + i), columns.at(j)).to(
                best.dtype
            )
        mask[top : top + band] = part.cpu().numpy()
    return mask


def untied_differences(logits: torch.Tensor, mask: np.ndarray, other: np.ndarray) -> int:
    """In how many pixels two masks (H, W) of the same logits (C, h, w) differ without a tie."""
    if mask.shape != other.shape:
        return max(mask.size, other.size)
    y, x = np.nonzero(mask != other)
    if not len(y):
        return 0
    exact = functional.interpolate(
        logits[None].double().cpu(), size=mask.shape, mode="bilinear", align_corners=False
    )[0].numpy()
    gap = np.abs(exact[mask[y, x], y, x] - exact[other[y, x], y, x])
    return int((gap > TIE * logits.abs().max().item()).sum())


@dataclass(frozen=True, slots=True)
class _Taps:
    """Which two source positions each of N output positions is a mean of, and with which weights."""

    first: torch.Tensor  # (N,) int64
    second: torch.Tensor  # (N,) int64: first + 1, but for the last position
    first_weight: torch.Tensor  # (N,) float32, 0..1
    second_weight: torch.Tensor  # (N,) float32, 0..1

    def at(self, index: torch.Tensor) -> _Taps:
        return _Taps(
            self.first[index],
            self.second[index],
            self.first_weight[index],
            self.second_weight[index],
        )


def _taps(source: int, target: int, device: torch.device) -> _Taps:
    """The taps of `interpolate` from `source` to `target` positions.

    The weights are read off `interpolate` itself: at 4000 px the float32 coordinate is off by
    1e-5 and more, by an amount that depends on how torch was compiled, and masks would differ by it.
    Positions 0, 1, 2, 0, 1, 2, … are marked in three signals: neighbours are told apart in each.
    """
    position = torch.arange(source, device=device)
    signals = functional.one_hot(position % 3, 3).T.float()[None]
    weights = functional.interpolate(signals, size=target, mode="linear", align_corners=False)[0]
    centre = (torch.arange(target, device=device) + 0.5) * (source / target) - 0.5
    guess = centre.floor().long()  # off by one at most
    near = torch.stack([guess - 1, guess, guess + 1]).clamp_(0, source - 1)
    lowest = weights.gather(0, near % 3).gt(0).byte().argmax(dim=0, keepdim=True)
    first = near.gather(0, lowest)[0]
    second = (first + 1).clamp_(max=source - 1)
    first_weight = weights.gather(0, first[None] % 3)[0]
    second_weight = weights.gather(0, second[None] % 3)[0] * (second > first)
    return _Taps(first, second, first_weight, second_weight)


def _border_cells(best: torch.Tensor) -> torch.Tensor:
    """(h, w) bool: whether the corners (i, j) to (i + 1, j + 1) disagree; edges are repeated."""
    right = torch.cat([best[:, 1:], best[:, -1:]], dim=1)
    below = torch.cat([best[1:], best[-1:]])
    diagonal = torch.cat([right[1:], right[-1:]])
    return (best != right) | (best != below) | (best != diagonal)


def _interpolated_argmax(scores: torch.Tensor, rows: _Taps, columns: _Taps) -> torch.Tensor:
    """The best class of P pixels: scores (h, w, C), taps of P positions each; (P,) int64."""
    height, width, classes = scores.shape
    corners = torch.stack(
        [y * width + x for y in (rows.first, rows.second) for x in (columns.first, columns.second)],
        dim=1,
    )
    weights = torch.stack(
        [
            y * x
            for y in (rows.first_weight, rows.second_weight)
            for x in (columns.first_weight, columns.second_weight)
        ],
        dim=1,
    )
    table = scores.view(height * width, classes)
    means = functional.embedding_bag(corners, table, mode="sum", per_sample_weights=weights)
    return means.argmax(dim=1)
