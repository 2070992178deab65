"""Reads an image's size and number of scans from fixed places in its first bytes.

They must be known before a decoder opens the file: Pillow's WebP reader allocates the whole canvas, 8
bytes a pixel, when it opens a file of 40 bytes. TIFF, AVIF and HEIC have no such fixed place.
imaging/formats.py has the list of formats. The reader of a format that is not here checks the size.
"""

from __future__ import annotations

import re
import struct
from typing import Final

_START_OF_SCAN: Final = 0xDA
_END_OF_IMAGE: Final = 0xD9
_START_OF_FRAME: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_WITHOUT_LENGTH: Final = (0x01, 0xD8)
# A JPEG marker; stuffed zeros and restart markers are part of a scan's data.
_MARKER: Final = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")


def format_of(data: bytes) -> str:
    """JPEG, PNG, GIF, BMP, WEBP, TIFF, AVIF or HEIF by the first bytes; empty if none of them."""
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if data.startswith(b"BM"):
        return "BMP"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP"
    if data.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return "TIFF"
    if data[4:8] == b"ftyp":
        return "AVIF" if data[8:11] == b"avi" else "HEIF"
    return ""


def size_of(data: bytes) -> tuple[int, int] | None:
    """Width and height by the header, px; None if they are not at a fixed place."""
    read = _SIZES.get(format_of(data))
    try:
        return read(data) if read else None
    except (IndexError, struct.error):  # cut short; the decoder reports it
        return None


def scans_of(data: bytes, enough: int) -> int:
    """The number of scans of a JPEG; 0 for other formats.

    enough: a number up to which the answer need not be exact, which saves the walk through the file.
    Counting stops at the end of the image: phones append a video to it, whose bytes are random.
    """
    if format_of(data) != "JPEG":
        return 0
    upper_bound = data.count(b"\xff\xda")
    if upper_bound <= enough:
        return upper_bound
    scans, at = 0, 2
    while found := _MARKER.search(data, at):
        marker, at = found[1][0], found.end()
        if marker == _END_OF_IMAGE:
            break
        if marker in _WITHOUT_LENGTH:
            continue
        scans += marker == _START_OF_SCAN
        at += int.from_bytes(data[at : at + 2], "big")
    return scans


def _png(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def _gif(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from("<HH", data, 6)
    return width, height


def _bmp(data: bytes) -> tuple[int, int]:
    (header,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if header == 12 else "<ii", data, 18)
    return abs(width), abs(height)


def _webp(data: bytes) -> tuple[int, int] | None:
    kind = data[12:16]
    if kind == b"VP8X":
        canvas = data[24:30]
        if len(canvas) < 6:
            return None
        return int.from_bytes(canvas[:3], "little") + 1, int.from_bytes(canvas[3:], "little") + 1
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def _jpeg(data: bytes) -> tuple[int, int] | None:
    at = 2
    while found := _MARKER.search(data, at):
        marker, at = found[1][0], found.end()
        if marker in (_START_OF_SCAN, _END_OF_IMAGE):
            return None
        if marker in _WITHOUT_LENGTH:
            continue
        if marker in _START_OF_FRAME:
            height, width = struct.unpack_from(">HH", data, at + 3)
            return width, height
        at += int.from_bytes(data[at : at + 2], "big")
    return None


_SIZES: Final = {"PNG": _png, "GIF": _gif, "BMP": _bmp, "WEBP": _webp, "JPEG": _jpeg}
