"""Triton kernels for what takes torch several passes over memory, or one slow pass.

Values are read and written in their own type and computed in float32. Maps lie in memory by place
(`channels_last`). Elements are counted in 64 bits: the scores of a large batch have more than 2^31.
"""

from __future__ import annotations

import triton
import triton.language as tl

# One compilation serves all sizes: otherwise a batch would wait a second for it.
_MAP = ["height", "width", "channels", "row_step", "column_step"]
_MAPS = ["values", "answer"]
_SUM = ["values", "bias", "shortcut", "other", "answer", "rectified"]


@triton.jit
def _source(place, step, size):
    """The two source positions of an output position, and the weight of the second one."""
    exact = place.to(tl.float32) * step
    first = tl.minimum(exact.to(tl.int32), size - 1)
    second = tl.minimum(first + 1, size - 1)
    return first, second, exact - first.to(tl.float32)


@triton.jit(do_not_specialize=_MAP, do_not_specialize_on_alignment=_MAPS)
def upsample_twice(
    values, answer, height, width, channels, row_step, column_step, BLOCK: tl.constexpr
):
    """values (N, height, width, channels) -> answer (N, 2 height, 2 width, channels), bilinear.

    Corner lies on corner: row_step is (height - 1) / (2 height - 1), column_step likewise. A program
    writes BLOCK neighbouring elements of one output row. Grid: (blocks of a row, 2 height, N).
    """
    element = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = element < 2 * width * channels
    column = element // channels
    channel = element % channels
    row = tl.program_id(1)
    top, bottom, below = _source(row, row_step, height)
    left, right, after = _source(column, column_step, width)
    image = values + tl.program_id(2).to(tl.int64) * height * width * channels
    upper = image + top * width * channels + channel
    lower = image + bottom * width * channels + channel
    a = tl.load(upper + left * channels, mask=inside, other=0.0).to(tl.float32)
    b = tl.load(upper + right * channels, mask=inside, other=0.0).to(tl.float32)
    c = tl.load(lower + left * channels, mask=inside, other=0.0).to(tl.float32)
    d = tl.load(lower + right * channels, mask=inside, other=0.0).to(tl.float32)
    before = 1.0 - after
    mixed = (1.0 - below) * (before * a + after * b) + below * (before * c + after * d)
    place = (tl.program_id(2).to(tl.int64) * 2 * height + row) * 2 * width * channels
    tl.store(answer + place + element, mixed.to(answer.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["places", "channels"], do_not_specialize_on_alignment=_SUM)
def add_bias_and_maps(
    values,
    bias,
    shortcut,
    other,
    answer,
    rectified,
    places,
    channels,
    OTHER: tl.constexpr,
    RECTIFIED: tl.constexpr,
    PLACES: tl.constexpr,
    LANES: tl.constexpr,
):
    """answer = values + bias + shortcut (+ other), all (places, channels); rectified: its ReLU."""
    place = tl.program_id(0) * PLACES + tl.arange(0, PLACES)
    for start in range(0, channels, LANES):
        channel = start + tl.arange(0, LANES)
        inside = (place < places)[:, None] & (channel < channels)[None, :]
        element = place.to(tl.int64)[:, None] * channels + channel[None, :]
        total = tl.load(values + element, mask=inside, other=0.0).to(tl.float32)
        one = tl.load(bias + channel, mask=channel < channels, other=0.0).to(tl.float32)
        total += one[None, :]
        total += tl.load(shortcut + element, mask=inside, other=0.0).to(tl.float32)
        if OTHER:
            total += tl.load(other + element, mask=inside, other=0.0).to(tl.float32)
        tl.store(answer + element, total.to(answer.dtype.element_ty), mask=inside)
        if RECTIFIED:
            positive = tl.where(total < 0.0, 0.0, total)  # a NaN stays one
            tl.store(rectified + element, positive.to(rectified.dtype.element_ty), mask=inside)


@triton.jit(
    do_not_specialize=["channels", "eps"],
    do_not_specialize_on_alignment=["tokens", "change", "weight", "bias", "total", "normed"],
)
def add_and_normalise(
    tokens, change, weight, bias, total, normed, channels, eps, LANES: tl.constexpr
):
    """total = tokens + change, (rows, channels); normed = LayerNorm(total). One program per row."""
    channel = tl.arange(0, LANES)
    inside = channel < channels
    element = tl.program_id(0).to(tl.int64) * channels + channel
    one = tl.load(tokens + element, mask=inside, other=0.0).to(tl.float32)
    one += tl.load(change + element, mask=inside, other=0.0).to(tl.float32)
    rounded = one.to(total.dtype.element_ty)
    tl.store(total + element, rounded, mask=inside)
    exact = rounded.to(tl.float32)
    mean = tl.sum(exact, axis=0) / channels
    centred = tl.where(inside, exact - mean, 0.0)
    variance = tl.sum(centred * centred, axis=0) / channels
    scaled = centred * tl.rsqrt(variance + eps)
    scale = tl.load(weight + channel, mask=inside, other=0.0).to(tl.float32)
    shift = tl.load(bias + channel, mask=inside, other=0.0).to(tl.float32)
    result = scaled * scale + shift
    tl.store(normed + element, result.to(normed.dtype.element_ty), mask=inside)


@triton.jit(
    do_not_specialize=["places", "classes", "stride"],
    do_not_specialize_on_alignment=["parts", "bias", "scores"],
)
def add_parts(
    parts,
    bias,
    scores,
    places,
    classes,
    stride,
    scale,
    PARTS: tl.constexpr,
    PLACES: tl.constexpr,
    LANES: tl.constexpr,
):
    """scores (places, classes) = bias + the sum of parts[:, part] * scale^part, from the smallest part.

    parts: (places, PARTS, stride) float32, of which the first `classes` of each stride count.
    """
    place = tl.program_id(0) * PLACES + tl.arange(0, PLACES)
    for start in range(0, classes, LANES):
        ids = start + tl.arange(0, LANES)
        inside = (place < places)[:, None] & (ids < classes)[None, :]
        row = place.to(tl.int64)[:, None] * (PARTS * stride) + ids[None, :]
        total = tl.zeros((PLACES, LANES), tl.float32)
        for part in tl.static_range(PARTS):
            smaller = (PARTS - 1 - part) * stride
            total = total * scale + tl.load(parts + row + smaller, mask=inside, other=0.0)
        total += tl.load(bias + ids, mask=ids < classes, other=0.0)[None, :]
        element = place.to(tl.int64)[:, None] * classes + ids[None, :]
        tl.store(scores + element, total, mask=inside)
