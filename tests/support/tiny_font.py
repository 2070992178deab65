"""A font file with a few characters of any script: Pillow's own font under another character map."""

from __future__ import annotations

import io
import struct
from pathlib import Path

from PIL import ImageFont

_HEADER = 12  # bytes of a TrueType file before its table of tables
_RECORD = 16  # bytes of each record there: tag, checksum, offset, length
_FIRST_GLYPH = 20


def write_font(path: Path, characters: str) -> None:
    """Each character is drawn as some Latin one, and all others are absent."""
    plain = ImageFont.load_default(20)
    assert isinstance(plain, ImageFont.FreeTypeFont)  # else Pillow was built without FreeType
    assert isinstance(plain.path, io.BytesIO)
    font = bytearray(plain.path.getvalue())
    table = _character_map(characters)
    for record in range(_HEADER, _HEADER + _RECORD * int.from_bytes(font[4:6], "big"), _RECORD):
        if font[record : record + 4] == b"cmap":
            font[record + 8 : record + 16] = struct.pack(">LL", len(font), len(table))
    path.write_bytes(font + table)


def _character_map(characters: str) -> bytes:
    """A cmap table of format 12, with a group of one for each character."""
    groups = b"".join(
        struct.pack(">LLL", code, code, _FIRST_GLYPH + number)
        for number, code in enumerate(sorted({ord(one) for one in characters}))
    )
    head = struct.pack(">HHHHL", 0, 1, 3, 10, 12)  # version, tables, platform, encoding, offset
    size, count = 16 + len(groups), len(groups) // 12
    return head + struct.pack(">HHLLL", 12, 0, size, 0, count) + groups
