"""From the network's scores to a mask at the image's own size, in bounded memory.

transformers upsamples every class to the image's size and takes the argmax: 7.2 GB for 150 classes and
12 megapixels. Three facts make it cheap. Every output pixel lies in one cell of the score grid, and is
a weighted mean of the cell's four corners. If the corners agree on the best class, so do all pixels
between them. If they disagree (at the borders of regions), a class can win only if its score at its
best corner reaches some class's score at its worst corner: mostly two or three classes do.

The margin of a pixel, its best score minus its second, needs the same few places: if the corners agree,
no pixel between them has a smaller margin than the smallest corner's. So only other cells, and those
with a corner below the limit, need the margins of their pixels.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from maskq_worker.model.masks.blocks import Part, argmax, parts, whole_part
from maskq_worker.model.masks.cells import CellCandidates, corners_of, disagreeing
from maskq_worker.model.masks.compared import all_compared
from maskq_worker.model.masks.scores import mask_dtype

if TYPE_CHECKING:
    from numpy.typing import NDArray

BUDGET_BYTES: Final = 32 * 2**20  # of temporary memory, besides one copy of the scores
_CACHED: Final = 1 << 20  # bytes of scores at a time that stay in a core's cache
_FEW_CLASSES: Final = 32  # up to so many, a CPU is fastest if it compares all in every pixel
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
    if _takes_all(logits, size, budget_bytes):
        return all_compared(logits.float().contiguous().numpy(), size)[0]
    mask = np.empty(size, mask_dtype(len(logits)))
    for rows, columns, part in parts(logits, size, budget_bytes, narrow=_narrow(logits, size)):
        mask[rows, columns] = _mask_of(part).cpu().numpy()
    return mask


def mask_with_uncertain(
    logits: torch.Tensor, size: tuple[int, int], below: float, *, budget_bytes: int = BUDGET_BYTES
) -> tuple[NDArray[np.unsignedinteger[Any]], NDArray[np.bool_]]:
    """The mask as of `upsampled_argmax`, and its uncertain pixels.

    Args:
        logits: (C, h, w) floating point, C <= 65536, on any device.
        size: (H, W) px of the mask.
        below: a pixel is uncertain if its best score exceeds the second by less.
        budget_bytes: of temporary memory.

    Returns:
        The mask (H, W), uint8 up to 256 classes, else uint16; the uncertain pixels (H, W), bool.
    """
    if _takes_all(logits, size, budget_bytes):
        return all_compared(logits.float().contiguous().numpy(), size, below)
    mask, uncertain = np.empty(size, mask_dtype(len(logits))), np.zeros(size, np.bool_)
    for rows, columns, part in parts(logits, size, budget_bytes, narrow=_narrow(logits, size)):
        doubtful = torch.zeros(part.size, dtype=torch.bool, device=logits.device)
        mask[rows, columns] = _mask_of(part, doubtful, below).cpu().numpy()
        uncertain[rows, columns] = doubtful.cpu().numpy()
    return mask, uncertain


def margins_at(
    logits: torch.Tensor,
    size: tuple[int, int],
    rows: NDArray[np.integer[Any]],
    columns: NDArray[np.integer[Any]],
) -> torch.Tensor:
    """The margins of some pixels (P,): the best score minus the second.

    logits, size: as of `upsampled_argmax`; rows, columns: (P,) px.
    """
    part = whole_part(logits, size, BUDGET_BYTES)
    pixels = torch.from_numpy(rows.astype(np.int64) * size[1] + columns).to(logits.device)
    return torch.cat([margins(means, argmax(means)) for _, means in part.pixel_scores(pixels)])


def _takes_all(logits: torch.Tensor, size: tuple[int, int], budget_bytes: int) -> bool:
    """Whether it is fastest to compare all classes in every pixel."""
    classes, height, _ = logits.shape
    # `all_compared` takes two arrays (C, h, W), and is slower for a large mask.
    all_scores = 4 * classes * max(2 * height, size[0]) * size[1]
    few = classes <= _FEW_CLASSES and all_scores <= budget_bytes
    return few and logits.device.type == "cpu"


def _narrow(logits: torch.Tensor, size: tuple[int, int]) -> bool:
    """A few pixels are computed one by one, whatever the number of scores."""
    return math.prod(size) > _SMALL * logits.shape[1] * logits.shape[2]


def _mask_of(part: Part, doubtful: torch.Tensor | None = None, below: float = 0.0) -> torch.Tensor:
    """(H, W): the best class of every pixel.

    doubtful: (H, W) bool, all False; pixels with a margin less than `below` are set. None: not
    asked for.
    """
    if math.prod(part.size) <= _SMALL * part.height * part.width:
        mask = torch.empty(part.size, dtype=part.dtype, device=part.scores.device)
        _decide(part, mask, torch.arange(mask.numel(), device=mask.device), doubtful, below)
        return mask
    winners = argmax(part.scores)  # (h, w)
    best = winners.to(part.dtype)
    mask = best.index_select(1, part.columns.first).index_select(0, part.rows.first)
    cells = disagreeing(best, *part.between)
    if doubtful is not None:
        cells |= _close_corners(part, winners, below)
    candidates = CellCandidates(part, cells, below)
    few, many = candidates.split()
    if len(many) > _DENSE * mask.numel():
        _decide_all(part, mask, doubtful, below)
        return mask
    for some, ids, means in candidates.scores(few):
        winner = _winner(means, some, doubtful, below)
        mask.view(-1)[some] = ids.gather(1, winner[:, None])[:, 0].to(part.dtype)
    _decide(part, mask, many, doubtful, below)
    return mask


def _decide(
    part: Part,
    mask: torch.Tensor,
    pixels: torch.Tensor,
    doubtful: torch.Tensor | None,
    below: float,
) -> None:
    """Write the best of all classes into some pixels (P,) of the mask."""
    for some, means in part.pixel_scores(pixels):
        mask.view(-1)[some] = _winner(means, some, doubtful, below).to(part.dtype)


def _decide_all(
    part: Part, mask: torch.Tensor, doubtful: torch.Tensor | None, below: float
) -> None:
    """As `_decide`, for all pixels."""
    for rows, columns, means in part.all_scores():
        winner = argmax(means)
        mask[rows, columns] = winner.to(part.dtype)
        if doubtful is not None:
            doubtful[rows, columns] = margins(means, winner) < below


def _winner(
    means: torch.Tensor, pixels: torch.Tensor, doubtful: torch.Tensor | None, below: float
) -> torch.Tensor:
    """The best (P,) of the scores (P, n) of pixels (P,). Sets the doubtful among them."""
    winner = argmax(means)
    if doubtful is not None:
        doubtful.view(-1)[pixels] = margins(means, winner) < below
    return winner


def margins(scores: torch.Tensor, best: torch.Tensor) -> torch.Tensor:
    """Best minus second score along the last dimension. It overwrites the best scores.

    scores: (…, n); best: (…), its argmax. Of one class the margin is infinite.
    """
    at = best[..., None].long()
    highest = scores.gather(-1, at)[..., 0]
    scores.scatter_(-1, at, -torch.inf)
    return highest - scores.amax(dim=-1)


def _close_corners(part: Part, best: torch.Tensor, below: float) -> torch.Tensor:
    """The cells (h, w) with a corner whose margin is less than `below`. best: (h, w)."""
    close = torch.empty_like(best, dtype=torch.bool)
    on_cpu = part.scores.device.type == "cpu"
    allowed = min(part.budget_bytes, _CACHED) if on_cpu else part.budget_bytes
    at_once = max(1, allowed // (4 * part.classes * part.width))
    for top in range(0, part.height, at_once):
        rows = slice(top, top + at_once)
        close[rows] = margins(part.scores[rows].clone(), best[rows]) < below
    return torch.stack(corners_of(close, *part.between)).any(dim=0)


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
    for rows, columns, part in parts(logits, size, budget_bytes, narrow=True):
        for y, x, means in part.all_scores():
            highest, best = means.max(dim=2)
            whole = means.sub_(highest[..., None]).exp_().sum(dim=2)
            share = whole.reciprocal().mul_(255.0).round_().to(torch.uint8)
            mask[rows, columns][y, x] = best.to(part.dtype).cpu().numpy()
            confidence[rows, columns][y, x] = share.cpu().numpy()
    return mask, confidence
