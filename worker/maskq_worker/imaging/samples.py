"""Converts samples of any type to 8 bits, with a note of the levels that became black and white."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

_STRIP: Final = 1_000_000  # samples in floating point at one time, to limit memory
_LOOKED_UP: Final = 16  # bits; up to this number levels are looked up in a table
# The usual white levels of samples whose type does not define white.
_USUAL_INTEGERS: Final = (255.0, 1023.0, 4095.0, 16383.0, 65535.0)
_USUAL_FLOATS: Final = (1.0, 255.0, 65535.0)
_SHARE: Final = 1 / 16  # of a usual range; samples that stay below it have another range

Samples = NDArray[Any]  # (H, W, C)


def to_eight_bits(
    samples: Samples, *, bits: int, nodata: float | None = None, is_negative: bool = False
) -> tuple[NDArray[np.uint8], str | None]:
    """(H, W, C) of any type to uint8, and a note if a range was scaled to 0..255.

    Args:
        bits: of a sample; unsigned ones of up to 16 bits are scaled by what these can hold, all
            others by the range they use.
        nodata: the value that stands for 'no value here'. Like NaN, it is left out of
            the range and becomes black. Unsigned samples of up to 16 bits keep it: they need no range.
        is_negative: the lowest sample is white.
    """
    if samples.dtype == np.bool_:
        samples, bits = samples.view(np.uint8), 1
    if samples.dtype.kind == "u" and bits <= _LOOKED_UP:
        if bits == 8 and not is_negative:
            return samples.astype(np.uint8, copy=False), None
        white = 2**bits - 1
        table = (np.arange(2**bits) * (255.0 / white)).round().astype(np.uint8)
        note = f"scaled from 0..{white} to 0..255" if bits > 8 else None
        return (table[::-1] if is_negative else table)[samples & white], note
    return _by_range(samples, nodata, is_negative=is_negative)


def rows(samples: Samples) -> Iterator[slice]:
    """Parts of the rows, small enough to be converted to floating point."""
    step = max(1, _STRIP // max(1, samples[:1].size))
    return (slice(top, top + step) for top in range(0, len(samples), step))


def _by_range(
    samples: Samples, nodata: float | None, *, is_negative: bool
) -> tuple[NDArray[np.uint8], str]:
    low, high = np.inf, -np.inf
    without = 0  # pixels
    for part in rows(samples):
        valid = _valid(samples[part], nodata)
        values = samples[part][valid]
        without += int((~valid).any(axis=2).sum())
        if values.size:
            low, high = min(low, float(values.min())), max(high, float(values.max()))
    black, white = _range(samples.dtype, low, high)
    out = np.zeros(samples.shape, np.uint8)
    scale = 255.0 / (white - black) if white > black else 0.0
    for part in rows(samples):
        valid = _valid(samples[part], nodata)
        values = np.where(valid, samples[part], black).astype(np.float64)
        levels = ((values - black) * scale).round().clip(0, 255)
        out[part] = np.where(valid, 255 - levels, 0) if is_negative else levels
    note = f"scaled from {_number(black)}..{_number(white)} to 0..255"
    if without:
        note += f", {without} pixel{'s' if without > 1 else ''} without a value black"
    return out, note


def _valid(samples: Samples, nodata: float | None) -> NDArray[np.bool_]:
    valid = np.isfinite(samples) if samples.dtype.kind == "f" else np.ones(samples.shape, np.bool_)
    if nodata is not None and not np.isnan(nodata):
        with np.errstate(over="ignore"):
            named = samples.dtype.type(nodata) if samples.dtype.kind == "f" else nodata
        valid &= samples != named
    return valid


def _range(kind: np.dtype[Any], low: float, high: float) -> tuple[float, float]:
    """The black and white levels of samples from `low` to `high` whose type does not define them.

    The smallest usual range that contains them, if they use a fair part of it; else their own range.
    """
    if low > high:
        return 0.0, 1.0
    if low < 0:
        return low, high
    usual: tuple[float, ...] = _USUAL_FLOATS
    always = 1.0
    if kind.kind != "f":
        most = float(np.iinfo(kind).max)
        usual, always = (*(white for white in _USUAL_INTEGERS if white < most), most), 255.0
    white = next((white for white in usual if high <= white), np.inf)
    if white <= always or high > white * _SHARE:
        return 0.0, white
    # Light that is a little brighter than white keeps its black; other values are not light.
    return (0.0, high) if kind.kind == "f" and high <= 255 * _SHARE else (low, high)


def _number(value: float) -> str:
    return f"{value:.0f}" if value == round(value) and abs(value) < 1e15 else f"{value:.6g}"
