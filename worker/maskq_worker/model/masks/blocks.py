"""A mask in blocks of pixels: the scores that a block's pixels lie between, and their interpolation.

A block's temporary memory stays within a budget.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.nn import functional

from maskq_worker.model.masks.interpolation import Interpolation


def parts(
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
    for rows, columns in blocks(size, budget_bytes // 64):
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


def whole_part(logits: torch.Tensor, size: tuple[int, int], budget_bytes: int) -> Part:
    """All pixels of a mask as one part, for questions about some of them."""
    rows, columns = (
        Interpolation.of(source, target, logits.device)
        for source, target in zip(logits.shape[1:], size, strict=True)
    )
    scores = logits.float().permute(1, 2, 0).contiguous()
    return Part(scores, rows, columns, (True, True), budget_bytes)


def blocks(size: tuple[int, int], pixels: int) -> Iterator[tuple[slice, slice]]:
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

    def corners(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Of pixels (P,): flat positions among the scores and weights, both (P, 4)."""
        i, j = self.rows_and_columns(pixels)
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

    def rows_and_columns(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Of flat positions (P,)."""
        i = pixels.div(self.size[1], rounding_mode="floor")
        return i, pixels - i * self.size[1]

    def pixel_scores(self, pixels: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The scores of all classes of some pixels, some at a time: these (p,), scores (p, C).

        pixels: flat positions (P,) in the part.
        """
        table = self.scores.view(-1, self.classes)
        at_once = max(1, self.budget_bytes // (4 * self.classes + 64))
        for some in torch.split(pixels, at_once):
            places, weights = self.corners(some)
            yield (
                some,
                functional.embedding_bag(places, table, mode="sum", per_sample_weights=weights),
            )

    def all_scores(self) -> Iterator[tuple[slice, slice, torch.Tensor]]:
        """All scores of all pixels, in blocks: rows, columns, (height, width, C)."""
        for rows, columns in blocks(self.size, self.budget_bytes // (12 * self.classes)):
            (y, row_interpolation), (x, column_interpolation) = (
                self.rows.window(rows),
                self.columns.window(columns),
            )
            yield (
                rows,
                columns,
                _between(
                    column_interpolation, _between(row_interpolation, self.scores[y, x], 0), 1
                ),
            )


def argmax(values: torch.Tensor) -> torch.Tensor:
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
    for rows, columns in blocks((size[0], size[1]), budget_bytes // (12 * size[2])):
        along = (rows, columns)[dim]
        source, some = interpolation.window(along)
        window = (source, columns) if dim == 0 else (rows, source)
        answer[rows, columns] = _between(some, values[window], dim)
    return answer
