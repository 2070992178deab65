"""COCO's compressed run-length encoding, of every class of a mask at once.

COCO counts pixels column by column: how many are not of the class, then of it, then not, and so on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from maskq_worker.outputs import bands

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CLASS_END: Final = ord("\n")  # COCO's letters are '0' to 'o'


@dataclass(frozen=True, slots=True)
class Rle:
    """Where one class is."""

    counts: str  # pycocotools' `counts`
    bbox: list[int]  # x, y, width and height of the smallest box around it, px


def encode_classes(mask: NDArray[Any]) -> dict[int, Rle]:
    """Class id → its pixels, for each value in the mask (H, W); 8 or 16 bits."""
    starts, kinds = _column_runs(mask)
    ends = np.append(starts[1:], starts.dtype.type(mask.size))
    order = np.argsort(kinds, kind="stable")
    starts, ends = starts[order], ends[order]
    runs = np.bincount(kinds)
    ids = np.flatnonzero(runs)
    runs = runs[ids]
    after = np.cumsum(runs)
    # Classes of few runs are encoded together: with one class at a time numpy's calls take longer than
    # the work. A group holds bands.PIXELS runs, and what its last class has beyond them.
    groups = np.flatnonzero(np.diff((after - 1) // bands.PIXELS)) + 1
    found: dict[int, Rle] = {}
    first = 0
    for begin, end in pairwise((0, *groups.tolist(), len(ids))):
        part = slice(first, first := int(after[end - 1]))
        arguments = starts[part], ends[part], runs[begin:end]
        letters, boxes = _letters(*arguments, mask.size), _boxes(*arguments, mask.shape[0])
        for class_id, text, box in zip(ids[begin:end].tolist(), letters, boxes, strict=True):
            found[class_id] = Rle(text, box)
    return found


def _column_runs(mask: NDArray[Any]) -> tuple[NDArray[np.unsignedinteger[Any]], NDArray[Any]]:
    """Where, column by column, the class changes, and to which; a part of the columns at a time."""
    height, width = mask.shape
    starts, kinds = [], []
    before = None
    narrow = np.min_scalar_type(mask.size)  # a mask of noise has as many runs as pixels
    columns = max(1, bands.PIXELS // height)
    for left in range(0, width, columns):
        pixels = mask[:, left : left + columns].T.ravel()
        changes = np.empty(len(pixels), dtype=bool)
        changes[0] = before is None or pixels[0] != before
        np.not_equal(pixels[1:], pixels[:-1], out=changes[1:])
        begins = np.flatnonzero(changes)
        starts.append((begins + left * height).astype(narrow))
        kinds.append(pixels[begins])
        before = pixels[-1]
    return np.concatenate(starts), np.concatenate(kinds)


def _letters(
    starts: NDArray[Any], ends: NDArray[Any], runs: NDArray[np.int64], size: int
) -> list[str]:
    """The `counts` of each class.

    starts, ends: of the runs, class by class, from the image's first pixel; runs: how many runs each
    class has; size: pixels of the image.
    """
    last = 2 * np.cumsum(runs) + np.arange(
        len(runs)
    )  # of each class's counts: from its end to `size`
    first = last - 2 * runs
    bounds = np.empty(last[-1] + 1, dtype=np.int64)
    at = np.repeat(np.arange(len(runs)), runs)
    at += 2 * np.arange(len(starts))
    bounds[at], bounds[at + 1], bounds[last] = starts, ends, size
    counts = np.diff(bounds, prepend=0)
    counts[first] = bounds[first]
    # From a class's fourth count on COCO stores the difference to the last but one.
    values = counts.copy()
    values[2:] -= counts[:-2]
    for place in range(3):
        values[first + place] = counts[first + place]
    used = np.ones(len(counts), dtype=bool)
    used[last] = counts[last] > 0
    ended = np.zeros(len(counts), dtype=np.uint8)
    ended[last] = _CLASS_END
    parts = (slice(at, at + bands.PIXELS) for at in range(0, len(counts), bands.PIXELS))
    text = "".join(_groups(values[part], used[part], ended[part]) for part in parts)
    return text.split("\n")[:-1]


def _groups(rest: NDArray[np.int64], used: NDArray[np.bool_], ended: NDArray[np.uint8]) -> str:
    """COCO's letters of numbers: groups of 5 bits, lowest first, 32 added where another follows, and 48
    to become a letter.

    used: which numbers have letters; ended: a letter after each number, or 0.
    """
    columns = []
    while used.any():
        low = rest & 31
        rest = rest >> 5
        more = rest != -(low >> 4)  # what is left is not just the sign of this group
        columns.append(np.where(used, low + 32 * more + 48, 0).astype(np.uint8))
        used = used & more
    letters = np.stack([*columns, ended], axis=1)
    return letters[letters > 0].tobytes().decode()


def _boxes(
    starts: NDArray[Any], ends: NDArray[Any], runs: NDArray[np.int64], height: int
) -> Iterator[list[int]]:
    """The box around each class; arguments as of `_letters`."""
    left, top = np.divmod(starts.astype(np.int64), height)
    right, bottom = np.divmod(ends.astype(np.int64) - 1, height)
    turns = right > left  # a run over the end of a column covers its bottom and the next one's top
    top[turns], bottom[turns] = 0, height - 1
    last = np.cumsum(runs) - 1
    first = last - runs + 1
    x, y = left[first], np.minimum.reduceat(top, first)
    widths, heights = right[last] - x + 1, np.maximum.reduceat(bottom, first) - y + 1
    return map(list, zip(x.tolist(), y.tolist(), widths.tolist(), heights.tolist(), strict=True))
