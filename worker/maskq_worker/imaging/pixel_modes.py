"""Any pixels Pillow reads, as 8-bit pixels that a colour profile can speak of."""

from __future__ import annotations

from typing import Final

from PIL import Image

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


def to_eight_bits(source: Image.Image, rawmode: str) -> Image.Image:
    """L, LA, RGB, RGBA or CMYK with the same picture.

    The image returned may be `source` itself. Raises ValueError for modes of no accepted format.
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
