"""Any pixels Pillow can hold, as 8-bit pixels that a colour profile can speak of."""

from __future__ import annotations

from typing import Final

import numpy as np
from PIL import Image, ImageOps

_STRIP: Final = 2_000_000  # pixels that are numbers at one time, so that deep images stay small
_PHOTOMETRIC: Final = 262  # TIFF tag; 0: the lowest sample is white
# What one step of a sample is, after Pillow has spread gray of few bits over 0..255.
_GRAY_STEPS: Final = {"L;2": 85, "L;4": 17}


def rawmode_of(source: Image.Image) -> str:
    """How samples lie in the file, as Pillow names it ('RGB;16B'); empty if not known.

    To be asked before `load`, which forgets it.
    """
    tiles = getattr(source, "tile", None)
    args = tiles[0][3] if tiles else None
    first = args[0] if isinstance(args, tuple) and args else args
    return first if isinstance(first, str) else ""


def to_eight_bits(source: Image.Image, rawmode: str) -> tuple[Image.Image, str | None]:
    """L, LA, RGB, RGBA, CMYK or LAB with the same picture, and a note if samples were scaled.

    The image returned may be `source` itself. Raises ValueError for modes of no accepted format.
    """
    if source.mode.startswith("I;16"):
        white = 4095.0 if rawmode == "I;12" else 65535.0
        return _with_key(_scaled(source, white), source), f"scaled from {_depth(rawmode)} bits"
    if source.mode in ("I", "F"):
        return _scaled(source, _full_scale(source)), f"scaled from {source.mode} samples"
    note = "scaled from 16 bits" if _is_deep(rawmode) else None
    if source.mode in ("L", "RGB") and "transparency" in source.info:
        _fit_key(source, rawmode)
        return source.convert("LA" if source.mode == "L" else "RGBA"), note
    if source.mode == "RGBa":
        return source.convert("RGBA"), note
    if source.mode == "La":
        return source.convert("LA"), note
    if source.mode in ("L", "LA", "RGB", "RGBA", "CMYK", "LAB"):
        return source, note
    if source.has_transparency_data:
        return source.convert("RGBA"), note
    return source.convert("L" if source.mode == "1" else "RGB"), note


def _depth(rawmode: str) -> int:
    return 12 if rawmode == "I;12" else 16


def _is_deep(rawmode: str) -> bool:
    return ";16" in rawmode and not rawmode.startswith("BGR")  # of BMP: 16 bits for all three


def _fit_key(source: Image.Image, rawmode: str) -> None:
    """The colour that stands for 'transparent', which PNG gives in samples as deep as the file's.

    Of 16 bits Pillow keeps the upper 8; colours that differ only below become transparent too.
    """
    key = source.info["transparency"]
    if isinstance(key, int):
        source.info["transparency"] = min(key * _GRAY_STEPS.get(rawmode, 1), 255)
    elif isinstance(key, tuple) and _is_deep(rawmode):
        source.info["transparency"] = tuple(part >> 8 for part in key)


def _with_key(gray: Image.Image, source: Image.Image) -> Image.Image:
    """LA where the 16-bit samples of `source` equal its transparent one, else `gray` (L) itself."""
    key = source.info.get("transparency")
    if not isinstance(key, int):
        return gray
    alpha = Image.new("L", source.size)
    for box in _strips(source.size):
        samples = np.asarray(source.crop(box))
        alpha.paste(Image.fromarray(np.where(samples == key, 0, 255).astype(np.uint8)), box)
    return Image.merge("LA", (gray, alpha))


def _full_scale(source: Image.Image) -> float | None:
    """What 'white' is in samples of 32 bits, which do not say: the smallest usual range that holds.

    None where no usual range does; then the image's own lowest and highest values are taken.
    """
    low, high = _range(source)
    if low > high or low < 0:
        return None
    usual = (1.0, 255.0, 65535.0) if source.mode == "F" else (255.0, 65535.0)
    return next((scale for scale in usual if high <= scale), None)


def _range(source: Image.Image) -> tuple[float, float]:
    """Lowest and highest sample that is a number; (inf, -inf) if none is."""
    low, high = np.inf, -np.inf
    for box in _strips(source.size):
        samples = np.asarray(source.crop(box))
        finite = samples[np.isfinite(samples)]
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    return low, high


def _scaled(source: Image.Image, white: float | None) -> Image.Image:
    """Gray of any depth to L: 0..white becomes 0..255; what is no number becomes black."""
    black = 0.0
    if white is None:
        black, white = _range(source)
        black, white = (black, white) if black <= white else (0.0, 1.0)
    gray = Image.new("L", source.size)
    for box in _strips(source.size):
        samples = np.asarray(source.crop(box)).astype(np.float64)
        samples[~np.isfinite(samples)] = black
        samples -= black
        samples *= 255.0 / max(white - black, 1e-12)
        gray.paste(Image.fromarray(samples.round().clip(0, 255).astype(np.uint8)), box)
    # Pillow turns 'lowest is white' around for 8 bits and fewer, and leaves it for more.
    tags = getattr(source, "tag_v2", {})
    return ImageOps.invert(gray) if tags.get(_PHOTOMETRIC) == 0 else gray


def _strips(size: tuple[int, int]) -> list[tuple[int, int, int, int]]:
    width, height = size
    rows = max(1, _STRIP // width)
    return [(0, top, width, min(top + rows, height)) for top in range(0, height, rows)]
