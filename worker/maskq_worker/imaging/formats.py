"""The accepted formats: how a file is recognised, which reader decodes it, and how it is refused.

A new format adds its name to `FORMATS`, and its reader, a module in readers/, to `_READERS`. A format
that Pillow reads needs no reader. Signatures, suffixes and media types are in
maskq.contract.image_formats.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from types import MappingProxyType
from typing import Final

from PIL import features

from maskq.contract.image_formats import format_of
from maskq_worker.imaging.checks import OnPixels
from maskq_worker.imaging.picture import Picture
from maskq_worker.imaging.readers import bmp, jpeg, pillow_reader, png

# Reads the first frame; takes the file, the most pixels that are accepted, and OnPixels.
Reader = Callable[[bytes, int, OnPixels], Picture]

# An allow-list is the main defence: security fixes are mostly for rare decoders. JPEG includes MPO, a
# JPEG with a second picture, which many phones write. HEIF is added if its reader is installed
# (`pip install maskq[heic]`), and only for a file that says it is HEIF.
FORMATS: Final = (
    "JPEG",
    "PNG",
    "WEBP",
    "TIFF",
    "BMP",
    "GIF",
    *(("AVIF",) if features.check("avif") else ()),
)


def reader_of(data: bytes) -> Reader:
    """The reader for a file. Pillow also gets files of unknown formats, and refuses them."""
    return _READERS.get(format_of(data), _by_pillow)


def accepted() -> str:
    """The names of the accepted formats, for people."""
    return ", ".join((*FORMATS, "HEIF") if reads_heif() else FORMATS)


def _tiff(data: bytes, max_pixels: int, on_pixels: OnPixels) -> Picture:
    from maskq_worker.imaging.readers import tiff  # here, since importing tifffile takes long

    return tiff.picture(data, max_pixels, on_pixels)


def _by_pillow(data: bytes, max_pixels: int, on_pixels: OnPixels) -> Picture:
    return pillow_reader.picture(data, pillow_formats(data), max_pixels, on_pixels)


# By the names of SIGNATURES. Pillow reads the other accepted formats.
_READERS: Final[Mapping[str, Reader]] = MappingProxyType(
    {"JPEG": jpeg.picture, "PNG": png.picture, "BMP": bmp.picture, "TIFF": _tiff}
)


@cache
def reads_heif() -> bool:
    """Whether the extra is installed. If so, registers its reader in Pillow."""
    try:
        import pillow_heif  # here, since it is an extra and rarely needed
    except ImportError:
        return False
    pillow_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False)
    return True


def pillow_formats(data: bytes) -> tuple[str, ...]:
    """The formats that Pillow may try for `data`."""
    known = tuple(name for name in FORMATS if name != "TIFF")  # the tiff package reads it
    return (*known, "HEIF") if format_of(data) in ("HEIC", "HEIF") and reads_heif() else known


def unidentified(data: bytes) -> str:
    """Why no reader accepts a file, as an error message."""
    seen = format_of(data)
    if seen in ("HEIC", "HEIF") and not reads_heif():
        return (
            f"the object is {seen}, which this worker reads only with the extra installed: "
            "pip install maskq[heic]"
        )
    if seen.upper() in FORMATS or seen in ("HEIC", "HEIF"):
        return (
            f"the {seen} image is damaged or cut short, or of a kind that is not supported: "
            "its header cannot be read"
        )
    if seen.startswith("camera raw"):
        return f"the object is a {seen} file, which is not accepted; export it as JPEG or TIFF"
    if seen:
        return f"the object is {seen}, which is not accepted; accepted are {accepted()}"
    return f"the object is not a supported image format ({accepted()})"


def damaged(data: bytes, error: Exception) -> str:
    """What a decoder's error says about a file, as an error message."""
    reason = "".join(c if c.isprintable() else " " for c in str(error))
    reason = " ".join(reason.split())[:200] or type(error).__name__
    seen = f"{format_of(data)} image".lstrip()
    if "unsupported" in reason.lower() or "not supported" in reason.lower():
        return f"the {seen} is of a kind that cannot be read: {reason}"
    return f"the {seen} is damaged or cut short: {reason}"


def bomb(error: Exception, max_pixels: int) -> str:
    """The message for a file that Pillow refuses for its number of pixels."""
    pixels = re.search(r"\d+", str(error))  # of 'Image size (… pixels) exceeds limit of …'
    has = f"has {pixels[0]} pixels" if pixels else "decompresses to more than is accepted"
    return f"the image {has}; at most {max_pixels} are accepted"
