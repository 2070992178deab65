"""Converts the pixels that Pillow reads to 8-bit modes that colour profiles support."""

from __future__ import annotations

from typing import Final

from PIL import Image

# The step between levels after Pillow has scaled gray of few bits to 0..255.
_GRAY_STEPS: Final = {"L;2": 85, "L;4": 17}


def rawmode_of(source: Image.Image) -> str:
    """The layout of samples in the file, as Pillow names it ('RGB;16B'); empty if unknown.

    Call it before `load`, which discards it.
    """
    tiles = getattr(source, "tile", None)
    args = tiles[0][3] if tiles else None
    first = args[0] if isinstance(args, tuple) and args else args
    return first if isinstance(first, str) else ""


def to_eight_bits(source: Image.Image, rawmode: str) -> Image.Image:
    """The same picture in mode L, LA, RGB, RGBA or CMYK.

    The result may be `source` itself. Raises ValueError for modes that no accepted format has.
    """
    if source.mode in ("L", "RGB") and "transparency" in source.info:
        key = source.info["transparency"]  # in samples of the file
        if isinstance(key, int):
            source.info["transparency"] = min(key * _GRAY_STEPS.get(rawmode, 1), 255)
        return source.convert("LA" if source.mode == "L" else "RGBA")
    if source.mode in ("L", "LA", "RGB", "RGBA", "CMYK"):
        return source
    if source.mode not in ("1", "P", "PA", "RGBX"):
        raise ValueError(f"pixels of mode {source.mode} are not supported")
    if source.has_transparency_data:
        return source.convert("RGBA")
    return source.convert("L" if source.mode == "1" else "RGB")
