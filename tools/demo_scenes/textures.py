"""Noise and colour for the drawn scenes: cached periodic tiles, cut and sampled per scene."""

from __future__ import annotations

import colorsys
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Field = NDArray[Any]  # float32, but numpy widens its own types at every step

TILE = 512


@lru_cache(maxsize=32)
def tile(roughness: float) -> Field:
    """A periodic (TILE, TILE) noise with mean 0 and deviation 1; spectrum 1/f**roughness.

    Drawn once from a fixed seed: scenes differ by where they cut it, which costs one resize
    instead of a sum of octaves.
    """
    rng = np.random.default_rng(20_240_501)
    frequency = np.hypot(np.fft.fftfreq(TILE)[:, None], np.fft.rfftfreq(TILE)[None, :])
    frequency[0, 0] = 1.0
    spectrum = np.fft.rfft2(rng.standard_normal((TILE, TILE))) / frequency**roughness
    spectrum[0, 0] = 0.0
    noise = np.fft.irfft2(spectrum, s=(TILE, TILE))
    return np.tile((noise / noise.std()).astype(np.float32), (2, 2))


def noise(
    rng: np.random.Generator,
    shape: tuple[int, int],
    span: tuple[float, float],
    roughness: float = 1.6,
) -> Field:
    """A (height, width) cut of the tile covering `span` = (rows, columns) of its texels.

    The span is fixed by the caller and not by the size, so a scene looks the same at any size.
    """
    rows, cols = (min(max(int(s), 2), TILE) for s in span)
    top, left = rng.integers(0, TILE, 2)
    cut = tile(roughness)[top : top + rows, left : left + cols]
    height, width = shape
    image = Image.fromarray(np.ascontiguousarray(cut))
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized, dtype=np.float32)


def sample(rows: Field, cols: Field, roughness: float = 1.0) -> Field:
    """The tile read at (rows, cols) texels, wrapped around; the nearest texel is enough here."""
    index = (rows.astype(np.int32) & (TILE - 1)) * (2 * TILE)
    index = index + (cols.astype(np.int32) & (TILE - 1))
    return np.take(tile(roughness).ravel(), index)


def skyline(
    rng: np.random.Generator, columns: Field, octaves: int = 6, decay: float = 0.5
) -> Field:
    """A 1-D ridge in about -1..1 over `columns` (any unit): octaves of smooth value noise."""
    total = np.zeros_like(columns)
    amplitude, frequency = 1.0, 1.0
    for _ in range(octaves):
        values = rng.uniform(-1, 1, 256).astype(np.float32)
        position = columns * frequency + 64.0
        base = np.floor(position).astype(np.int32)
        part = position - base
        part = part * part * (3 - 2 * part)
        total += amplitude * (values[base & 255] * (1 - part) + values[(base + 1) & 255] * part)
        amplitude *= decay
        frequency *= 2.0
    return total


def hsv(hue: float, saturation: float, value: float) -> Field:
    """An RGB colour in 0..1; the hue wraps around."""
    return np.array(
        colorsys.hsv_to_rgb(hue % 1.0, min(max(saturation, 0.0), 1.0), value), dtype=np.float32
    )


def rgb(red: float, green: float, blue: float) -> Field:
    """An RGB colour in 0..1 from 0..255."""
    return np.array([red, green, blue], dtype=np.float32) / 255.0
