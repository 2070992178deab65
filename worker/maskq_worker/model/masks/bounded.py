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

from maskq_worker.model.masks.interpolation import Interpolation, plain_interpolation
from maskq_worker.model.masks.scores import mask_dtype

if TYPE_CHECKING:
    from numpy.typing import NDArray

BUDGET_BYTES: Final = 32 * 2**20  # of temporary memory, besides one copy of the scores
_FEW: Final = 4  # candidates of a border cell that are compared without the other classes
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
) -> Iterator[tuple[slice, slice, _Part]]:
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
        part = _Part(
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


class _Part:
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
        undecided = _Borders(self, best).decide(mask)
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


class _Borders:
    """The cells whose corners disagree, each with the few classes that can win in it."""

    def __init__(self, part: _Part, best: torch.Tensor) -> None:
        """best: (h, w), the best class at each place of the scores."""
        self._part = part
        border = _disagreeing(best, *part.between)
        cells = border.nonzero()
        self._border = border
        self._slot = torch.zeros(border.shape, dtype=torch.int64, device=border.device)
        self._slot[border] = torch.arange(len(cells), device=border.device)
        few = min(_FEW, part.classes)
        at_once = max(1, part.budget_bytes // (20 * part.classes))
        found = [_candidates(part, some, few) for some in torch.split(cells, at_once)]
        self._ids = torch.cat([ids for ids, _, _ in found])  # (n, few) ascending class ids
        self._values = torch.cat([values for _, values, _ in found])  # (n, 4, few) at the corners
        self._enough = torch.cat([enough for _, _, enough in found])  # (n,) no other class can win

    def decide(self, mask: torch.Tensor) -> torch.Tensor:
        """Decide pixels by the few candidates of their cells, and write them into the mask.

        Returns the undecided pixels (P, 2).
        """
        part = self._part
        left = []
        flat = mask.view(-1)
        wide = self._border.index_select(1, part.columns.first)
        pixels = _positions(wide.index_select(0, part.rows.first))
        for some in torch.split(pixels, max(1, part.budget_bytes // 256)):
            i = some.div(part.size[1], rounding_mode="floor")
            j = some - i * part.size[1]
            cell = self._slot[part.rows.first[i], part.columns.first[j]]
            enough = self._enough[cell]
            if not enough.all():
                left.append(torch.stack([i, j], dim=1)[~enough])
                some, cell, i, j = some[enough], cell[enough], i[enough], j[enough]
            means = torch.bmm(part.weights(i, j)[:, None], self._values[cell])[:, 0]
            winner = means.argmax(dim=1, keepdim=True)
            flat[some] = self._ids[cell].gather(1, winner)[:, 0].to(part.dtype)
        return torch.cat(left) if left else pixels.new_empty((0, 2))


def _candidates(
    part: _Part, cells: torch.Tensor, few: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The candidates of n cells (n, 2).

    Returns their class ids (n, few), ascending, the last one repeated; their scores at the corners
    (n, 4, few); and for each cell whether all classes that can win are among them (n,). If they are
    not, ids and scores have no meaning.
    """
    places = _corner_places(part, cells)
    reachable = _reachable(part, places)
    count = reachable.view(torch.uint8).sum(dim=1, dtype=torch.int32).long()
    enough = count <= few
    if not enough.all():
        reachable[~enough] = False  # bounds what the positions take
    found = _positions(reachable)
    ids = torch.cat(
        [found % part.classes, found.new_zeros(1)]
    )  # the zero is there if none is found
    last = count * enough
    order = torch.arange(few, device=cells.device).minimum((last - 1).clamp_(min=0)[:, None])
    chosen = ids[(last.cumsum(0) - last)[:, None] + order]
    at = places.T[:, :, None] * part.classes + chosen[:, None]  # (n, 4, few)
    values = part.scores.view(-1).index_select(0, at.flatten()).view(at.shape)
    return chosen, values, enough


def _corner_places(part: _Part, cells: torch.Tensor) -> torch.Tensor:
    """Flat positions among the scores of the corners of n cells (n, 2): (4, n)."""
    y, x = cells.unbind(1)
    below = (y + int(part.between[0])).clamp_(max=part.height - 1)
    right = (x + int(part.between[1])).clamp_(max=part.width - 1)
    return torch.stack([row * part.width + column for row in (y, below) for column in (x, right)])


def _reachable(part: _Part, places: torch.Tensor) -> torch.Tensor:
    """Whether a class can win in a cell: (n, C) bool. A NaN makes all classes reachable.

    places: (4, n). On a CPU so many cells at a time that they stay in a core's cache.
    """
    table = part.scores.view(-1, part.classes)
    reachable = torch.empty((places.shape[1], part.classes), dtype=torch.bool, device=table.device)
    at_once = max(1, _BAND // part.classes if table.device.type == "cpu" else len(reachable))
    for some, answer in zip(places.split(at_once, 1), reachable.split(at_once), strict=True):
        least = table.index_select(0, some[0])
        most = least.clone()
        for place in some[1:]:
            corner = table.index_select(0, place)
            torch.minimum(least, corner, out=least)
            torch.maximum(most, corner, out=most)
        torch.lt(most, least.amax(dim=1, keepdim=True), out=answer).logical_not_()
    return reachable


def _positions(flags: torch.Tensor) -> torch.Tensor:
    """The flat positions of what is true, ascending. numpy is ten times as fast on a CPU."""
    if flags.device.type != "cpu":
        return flags.flatten().nonzero()[:, 0]
    return torch.from_numpy(np.flatnonzero(flags.numpy()))


def _disagreeing(best: torch.Tensor, down: bool, across: bool) -> torch.Tensor:
    """Whether the corners (i, j) to (i + 1, j + 1) disagree: (h, w) bool. Edges are repeated.

    down, across: whether pixels lie between rows, and between columns; if not, these do not count.
    """
    right = torch.cat([best[:, 1:], best[:, -1:]], dim=1) if across else best
    below = torch.cat([best[1:], best[-1:]]) if down else best
    diagonal = torch.cat([right[1:], right[-1:]]) if down else right
    return (best != right) | (best != below) | (best != diagonal)
