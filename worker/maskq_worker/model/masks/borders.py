"""The cells of the score grid at the borders of regions, and which classes can win in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
import torch

if TYPE_CHECKING:
    from maskq_worker.model.masks.interpolation import Interpolation

_FEW: Final = 4  # candidates of a border cell that are compared without the other classes
_AT_ONCE: Final = 1 << 17  # scores of a CPU: half a megabyte stays in a core's cache


class Part(Protocol):
    """A block of the mask, and the scores that its pixels lie between (bounded.py)."""

    size: tuple[int, int]  # (H, W) px
    height: int  # of the scores, as width and classes
    width: int
    classes: int
    scores: torch.Tensor  # (h, w, C) float32, contiguous
    rows: Interpolation
    columns: Interpolation
    between: tuple[bool, bool]  # whether pixels lie between rows, and between columns of the scores
    budget_bytes: int
    dtype: torch.dtype  # of the mask

    def weights(self, i: torch.Tensor, j: torch.Tensor) -> torch.Tensor:
        """Of P pixels in rows i and columns j: the weights of the corners (P, 4)."""


class Borders:
    """The cells whose corners disagree, each with the few classes that can win in it."""

    def __init__(self, part: Part, best: torch.Tensor) -> None:
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
    part: Part, cells: torch.Tensor, few: int
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


def _corner_places(part: Part, cells: torch.Tensor) -> torch.Tensor:
    """Flat positions among the scores of the corners of n cells (n, 2): (4, n)."""
    y, x = cells.unbind(1)
    below = (y + int(part.between[0])).clamp_(max=part.height - 1)
    right = (x + int(part.between[1])).clamp_(max=part.width - 1)
    return torch.stack([row * part.width + column for row in (y, below) for column in (x, right)])


def _reachable(part: Part, places: torch.Tensor) -> torch.Tensor:
    """Whether a class can win in a cell: (n, C) bool. A NaN makes all classes reachable.

    places: (4, n). On a CPU so many cells at a time that they stay in a core's cache.
    """
    table = part.scores.view(-1, part.classes)
    reachable = torch.empty((places.shape[1], part.classes), dtype=torch.bool, device=table.device)
    at_once = max(1, _AT_ONCE // part.classes if table.device.type == "cpu" else len(reachable))
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
