"""Run-length encoding as COCO has it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from maskq.contract.jobs import ClassStats
from maskq_worker.outputs import bands

if TYPE_CHECKING:
    from numpy.typing import NDArray


def rle_json(mask: NDArray[Any], classes: Sequence[ClassStats]) -> bytes:
    """A COCO document with one annotation per class, compressed RLE; pycocotools loads it as it is.

    classes: with their boxes, as `stats` gives them.
    """
    height, width = mask.shape
    counts = _counts_by_class(mask)
    document = {
        "images": [{"id": 1, "width": width, "height": height}],
        "categories": [{"id": entry.id, "name": entry.label} for entry in classes],
        "annotations": [
            {
                "id": number,
                "image_id": 1,
                "category_id": entry.id,
                "category": entry.label,
                "iscrowd": 0,
                "segmentation": {"size": [height, width], "counts": _letters(counts(entry.id))},
                "area": entry.pixels,
                "bbox": entry.bbox,
            }
            for number, entry in enumerate(classes, 1)
        ],
    }
    return json.dumps(document, ensure_ascii=False).encode()


def _counts_by_class(mask: NDArray[Any]) -> Callable[[int], NDArray[np.int64]]:
    """What gives, for a class id, how many pixels are not of it, then of it, then not, and so on.

    Pixels are taken column by column, as COCO does.
    """
    starts, kinds = _column_runs(mask)
    ends = np.append(starts[1:], starts.dtype.type(mask.size))
    order = np.argsort(kinds, kind="stable")
    starts, ends = starts[order], ends[order]
    firsts = np.cumsum(np.bincount(kinds)) - np.bincount(kinds)

    def counts(class_id: int) -> NDArray[np.int64]:
        runs = slice(firsts[class_id], (*firsts, len(starts))[class_id + 1])
        bounds = np.empty(2 * (runs.stop - runs.start) + 1, dtype=np.int64)
        bounds[0:-1:2], bounds[1:-1:2], bounds[-1] = starts[runs], ends[runs], mask.size
        lengths = np.diff(bounds, prepend=0)
        return lengths if lengths[-1] else lengths[:-1]

    return counts


def _column_runs(mask: NDArray[Any]) -> tuple[NDArray[np.unsignedinteger[Any]], NDArray[Any]]:
    """Where, column by column, the class changes, and to which; a part of the columns at a time."""
    height, width = mask.shape
    starts, kinds = [], []
    before = None
    narrow = np.min_scalar_type(mask.size)  # a mask of noise has as many runs as pixels
    columns = max(1, bands.PIXELS // height)
    for left in range(0, width, columns):
        pixels = mask[:, left : left + columns].T.ravel()
        begins = np.flatnonzero(np.diff(pixels, prepend=pixels[:1] if before is None else before))
        if before is None:
            begins = np.insert(begins, 0, 0)
        starts.append((begins + left * height).astype(narrow))
        kinds.append(pixels[begins])
        before = pixels[-1:]
    return np.concatenate(starts), np.concatenate(kinds)


def _letters(counts: NDArray[np.int64]) -> str:
    """COCO's own compression: from the fourth on, counts as the difference to the last but one; each
    in groups of 5 bits, lowest first, 32 added where another follows, and 48 to become a letter."""
    values = counts.copy()
    values[3:] -= counts[1:-2]
    parts = (values[at : at + bands.PIXELS] for at in range(0, len(values), bands.PIXELS))
    return "".join(map(_groups, parts))


def _groups(rest: NDArray[np.int64]) -> str:
    columns = []
    going_on = np.ones(len(rest), dtype=bool)
    while going_on.any():
        low = rest & 31
        rest = rest >> 5
        more = rest != -(low >> 4)  # what is left is not just the sign of this group
        columns.append(np.where(going_on, low + 32 * more + 48, 0).astype(np.uint8))
        going_on &= more
    letters = np.stack(columns, axis=1)
    return letters[letters > 0].tobytes().decode()
