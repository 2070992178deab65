"""From the network's scores to a mask at the image's own size, in bounded memory.

The reference upsamples every class to the image's size and takes the argmax: 7.2 GB for 150
classes and 12 megapixels. Three facts make it cheap. Every output pixel lies in one cell of the score
grid and is a weighted mean of the cell's four corners. Where the four agree on the best class, so
does everything between them. And where they do not (the borders of regions), a class can win only if at
its best corner it reaches what some class has at its worst: mostly two or three of all do.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torch.nn import functional

from maskq_worker.model.taps import Taps, plain_taps

if TYPE_CHECKING:
    from numpy.typing import NDArray

BUDGET_BYTES: Final = 32 * 2**20  # of temporary memory, besides one copy of the scores
TIE: Final = 1e-5  # of the largest score's magnitude: closer classes are equally good
_FEW: Final = 4  # candidates of a border cell that are looked at alone
_FEW_CLASSES: Final = 32  # for no more a CPU makes a small mask soonest by looking at all of them
_BAND: Final = 1 << 17  # scores at once there: half a megabyte stays in a core's cache
_SMALL: Final = 2.0  # times the grid's places: for fewer pixels it is cheaper to look at each
_DENSE: Final = 0.25  # of a band's pixels: with more of them open, all classes of all are cheaper


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
    # It takes two arrays (C, h, W), and for a large mask another way is sooner done.
    all_scores = 4 * classes * max(2 * height, size[0]) * size[1]
    few = classes <= _FEW_CLASSES and all_scores <= budget_bytes
    if few and logits.device.type == "cpu":
        return _between_all(logits.float().contiguous().numpy(), size)
    grid = _Grid(logits, size, budget_bytes)
    if size[0] * size[1] <= _SMALL * height * width:
        return _each_pixel(grid)
    borders = _Borders(grid)
    unanimous = grid.best.index_select(1, grid.columns.first)  # (h, W): a row of the mask is a copy
    mask = np.empty(size, mask_dtype(grid.classes))
    for top, bottom in grid.bands():
        part = unanimous.index_select(0, grid.rows.first[top:bottom])
        still_open = borders.decide(grid, part, top)
        if len(still_open) > _DENSE * part.numel():
            for row, best, _ in grid.all_classes(top, bottom, confidence=False):
                part[row : row + len(best)] = best
        else:
            grid.decide(part, still_open, top)
        mask[top:bottom] = part.cpu().numpy()
    return mask


@np.errstate(all="ignore")  # whoever calls looks for scores that are no numbers, or does not mind
def _between_all(
    scores: NDArray[np.float32], size: tuple[int, int]
) -> NDArray[np.unsignedinteger[Any]]:
    """The mask, every pixel decided between all classes, some rows at a time.

    scores: (C, h, w). numpy, whose calls cost less than torch's, and a comparison for each class, where
    an argmax across them takes three times as long.
    """
    classes, height, width = scores.shape
    rows, columns = plain_taps(height, size[0]), plain_taps(width, size[1])
    wide = columns.interpolated(scores, 2)
    mask = np.zeros(size, mask_dtype(classes))
    at_once = max(1, _BAND // (classes * size[1]))
    for top in range(0, size[0], at_once):
        best, *others = rows.at(slice(top, top + at_once)).interpolated(wide, 1)
        for index, challenger in enumerate(others, 1):
            np.putmask(mask[top : top + at_once], challenger > best, index)
            np.maximum(best, challenger, out=best)
    return mask


def _each_pixel(grid: _Grid) -> NDArray[np.unsignedinteger[Any]]:
    """The mask, every pixel decided between all classes."""
    mask = np.empty(grid.size, mask_dtype(grid.classes))
    for top, bottom in grid.bands():
        part = torch.empty(
            (bottom - top, grid.size[1]), dtype=grid.dtype, device=grid.scores.device
        )
        grid.decide(part, torch.ones_like(part, dtype=torch.bool).nonzero(), top)
        mask[top:bottom] = part.cpu().numpy()
    return mask


def mask_with_confidence(
    logits: torch.Tensor, size: tuple[int, int], *, budget_bytes: int = BUDGET_BYTES
) -> tuple[NDArray[np.unsignedinteger[Any]], NDArray[np.uint8]]:
    """The mask as `upsampled_argmax`, and beside it the winner's softmax probability, 0..255 for 0..1.

    Both (H, W). Every class counts in every pixel here, so it costs as much time as the reference.
    """
    grid = _Grid(logits, size, budget_bytes)
    mask = np.empty(size, mask_dtype(grid.classes))
    confidence = np.empty(size, np.uint8)
    for row, best, share in grid.all_classes(0, size[0], confidence=True):
        mask[row : row + len(best)] = best.cpu().numpy()
        confidence[row : row + len(best)] = share.cpu().numpy()
    return mask, confidence


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


class _Grid:
    """The scores, and where each pixel of the mask lies between them."""

    def __init__(self, logits: torch.Tensor, size: tuple[int, int], budget_bytes: int) -> None:
        self.classes, self.height, self.width = logits.shape
        self.size = size
        self.budget_bytes = budget_bytes
        # (h, w, C): a pixel's scores together
        self.scores = logits.float().permute(1, 2, 0).contiguous()
        self.dtype = torch.uint8 if self.classes <= 256 else torch.int32
        self.rows = Taps.of(self.height, size[0], logits.device)
        self.columns = Taps.of(self.width, size[1], logits.device)

    @cached_property
    def best(self) -> torch.Tensor:
        """(h, w): the best class at each place of the grid."""
        return _argmax(self.scores).to(self.dtype)

    def bands(self) -> Iterator[tuple[int, int]]:
        """Output rows (top, bottom), as many at once as the budget allows."""
        at_once = max(1, self.budget_bytes // (64 * self.size[1]))
        for top in range(0, self.size[0], at_once):
            yield top, min(top + at_once, self.size[0])

    def corners(self, pixels: torch.Tensor, top: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Of P pixels (P, 2), rows from `top`: flat positions in the grid and weights, both (P, 4)."""
        i, j = pixels.unbind(1)
        rows, columns = self.rows.at(top + i), self.columns.at(j)
        places = [
            y * self.width + x
            for y in (rows.first, rows.second)
            for x in (columns.first, columns.second)
        ]
        weights = [
            y * x
            for y in (rows.first_weight, rows.second_weight)
            for x in (columns.first_weight, columns.second_weight)
        ]
        return torch.stack(places, dim=1), torch.stack(weights, dim=1)

    def decide(self, part: torch.Tensor, pixels: torch.Tensor, top: int) -> None:
        """Write the best of all classes into the pixels (P, 2) of a band that begins at `top`."""
        table = self.scores.view(-1, self.classes)
        at_once = max(1, self.budget_bytes // (4 * self.classes + 64))
        for some in torch.split(pixels, at_once):
            places, weights = self.corners(some, top)
            means = functional.embedding_bag(places, table, mode="sum", per_sample_weights=weights)
            i, j = some.unbind(1)
            part[i, j] = _argmax(means).to(self.dtype)

    def all_classes(
        self, top: int, bottom: int, *, confidence: bool
    ) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
        """Rows of the mask from all scores: first row, from `top`; best (r, W); confidence, or best."""
        at_once = max(1, self.budget_bytes // (12 * self.classes * self.size[1]))
        for start in range(top, bottom, at_once):
            rows = self.rows.at(slice(start, min(start + at_once, bottom)))
            means = _between(self.columns, _between(rows, self.scores, 0), 1)
            highest, best = means.max(dim=2)
            share = best
            if confidence:
                whole = means.sub_(highest[..., None]).exp_().sum(dim=2)
                share = whole.reciprocal().mul_(255.0).round_().to(torch.uint8)
            yield start - top, best.to(self.dtype), share


def _argmax(values: torch.Tensor) -> torch.Tensor:
    """Along the last dimension, the first of equals. numpy takes a third of torch's time on a CPU."""
    if values.device.type != "cpu":
        return values.argmax(dim=-1)
    return torch.from_numpy(values.numpy().argmax(axis=-1))


def _between(taps: Taps, values: torch.Tensor, dim: int) -> torch.Tensor:
    """Linear interpolation of `values` along one of its first two dimensions."""
    shape = (-1, 1, 1) if dim == 0 else (1, -1, 1)
    first = values.index_select(dim, taps.first).mul_(taps.first_weight.view(shape))
    second = values.index_select(dim, taps.second)
    return first.addcmul_(second, taps.second_weight.view(shape))


class _Borders:
    """The cells whose corners disagree, each with the few classes that can win in it."""

    def __init__(self, grid: _Grid) -> None:
        border = _disagreeing(grid.best)
        cells = border.nonzero()
        self._wide = border.index_select(1, grid.columns.first)  # (h, W)
        self._slot = torch.zeros(border.shape, dtype=torch.int64, device=border.device)
        self._slot[border] = torch.arange(len(cells), device=border.device)
        few = min(_FEW, grid.classes)
        at_once = max(1, grid.budget_bytes // (20 * grid.classes))
        parts = [_candidates(grid, some, few) for some in torch.split(cells, at_once)]
        self._ids = torch.cat([ids for ids, _, _ in parts])  # (n, few) ascending class ids
        self._values = torch.cat([values for _, values, _ in parts])  # (n, 4, few) at the corners
        self._enough = torch.cat([enough for _, _, enough in parts])  # (n,) no other class can win

    def decide(self, grid: _Grid, part: torch.Tensor, top: int) -> torch.Tensor:
        """Write what the few candidates decide into a band that begins at `top`; the pixels (P, 2)
        that are left open come back."""
        rows = grid.rows.first[top : top + len(part)]
        left = []
        pixels = self._wide.index_select(0, rows).nonzero()
        for some in torch.split(pixels, max(1, grid.budget_bytes // 256)):
            i, j = some.unbind(1)
            cell = self._slot[rows[i], grid.columns.first[j]]
            enough = self._enough[cell]
            if not enough.all():
                left.append(some[~enough])
                some, cell = some[enough], cell[enough]
                i, j = some.unbind(1)
            _, weights = grid.corners(some, top)
            means = torch.bmm(weights[:, None], self._values[cell])[:, 0]
            winner = means.argmax(dim=1, keepdim=True)
            part[i, j] = self._ids[cell].gather(1, winner)[:, 0].to(grid.dtype)
        return torch.cat(left) if left else pixels[:0]


def _candidates(
    grid: _Grid, cells: torch.Tensor, few: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of n cells (n, 2): ids (n, few) of the most promising classes, their scores (n, 4, few) at the
    corners, and whether (n,) every class that can win is among them."""
    y, x = cells.unbind(1)
    below, right = (y + 1).clamp_(max=grid.height - 1), (x + 1).clamp_(max=grid.width - 1)
    places = [(y, x), (y, right), (below, x), (below, right)]
    least = most = grid.scores[places[0]]
    for place in places[1:]:
        corner = grid.scores[place]
        least, most = torch.minimum(least, corner), torch.maximum(most, corner)
    reachable = most >= least.max(dim=1, keepdim=True).values
    ids = most.topk(few, dim=1).indices.sort(dim=1).values  # ascending, as argmax settles a tie
    values = torch.stack([grid.scores[yy[:, None], xx[:, None], ids] for yy, xx in places], dim=1)
    return ids, values, reachable.sum(dim=1) <= few


def _disagreeing(best: torch.Tensor) -> torch.Tensor:
    """(h, w) bool: whether the corners (i, j) to (i + 1, j + 1) disagree; edges are repeated."""
    right = torch.cat([best[:, 1:], best[:, -1:]], dim=1)
    below = torch.cat([best[1:], best[-1:]])
    diagonal = torch.cat([right[1:], right[-1:]])
    return (best != right) | (best != below) | (best != diagonal)
