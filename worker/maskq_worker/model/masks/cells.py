"""The few classes that matter in a cell of the score grid, and the pixels that they decide."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import torch

from maskq_worker.model.masks.blocks import Part

_FEW: Final = 4  # candidates of a cell that are compared without the other classes


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
        self._ids = torch.cat([ids for ids, _, _ in found])  # (n, few) ascending class ids
        self._values = torch.cat([values for _, values, _ in found])  # (n, 4, few) at the corners
        self._enough = torch.cat([enough for _, _, enough in found])  # (n,) no other class matters

    def pixels(self) -> torch.Tensor:
        """The pixels in these cells, (P, 2)."""
        wide = self._cells.index_select(1, self._part.columns.first)
        return wide.index_select(0, self._part.rows.first).nonzero()

    def split(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Pixels (P, 2) that the few candidates decide, and those that they do not."""
        enough = torch.cat(
            [self._enough[self._slots(some)] for some in torch.split(pixels, self._at_once)]
        )
        return pixels[enough], pixels[~enough]

    def scores(
        self, pixels: torch.Tensor
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """The candidates of pixels (P, 2), some at a time: these (p, 2), class ids and scores, both
        (p, few)."""
        for some in torch.split(pixels, self._at_once):
            slots = self._slots(some)
            _, weights = self._part.corners(some)
            means = torch.bmm(weights[:, None], self._values[slots])[:, 0]
            yield some, self._ids[slots], means

    @property
    def _at_once(self) -> int:
        return max(1, self._part.budget_bytes // 256)

    def _slots(self, pixels: torch.Tensor) -> torch.Tensor:
        i, j = pixels.unbind(1)
        return self._slot[self._part.rows.first[i], self._part.columns.first[j]]


def _candidates(
    part: Part, cells: torch.Tensor, few: int, slack: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The candidates of n cells (n, 2).

    Returns their class ids (n, few), their scores at the corners (n, 4, few), and for each cell whether
    all classes that matter are among them (n,).
    """
    y, x = cells.unbind(1)
    below = (y + int(part.between[0])).clamp_(max=part.height - 1)
    right = (x + int(part.between[1])).clamp_(max=part.width - 1)
    places = [(y, x), (y, right), (below, x), (below, right)]
    least = most = part.scores[places[0]]
    for place in places[1:]:
        corner = part.scores[place]
        least, most = torch.minimum(least, corner), torch.maximum(most, corner)
    reachable = most >= least.max(dim=1, keepdim=True).values - slack
    ids = most.topk(few, dim=1).indices.sort(dim=1).values  # ascending, as argmax settles a tie
    values = torch.stack([part.scores[yy[:, None], xx[:, None], ids] for yy, xx in places], dim=1)
    return ids, values, reachable.sum(dim=1) <= few


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
