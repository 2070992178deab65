"""From the network's scores to a mask at the image's own size, in bounded memory.

transformers upsamples every class to the image's size and takes the argmax: 7.2 GB for 150 classes and
12 megapixels. Three facts make it cheap. Every output pixel lies in one cell of the score grid, and is
a weighted mean of the cell's four corners. If the corners agree on the best class, so do all pixels
between them. If they disagree (at the borders of regions), a class can win only if its score at its
best corner reaches some class's score at its worst corner: mostly two or three classes do.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torch.nn import functional

from maskq_worker.model.masks.borders import Borders
from maskq_worker.model.masks.interpolation import Interpolation, plain_interpolation
from maskq_worker.model.masks.scores import mask_dtype

if TYPE_CHECKING:
    from numpy.typing import NDArray

BUDGET_BYTES: Final = 32 * 2**20  # of temporary memory, besides one copy of the scores
_FEW_CLASSES: Final = 32  # up to so many, a CPU is fastest if it compares all in every pixel
_BAND: Final = 1 << 17  # scores at a time then: half a megabyte stays in a core's cache
_SMALL: Final = 2.0  # times the grid's places: for fewer pixels it is faster to compute each one
_DENSE: Final = (
    0.25  # of a block's pixels: with more of them undecided, all classes of all are faster
)


def upsampled_argmax(
    logits: torch.Tensor, size: tuple[int, int], *, budget_bytes: int = BUDGET_BYTES
) -> NDArray[np.unsignedinteger[Any]]:
    """The best class of every pixel after bilinear interpolation (`align_corners=False`).

    Equal to `interpolate` and `argmax`, but for pixels in which two classes are tied up to rounding.

    Args:
        logits: (C, h, w) floating point, C <= 65536, on any device.
        size: (H, W) px of the mask.
        budget_bytes: of temporary memory.

    Returns:
        (H, W) class ids, uint8 up to 256 classes, else uint16.
    """
    classes, height, width = logits.shape
    # `_all_compared` takes two arrays (C, h, W), and is slower for a large mask.
    all_scores = 4 * classes * max(2 * height, size[0]) * size[1]
    few = classes <= _FEW_CLASSES and all_scores <= budget_bytes
    if few and logits.device.type == "cpu":
        return _all_compared(logits.float().contiguous().numpy(), size)
    mask = np.empty(size, mask_dtype(classes))
    # A few pixels are computed one by one, whatever the number of scores.
    narrow = math.prod(size) > _SMALL * height * width
    for rows, columns, part in _parts(logits, size, budget_bytes, narrow=narrow):
        mask[rows, columns] = part.mask().cpu().numpy()
    return mask


@np.errstate(all="ignore")  # callers check for NaN and infinite scores, or accept them
def _all_compared(
    scores: NDArray[np.float32], size: tuple[int, int]
) -> NDArray[np.unsignedinteger[Any]]:
    """The mask, by a comparison of all classes in every pixel, some rows at a time.

    numpy's calls cost less than torch's here, and an argmax over the classes takes three times as long.

    scores: (C, h, w). Returns (H, W).
    """
    classes, height, width = scores.shape
    rows, columns = plain_interpolation(height, size[0]), plain_interpolation(width, size[1])
    wide = columns.interpolated(scores, 2)
    mask = np.zeros(size, mask_dtype(classes))
    at_once = max(1, _BAND // (classes * size[1]))
    for top in range(0, size[0], at_once):
        best, *others = rows.at(slice(top, top + at_once)).interpolated(wide, 1)
        for index, challenger in enumerate(others, 1):
            np.putmask(mask[top : top + at_once], challenger > best, index)
            np.maximum(best, challenger, out=best)
    return mask


def mask_with_confidence(
    logits: torch.Tensor, size: tuple[int, int], *, budget_bytes: int = BUDGET_BYTES
) -> tuple[NDArray[np.unsignedinteger[Any]], NDArray[np.uint8]]:
    """The mask as of `upsampled_argmax`, and the softmax probability of each pixel's class.

    All classes count in every pixel, so it takes as much time as transformers.

    Args:
        logits: (C, h, w) floating point, C <= 65536, on any device.
        size: (H, W) px of the mask.
        budget_bytes: of temporary memory.

    Returns:
        The mask (H, W), uint8 up to 256 classes, else uint16; the probabilities (H, W), 0..255
        for 0..1.
    """
    mask = np.empty(size, mask_dtype(len(logits)))
    confidence = np.empty(size, np.uint8)
    for rows, columns, part in _parts(logits, size, budget_bytes, narrow=True):
        for y, x, best, share in part.all_classes(confidence=True):
            mask[rows, columns][y, x] = best.cpu().numpy()
            confidence[rows, columns][y, x] = share.cpu().numpy()
    return mask, confidence


def _parts(
    logits: torch.Tensor, size: tuple[int, int], budget_bytes: int, *, narrow: bool
) -> Iterator[tuple[slice, slice, Part]]:
    """The mask in blocks of pixels, as large as the budget allows: rows, columns, and the part.

    narrow: whether the scores are first interpolated along a side with fewer pixels than scores. Then
    the time and memory of later steps depend on the mask's pixels only.
    """
    scores = logits.float().permute(1, 2, 0).contiguous()  # (h, w, C): a pixel's scores together
    interpolation = [
        Interpolation.of(source, target, logits.device)
        for source, target in zip(scores.shape[:2], size, strict=True)
    ]
    for dim, target in enumerate(size):
        if narrow and target < scores.shape[dim]:
            scores = _interpolated(scores, interpolation[dim], dim, budget_bytes)
            interpolation[dim] = Interpolation.identity(target, logits.device)
    # Whether pixels lie between rows, and between columns, of the scores.
    between = scores.shape[0] != size[0], scores.shape[1] != size[1]
    for rows, columns in _blocks(size, budget_bytes // 64):
        (y, row_interpolation), (x, column_interpolation) = (
            interpolation[0].window(rows),
            interpolation[1].window(columns),
        )
        part = Part(
            scores[y, x].contiguous(),
            row_interpolation,
            column_interpolation,
            between,
            budget_bytes,
        )
        yield rows, columns, part


def _blocks(size: tuple[int, int], pixels: int) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of blocks of at most so many pixels, of whole rows if one has no more."""
    height, width = size
    wide = min(width, max(1, pixels))
    high = max(1, pixels // wide)
    for top in range(0, height, high):
        for left in range(0, width, wide):
            yield slice(top, min(top + high, height)), slice(left, min(left + wide, width))


class Part:
    """A block of the mask, and the scores that its pixels lie between."""

    def __init__(
        self,
        scores: torch.Tensor,
        rows: Interpolation,
        columns: Interpolation,
        between: tuple[bool, bool],
        budget_bytes: int,
    ) -> None:
        """scores: (h, w, C) float32, contiguous. rows, columns: their interpolation to the
        block's. between: whether pixels lie between rows, and between columns of the scores."""
        self.height, self.width, self.classes = scores.shape
        self.size = (len(rows.first), len(columns.first))
        self.scores, self.rows, self.columns = scores, rows, columns
        self.between = between
        self.budget_bytes = budget_bytes
        self.dtype = torch.uint8 if self.classes <= 256 else torch.int32

    def mask(self) -> torch.Tensor:
        """(H, W): the best class of every pixel."""
        if math.prod(self.size) <= _SMALL * self.height * self.width:
            mask = torch.empty(self.size, dtype=self.dtype, device=self.scores.device)
            self.decide(mask, torch.ones_like(mask, dtype=torch.bool).nonzero())
            return mask
        best = _argmax(self.scores).to(self.dtype)  # (h, w)
        mask = best.index_select(1, self.columns.first).index_select(0, self.rows.first)
        undecided = Borders(self, best).decide(mask)
        if len(undecided) > _DENSE * mask.numel():
            for rows, columns, winner, _ in self.all_classes(confidence=False):
                mask[rows, columns] = winner
        else:
            self.decide(mask, undecided)
        return mask

    def corners(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Of P pixels (P, 2): flat positions among the scores and weights, both (P, 4)."""
        i, j = pixels.unbind(1)
        rows, columns = self.rows.at(i), self.columns.at(j)
        places = [
            y * self.width + x
            for y in (rows.first, rows.second)
            for x in (columns.first, columns.second)
        ]
        return torch.stack(places, dim=1), self.weights(i, j)

    def weights(self, i: torch.Tensor, j: torch.Tensor) -> torch.Tensor:
        """Of P pixels in rows i and columns j: the weights of the corners (P, 4)."""
        rows = self.rows.first_weight[i], self.rows.second_weight[i]
        columns = self.columns.first_weight[j], self.columns.second_weight[j]
        return torch.stack([y * x for y in rows for x in columns], dim=1)

    def decide(self, mask: torch.Tensor, pixels: torch.Tensor) -> None:
        """Write the best of all classes into some pixels (P, 2) of the mask."""
        table = self.scores.view(-1, self.classes)
        at_once = max(1, self.budget_bytes // (4 * self.classes + 64))
        for some in torch.split(pixels, at_once):
            places, weights = self.corners(some)
            means = functional.embedding_bag(places, table, mode="sum", per_sample_weights=weights)
            i, j = some.unbind(1)
            mask[i, j] = _argmax(means).to(self.dtype)

    def all_classes(
        self, *, confidence: bool
    ) -> Iterator[tuple[slice, slice, torch.Tensor, torch.Tensor]]:
        """The mask from all scores, in blocks: rows, columns, the best, the confidence (or best)."""
        for rows, columns in _blocks(self.size, self.budget_bytes // (12 * self.classes)):
            (y, row_interpolation), (x, column_interpolation) = (
                self.rows.window(rows),
                self.columns.window(columns),
            )
            means = _between(
                column_interpolation, _between(row_interpolation, self.scores[y, x], 0), 1
            )
            highest, best = means.max(dim=2)
            share = best
            if confidence:
                whole = means.sub_(highest[..., None]).exp_().sum(dim=2)
                share = whole.reciprocal().mul_(255.0).round_().to(torch.uint8)
            yield rows, columns, best.to(self.dtype), share


def _argmax(values: torch.Tensor) -> torch.Tensor:
    """The argmax of the last dimension; of equals the first. numpy is three times as fast on a CPU."""
    if values.device.type != "cpu":
        return values.argmax(dim=-1)
    return torch.from_numpy(values.numpy().argmax(axis=-1))


def _between(interpolation: Interpolation, values: torch.Tensor, dim: int) -> torch.Tensor:
    """Linear interpolation of `values` along one of its first two dimensions."""
    shape = (-1, 1, 1) if dim == 0 else (1, -1, 1)
    first = values.index_select(dim, interpolation.first).mul_(
        interpolation.first_weight.view(shape)
    )
    second = values.index_select(dim, interpolation.second)
    return first.addcmul_(second, interpolation.second_weight.view(shape))


def _interpolated(
    values: torch.Tensor, interpolation: Interpolation, dim: int, budget_bytes: int
) -> torch.Tensor:
    """`_between` with temporary memory within the budget. values: (h, w, C)."""
    size = [*values.shape]
    size[dim] = len(interpolation.first)
    answer = values.new_empty(size)
    for rows, columns in _blocks((size[0], size[1]), budget_bytes // (12 * size[2])):
        along = (rows, columns)[dim]
        source, some = interpolation.window(along)
        window = (source, columns) if dim == 0 else (rows, source)
        answer[rows, columns] = _between(some, values[window], dim)
    return answer
