"""The accepted image formats: the suffixes of their file names and their media types.

What looks for images in folders and buckets, the content type of uploads and the page's file chooser
derive from it. A new format starts here, and has its reader in maskq_worker/imaging/formats.py.

Names and types are hints for finding images. Workers decide by a file's first bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final


@dataclass(frozen=True, slots=True)
class ImageFormat:
    name: str
    """As Pillow names it."""
    media_type: str
    suffixes: tuple[str, ...]
    """In lower case, with the dot."""


IMAGE_FORMATS: Final = (
    ImageFormat("JPEG", "image/jpeg", (".jpg", ".jpeg", ".jpe", ".jfif")),
    ImageFormat("PNG", "image/png", (".png",)),
    ImageFormat("WEBP", "image/webp", (".webp",)),
    ImageFormat("TIFF", "image/tiff", (".tif", ".tiff")),
    ImageFormat("BMP", "image/bmp", (".bmp",)),
    ImageFormat("GIF", "image/gif", (".gif",)),
    ImageFormat("AVIF", "image/avif", (".avif",)),
    ImageFormat("HEIF", "image/heic", (".heic",)),
    ImageFormat("HEIF", "image/heif", (".heif",)),
)
IMAGE_SUFFIXES: Final = tuple(
    sorted(suffix for image_format in IMAGE_FORMATS for suffix in image_format.suffixes)
)
MEDIA_TYPES: Final[Mapping[str, str]] = MappingProxyType(
    {suffix: one.media_type for one in IMAGE_FORMATS for suffix in one.suffixes}
)
"""Suffix → media type."""
