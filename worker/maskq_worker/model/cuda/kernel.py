"""The mask in Triton: bilinear interpolation and argmax in one pass, without memory in between.

As in `masks/bounded.py`: if the four corners around a pixel agree on the best class, it is the answer,
and only the other pixels compare all classes. A NaN counts as the highest score, as for torch's argmax.
Scores are `channels_last`: neighbouring lanes read neighbouring memory.
"""

from __future__ import annotations

import triton
import triton.language as tl

_LOWEST = tl.constexpr(-3.4028234663852886e38)  # of float32; finite, for differences
_NO_CLASS = tl.constexpr(2**31 - 1)

# One compilation serves all sizes: another one takes a second, and an image would wait for it.
_SIZES = ["places", "classes", "width", "height_out", "width_out"]
_POINTERS = ["scores", "best", "unsound", "rows", "row_weights", "columns", "column_weights"]
_OUT = ["mask", "confidence"]


@triton.jit
def _with_more(highest, winner, values, ids):
    """The highest score so far of every lane and its class; of equals the first."""
    values = tl.where(values == values, values, float("inf"))
    return tl.maximum(highest, values), tl.where(values > highest, ids, winner)


@triton.jit
def _winners(highest, winner):
    """The lowest class id among the highest scores, for each row of lanes."""
    top = tl.max(highest, axis=1)
    return tl.min(tl.where(highest == top[:, None], winner, _NO_CLASS), axis=1)


@triton.jit(do_not_specialize=_SIZES, do_not_specialize_on_alignment=_POINTERS)
def best_classes(scores, best, unsound, places, classes, PLACES: tl.constexpr, LANES: tl.constexpr):
    """Write the best class (places,) of scores (places, classes), and whether one is not finite."""
    place = tl.program_id(0) * PLACES + tl.arange(0, PLACES)
    lanes = tl.arange(0, LANES)
    row = place[:, None] * classes
    highest = tl.full((PLACES, LANES), _LOWEST, tl.float32)
    winner = tl.zeros((PLACES, LANES), tl.int32)
    wrong = tl.zeros((PLACES, LANES), tl.int32)
    for start in range(0, classes, LANES):
        ids = (start + lanes)[None, :]
        there = (place < places)[:, None] & (ids < classes)
        values = tl.load(scores + row + ids, mask=there, other=_LOWEST)
        wrong = wrong | (1 - (tl.abs(values) < float("inf")).to(tl.int32))
        highest, winner = _with_more(highest, winner, values, ids)
    tl.store(best + place, _winners(highest, winner).to(best.dtype.element_ty), mask=place < places)
    if tl.max(tl.max(wrong, axis=1), axis=0) > 0:
        tl.store(unsound, 1)


@triton.jit(do_not_specialize=_SIZES, do_not_specialize_on_alignment=_POINTERS + _OUT)
def draw_mask(
    scores,
    best,
    rows,
    row_weights,
    columns,
    column_weights,
    mask,
    confidence,
    classes,
    width,
    height_out,
    width_out,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    LANES: tl.constexpr,
    CONFIDENCE: tl.constexpr,
):
    """Write one tile of HEIGHT x WIDTH pixels of the mask (height_out, width_out).

    scores: (h * width, classes) float32. best: (h * width,), of `best_classes`. rows, row_weights:
    (2, height_out) int32 and float32, the two rows of scores around each row of the mask, and their
    weights; columns and column_weights are the same for columns.
    """
    tile = tl.arange(0, HEIGHT * WIDTH)
    y = tl.program_id(1) * HEIGHT + tile // WIDTH
    x = tl.program_id(0) * WIDTH + tile % WIDTH
    inside = (y < height_out) & (x < width_out)
    top = tl.load(rows + y, mask=inside, other=0) * width
    bottom = tl.load(rows + height_out + y, mask=inside, other=0) * width
    left = tl.load(columns + x, mask=inside, other=0)
    right = tl.load(columns + width_out + x, mask=inside, other=0)
    one = tl.load(best + top + left, mask=inside, other=0)
    two = tl.load(best + top + right, mask=inside, other=0)
    three = tl.load(best + bottom + left, mask=inside, other=0)
    four = tl.load(best + bottom + right, mask=inside, other=0)
    border = inside & ((one != two) | (one != three) | (one != four))
    answer = one.to(tl.int32)
    pixel = y * width_out + x
    if CONFIDENCE or tl.max(border.to(tl.int32), axis=0) > 0:
        asked = inside if CONFIDENCE else border
        above = tl.load(row_weights + y, mask=asked, other=0.0)[:, None]
        below = tl.load(row_weights + height_out + y, mask=asked, other=0.0)[:, None]
        before = tl.load(column_weights + x, mask=asked, other=0.0)[:, None]
        after = tl.load(column_weights + width_out + x, mask=asked, other=0.0)[:, None]
        a = (top + left)[:, None] * classes
        b = (top + right)[:, None] * classes
        c = (bottom + left)[:, None] * classes
        d = (bottom + right)[:, None] * classes
        lanes = tl.arange(0, LANES)
        highest = tl.full((HEIGHT * WIDTH, LANES), _LOWEST, tl.float32)
        winner = tl.zeros((HEIGHT * WIDTH, LANES), tl.int32)
        whole = tl.zeros((HEIGHT * WIDTH, LANES), tl.float32)
        for start in range(0, classes, LANES):
            ids = (start + lanes)[None, :]
            there = asked[:, None] & (ids < classes)
            upper = before * tl.load(scores + a + ids, mask=there, other=0.0)
            upper += after * tl.load(scores + b + ids, mask=there, other=0.0)
            lower = before * tl.load(scores + c + ids, mask=there, other=0.0)
            lower += after * tl.load(scores + d + ids, mask=there, other=0.0)
            values = tl.where(there, above * upper + below * lower, _LOWEST)
            more, winner = _with_more(highest, winner, values, ids)
            if CONFIDENCE:
                share = tl.where(there, tl.exp(values - more), 0.0)
                whole = whole * tl.exp(highest - more) + share
            highest = more
        answer = tl.where(asked, _winners(highest, winner), answer)
        if CONFIDENCE:
            peak = tl.max(highest, axis=1)
            total = tl.sum(whole * tl.exp(highest - peak[:, None]), axis=1)
            # The winner's own share is 1: a smaller total is a pixel outside, or NaN.
            level = tl.floor(255.0 / tl.where(total >= 1.0, total, float("inf")) + 0.5)
            tl.store(confidence + pixel, level.to(tl.uint8), mask=inside)
    tl.store(mask + pixel, answer.to(mask.dtype.element_ty), mask=inside)
