"""LZW by libtiff: imagecodecs' own decoder writes outside its memory when codes are damaged."""

from __future__ import annotations

import struct
from typing import Final

import imagecodecs

_SHORT, _LONG = 3, 4
_TAGS: Final = 9


def unpacked(body: bytes, size: int) -> bytes:
    """The `size` bytes that a strip or tile holds, as the only row of a gray image.

    Raises imagecodecs.TiffError where codes are damaged or too few.
    """
    start = 8 + 2 + 12 * _TAGS + 4
    tags = (
        (256, _LONG, size), (257, _LONG, 1), (258, _SHORT, 8), (259, _SHORT, 5), (262, _SHORT, 1),
        (273, _LONG, start), (277, _SHORT, 1), (278, _LONG, 1), (279, _LONG, len(body)),
    )  # fmt: skip
    entries = b"".join(struct.pack("<HHII", code, kind, 1, value) for code, kind, value in tags)
    header = b"II*\0" + struct.pack("<IH", 8, _TAGS) + entries + bytes(4)
    return bytes(imagecodecs.tiff_decode(header + body))
