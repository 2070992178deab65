"""The few classes that matter in a cell of the score grid, and the pixels that they decide."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import torch

from maskq_worker.model.masks.blocks import Part

_FEW: Final = 4  # candidates of a cell that are compared without the other classes
_AT_ONCE: Final = 1 << 17  # scores of a CPU: half a megabyte stays in a core's cache
_NEVER: Final = torch.finfo(torch.float32).min / 4  # the score of a candidate that is not one


class CellCandidates:
    """Some cells of a part, each with the few classes that can win in it, or nearly win."""

    def __init__(self, part: Part, cells: torch.Tensor, slack: float = 0.0) -> None:
        """
        Args:
            cells: (h, w) bool; a cell has the place of its first corner.
            slack: a class that may come so close to the winner is a candidate, too.
        """
        self._part = part
        self._cells = cells
        places = cells.nonzero()
        self._slot = torch.zeros(cells.shape, dtype=torch.int64, device=cells.device)
        self._slot[cells] = torch.arange(len(places), device=cells.device)
        few = min(_FEW, part.classes)
        at_once = max(1, part.budget_bytes // (20 * part.classes))
        found = [_candidates(part, some, few, slack) for some in torch.split(places, at_once)]
        self._ids = torch.cat([ids for ids, _, _ in found])  # (n, few)
        self._values = torch.cat([values for _, values, _ in found])  # (n, 4, few) at the corners
        self._enough = torch.cat([enough for _, _, enough in found])  # (n,) no other class matters

    def split(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The pixels in these cells that the few candidates decide, and those that they do not.

        Both are flat positions (P,) in the part.
        """
        wide = self._cells.index_select(1, self._part.columns.first)
        pixels = _positions(wide.index_select(0, self._part.rows.first))
        if self._enough.all():
            return pixels, pixels[:0]
        enough = torch.cat(
            [
                self._enough[self._slots(*self._part.rows_and_columns(some))]
                for some in torch.split(pixels, self._at_once)
            ]
        )
        return pixels[enough], pixels[~enough]

    def scores(
        self, pixels: torch.Tensor
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """The candidates of pixels (P,), some at a time: these (p,), class ids and scores, both
        (p, few)."""
        for some in torch.split(pixels, self._at_once):
            i, j = self._part.rows_and_columns(some)
            slots = self._slots(i, j)
            means = torch.bmm(self._part.weights(i, j)[:, None], self._values[slots])[:, 0]
            yield some, self._ids[slots], means

    @property
    def _at_once(self) -> int:
        return max(1, self._part.budget_bytes // 256)

    def _slots(self, i: torch.Tensor, j: torch.Tensor) -> torch.Tensor:
        return self._slot[self._part.rows.first[i], self._part.columns.first[j]]


def _candidates(
    part: Part, cells: torch.Tensor, few: int, slack: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The candidates of n cells (n, 2).

    Returns their class ids (n, few), ascending, as argmax settles a tie; their scores at the corners
    (n, 4, few); and for each cell whether all classes that matter are among them (n,). A cell of fewer
    candidates has scores that never win in the places that are left. If the candidates are not enough,
    ids and scores have no meaning.
    """
    places = _corner_places(part, cells)
    reachable = _reachable(part, places, slack)
    count = reachable.view(torch.uint8).sum(dim=1, dtype=torch.int32).long()
    enough = count <= few
    if not enough.all():
        reachable[~enough] = False  # bounds what the positions take
    found = _positions(reachable)
    # The zero is there if none is found.
    ids = torch.cat([found % part.classes, found.new_zeros(1)])
    last = count * enough
    place = torch.arange(few, device=cells.device)
    order = place.minimum((last - 1).clamp_(min=0)[:, None])
    chosen = ids[(last.cumsum(0) - last)[:, None] + order]
    at = places.T[:, :, None] * part.classes + chosen[:, None]  # (n, 4, few)
    values = part.scores.view(-1).index_select(0, at.flatten()).view(at.shape)
    values.masked_fill_((place >= last[:, None])[:, None], _NEVER)
    return chosen, values, enough


def _corner_places(part: Part, cells: torch.Tensor) -> torch.Tensor:
    """Flat positions among the scores of the corners of n cells (n, 2): (4, n)."""
    y, x = cells.unbind(1)
    below = (y + int(part.between[0])).clamp_(max=part.height - 1)
    right = (x + int(part.between[1])).clamp_(max=part.width - 1)
    return torch.stack([row * part.width + column for row in (y, below) for column in (x, right)])


def _reachable(part: Part, places: torch.Tensor, slack: float) -> torch.Tensor:
    """Whether a class can win in a cell, or come within `slack` of the winner: (n, C) bool.

    A NaN makes all classes reachable. places: (4, n). On a CPU so many cells at a time that they stay
    in a core's cache.
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
        needed = least.amax(dim=1, keepdim=True) - slack
        torch.lt(most, needed, out=answer).logical_not_()
    return reachable


def _positions(flags: torch.Tensor) -> torch.Tensor:
    """The flat positions of what is true, ascending. numpy is ten times as fast on a CPU."""
    if flags.device.type != "cpu":
        return flags.flatten().nonzero()[:, 0]
    return torch.from_numpy(np.flatnonzero(flags.numpy()))


def disagreeing(best: torch.Tensor, down: bool, across: bool) -> torch.Tensor:
    """Whether the corners (i, j) to (i + 1, j + 1) disagree: (h, w) bool. Edges are repeated.

    down, across: whether pixels lie between rows, and between columns; if not, these do not count.
    """
    one, *others = corners_of(best, down, across)
    return torch.stack([one != other for other in others]).any(dim=0)


def corners_of(values: torch.Tensor, down: bool, across: bool) -> tuple[torch.Tensor, ...]:
    """The values (h, w) at the four corners of each cell, (h, w) each, as of `disagreeing`."""
    right = torch.cat([values[:, 1:], values[:, -1:]], dim=1) if across else values
    below = torch.cat([values[1:], values[-1:]]) if down else values
    diagonal = torch.cat([right[1:], right[-1:]]) if down else right
    return values, right, below, diagonal
