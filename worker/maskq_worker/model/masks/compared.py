"""A mask by a comparison of all classes in every pixel, which is fastest for few classes on a CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from maskq_worker.model.masks.interpolation import plain_interpolation
from maskq_worker.model.masks.scores import mask_dtype

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BAND: Final = 1 << 17  # scores at a time: half a megabyte stays in a core's cache


@np.errstate(all="ignore")  # callers check for NaN and infinite scores, or accept them
def all_compared(
    scores: NDArray[np.float32], size: tuple[int, int], below: float | None = None
) -> tuple[NDArray[np.unsignedinteger[Any]], NDArray[np.bool_]]:
    """The mask, some rows at a time.

    numpy's calls cost less than torch's here, and an argmax over the classes takes three times as long.

    Args:
        scores: (C, h, w).
        size: (H, W) px of the mask.
        below: a pixel is uncertain if its best score exceeds the second by less; None: not asked for.

    Returns:
        (H, W) class ids; (H, W) bool, the uncertain pixels.
    """
    classes, height, width = scores.shape
    rows, columns = plain_interpolation(height, size[0]), plain_interpolation(width, size[1])
    wide = columns.interpolated(scores, 2)
    mask, uncertain = np.zeros(size, mask_dtype(classes)), np.zeros(size, np.bool_)
    at_once = max(1, _BAND // (classes * size[1]))
    for top in range(0, size[0], at_once):
        band = slice(top, top + at_once)
        best, *others = rows.at(band).interpolated(wide, 1)
        second = np.full_like(best, -np.inf) if below is not None else None
        for index, challenger in enumerate(others, 1):
            np.putmask(mask[band], challenger > best, index)
            if second is not None:
                np.maximum(second, np.minimum(best, challenger), out=second)
            np.maximum(best, challenger, out=best)
        if second is not None and below is not None:
            np.less(best - second, below, out=uncertain[band])
    return mask, uncertain
