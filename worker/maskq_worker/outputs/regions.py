"""Boxes and connected regions per class, in bounded memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Survey:
    """Boxes and regions per class, of bands of rows that come one after the other.

    A run is a row's pixels of one class side by side. There are as many regions as runs, less one for
    every time that two parts of one region turn out to touch.
    """

    def __init__(self, width: int, num_classes: int) -> None:
        self._width = width
        self._low = np.full((2, num_classes), np.iinfo(np.int64).max)  # least x and y of each class
        self._high = np.full((2, num_classes), -1)  # greatest x and y
        self.regions = np.zeros(num_classes, dtype=np.int64)
        self._parts = np.zeros(0, dtype=np.int32)  # that its last row's runs belong to

    def add(self, band: NDArray[Any], top: int) -> None:
        """band: (h, W), from row `top` of the mask on; its first row is the last one of the band
        before, if there was one."""
        begins = np.ones(band.shape, dtype=bool)
        np.not_equal(band[:, 1:], band[:, :-1], out=begins[:, 1:])
        pixels = np.ascontiguousarray(band).ravel()
        starts = np.flatnonzero(begins)
        kinds = pixels[starts]
        self._widen(starts, kinds, top)
        seen = int(np.count_nonzero(starts < self._width)) if self._parts.size else 0
        known = int(self._parts.max()) + 1 if seen else 0
        # Parts of regions: those that the last band ended in, then every run that is new.
        new = np.arange(known, known + len(starts) - seen, dtype=np.int32)
        parts = np.concatenate([self._parts, new])
        kind_of = np.empty(known + len(new), dtype=kinds.dtype)
        kind_of[parts] = kinds
        roots = _roots(
            len(kind_of),
            *(parts[runs] for runs in _touching(pixels, begins.ravel(), starts, self._width)),
        )
        is_root = roots == np.arange(len(roots))
        self.regions += np.bincount(kinds[seen:], minlength=len(self.regions))
        self.regions -= np.bincount(kind_of[~is_root], minlength=len(self.regions))
        last = parts[starts >= len(pixels) - self._width]
        self._parts = np.unique(roots[last], return_inverse=True)[1].astype(np.int32)

    def box(self, class_id: int) -> list[int]:
        """x, y, width and height, px."""
        (left, top), (right, bottom) = self._low[:, class_id], self._high[:, class_id]
        return [int(left), int(top), int(right - left) + 1, int(bottom - top) + 1]

    def _widen(self, starts: NDArray[np.int64], kinds: NDArray[Any], top: int) -> None:
        rows, left = np.divmod(starts, self._width)
        # Every row begins a run, so a run ends where the next one begins, or at its row's end.
        right = np.append(left[1:], 0) - 1
        right[right < 0] = self._width - 1
        for axis, (least, greatest) in enumerate(((left, right), (rows + top, rows + top))):
            np.minimum.at(self._low[axis], kinds, least)
            np.maximum.at(self._high[axis], kinds, greatest)


def _touching(
    pixels: NDArray[Any], begins: NDArray[np.bool_], starts: NDArray[np.int64], width: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Pairs of runs of one class that lie in rows one above the other and touch, by their numbers.

    pixels, begins: flat, whole rows; starts: where `begins` is true. Corners count as touching.
    """
    number = np.cumsum(begins, dtype=np.int32)
    number -= 1
    upper = starts[starts < len(pixels) - width]
    lower = starts[starts >= width]
    # Where both rows change at one place, the class may go on across the corner.
    corner = upper[begins[upper + width]]
    corner = corner[corner % width > 0]
    pairs = (
        (upper, upper + width),
        (lower - width, lower),
        (corner - 1, corner + width),
        (corner, corner + width - 1),
    )
    same = [pixels[above] == pixels[below] for above, below in pairs]
    above, below = (
        np.concatenate([number[pair[side][one]] for pair, one in zip(pairs, same, strict=True)])
        for side in (0, 1)
    )
    return above, below


def _roots(count: int, one: NDArray[np.int32], other: NDArray[np.int32]) -> NDArray[np.int32]:
    """For each of `count` nodes the node that stands for all it is linked with.

    one, other: the ends of each link.

    Each round every group joins its smallest neighbour, so that at least half of those that have one
    are gone after it: Borůvka's way, whatever the shape of the regions.
    """
    root = np.arange(count, dtype=np.int32)
    while len(one):
        nearest = np.full(count, count, dtype=np.int32)
        np.minimum.at(nearest, one, other)
        np.minimum.at(nearest, other, one)
        moved = np.flatnonzero(nearest < count)
        root[moved] = nearest[moved]
        mutual = moved[(root[root[moved]] == moved) & (moved < root[moved])]
        root[mutual] = mutual  # of two that chose each other, the smaller one stays
        while not np.array_equal(root, further := root[root]):
            root = further
        one, other = root[one], root[other]
        apart = one != other
        one, other = one[apart], other[apart]
    return root
