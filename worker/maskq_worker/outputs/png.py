"""Encodes palette PNGs without Pillow, whose encoder takes four times as long for a small mask.

A mask needs only one kind of PNG: eight bits a pixel and no filter, since neighbouring class ids are
not similar values. https://www.w3.org/TR/png-3/
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_PALETTE: Final = 3  # IHDR's colour type
COMPRESS_LEVEL: Final = 1  # of all PNGs; a higher level saves little


def palette_png(pixels: NDArray[np.uint8], colours: bytes) -> bytes:
    """pixels: (H, W), each the number of a colour; colours: RGB, three bytes each, at most 256."""
    height, width = pixels.shape
    rows = np.zeros((height, 1 + width), np.uint8)  # each begins with its filter's number: none
    rows[:, 1:] = pixels
    header = struct.pack(">IIBBBBB", width, height, 8, _PALETTE, 0, 0, 0)
    return b"".join(
        (
            _SIGNATURE,
            _chunk(b"IHDR", header),
            _chunk(b"PLTE", colours),
            _chunk(b"IDAT", zlib.compress(rows.data, COMPRESS_LEVEL)),
            _chunk(b"IEND", b""),
        )
    )


def _chunk(kind: bytes, body: bytes) -> bytes:
    checked = zlib.crc32(body, zlib.crc32(kind))
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checked)
