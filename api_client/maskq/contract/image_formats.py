"""The accepted image formats: suffixes of file names, media types, and signatures in the first bytes.

What looks for images in folders and buckets, the content type of uploads and the page's file chooser
derive from it. A new format starts here, and has its reader in maskq_worker/imaging/formats.py.

Names and types are hints for finding images. A file's first bytes decide: a client refuses what is no
image by them, and a worker chooses the reader.
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

SIGNATURE_BYTES: Final = 256  # of a file's start, which `format_of` looks at
_RAW: Final = "camera raw ({})"
SIGNATURES: Final = (
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (8, b"WEBP", "WebP"),
    (8, b"CR\x02\0", _RAW.format("Canon CR2")),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"II+\0", "TIFF"),
    (0, b"MM\0+", "TIFF"),
    (0, b"IIRO", _RAW.format("Olympus ORF")),
    (0, b"IIRS", _RAW.format("Olympus ORF")),
    (0, b"MMOR", _RAW.format("Olympus ORF")),
    (0, b"IIU\0", _RAW.format("Panasonic RW2")),
    (0, b"FUJIFILMCCD-RAW", _RAW.format("Fujifilm RAF")),
    (0, b"FOVb", _RAW.format("Sigma X3F")),
    (0, b"\0MRM", _RAW.format("Minolta MRW")),
    (0, b"BM", "BMP"),
    (0, b"GIF8", "GIF"),
    (4, b"ftypcrx", _RAW.format("Canon CR3")),
    (4, b"ftypavi", "AVIF"),
    (4, b"ftyphei", "HEIC"),
    (4, b"ftyphev", "HEIC"),
    (4, b"ftypmif", "HEIF"),
    (4, b"ftypmsf", "HEIF"),
    (4, b"ftyp", "MP4 or QuickTime video"),
    (0, b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"8BPS", "Photoshop"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL"),
    (0, b"%PDF", "PDF"),
    (0, b"PK\x03\x04", "ZIP"),
    (0, b"\x1f\x8b", "gzip"),
    (0, b"<svg", "SVG"),
    (0, b"<?xml", "XML"),
    (0, b"<", "HTML or XML"),
    (0, b"{", "JSON"),
)


def format_of(data: bytes) -> str:
    """The format that the first bytes name; empty if unknown."""
    start = data[:SIGNATURE_BYTES].lstrip()
    for offset, signature, name in SIGNATURES:
        if start[offset:].startswith(signature):
            return name
    return ""


def media_type_of(data: bytes) -> str | None:
    """The media type of an accepted format, by a file's first bytes; None for anything else."""
    return _ACCEPTED.get(format_of(data))


# By the names of SIGNATURES.
_ACCEPTED: Final[Mapping[str, str]] = MappingProxyType(
    {"WebP": "image/webp", "HEIC": "image/heic", "HEIF": "image/heif"}
    | {
        one.name: one.media_type
        for one in IMAGE_FORMATS
        if any(one.name == name for _, _, name in SIGNATURES)
    }
)
