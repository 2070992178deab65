"""Image files drawn bit by bit, for the kinds that Pillow reads but does not write.

Each function packs samples as its format's specification has them, so that a test's expected pixels
owe nothing to the decoder under test.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

# first row, first column, step of rows, step of columns
ADAM7 = (
    (0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1),
)  # fmt: skip
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of a PNG, by its colour type


def colours(height: int = 16, width: int = 24) -> np.ndarray:
    """RGB (H, W, 3) uint8: smooth enough for lossy formats, no two corners alike."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [x * 240 // (width - 1) + 8, y * 200 // (height - 1) + 20, (x + y) * 5 % 256]
    return np.stack(planes, axis=2).astype(np.uint8)


def packed(samples: np.ndarray, depth: int, order: str = ">") -> list[bytes]:
    """Rows of (H, W, C), each a whole number of bytes, the first sample in the highest bits."""
    flat = samples.reshape(samples.shape[0], -1)
    if depth >= 8:
        kind = {8: "u1", 16: "u2", 32: "u4"}[depth] if flat.dtype.kind != "f" else "f4"
        return [row.astype(order + kind).tobytes() for row in flat]
    bits = (flat[:, :, np.newaxis] >> np.arange(depth - 1, -1, -1)) & 1
    return [np.packbits(row).tobytes() for row in bits.reshape(len(flat), -1).astype(np.uint8)]


def chunk(kind: bytes, data: bytes) -> bytes:
    check = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)


def png(
    samples: np.ndarray,
    depth: int,
    colour_type: int,
    *,
    interlaced: bool = False,
    before: bytes = b"",
    after: bytes = b"",
    size: tuple[int, int] | None = None,
) -> bytes:
    """`samples` (H, W, C); `before` and `after` are chunks around the pixels; `size` may lie."""
    height, width = samples.shape[:2]
    passes = ADAM7 if interlaced else ((0, 0, 1, 1),)
    parts = [samples[top::down, left::right] for top, left, down, right in passes]
    rows = b"".join(b"\0" + row for part in parts if part.size for row in packed(part, depth))
    said_width, said_height = size or (width, height)
    header = struct.pack(">IIBBBBB", said_width, said_height, depth, colour_type, 0, 0, interlaced)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + before
        + chunk(b"IDAT", zlib.compress(rows))
        + after
        + chunk(b"IEND", b"")
    )


def tiff(pages: Sequence[tuple[Mapping[int, Sequence[int]], Sequence[bytes]]], order: str) -> bytes:
    """Pages of (tags, strips or tiles); `order` is '<' or '>'. Tags are LONG, or SHORT below 65536.

    A page with tag 322 is tiled; one that brings its own 273 or 324 says where its data lies.
    """
    out = bytearray((b"II*\0" if order == "<" else b"MM\0*") + bytes(4))
    link = 4  # where the offset of the next page goes
    for tags, blocks in pages:
        offsets = []
        for block in blocks:
            offsets.append(len(out))
            out += block + bytes(len(block) % 2)
        places, counts = (324, 325) if 322 in tags else (273, 279)
        whole = {places: offsets, counts: [len(block) for block in blocks], **tags}
        entries = b""
        for tag, values in sorted(whole.items()):
            short = all(value < 65536 for value in values)
            packed_values = struct.pack(f"{order}{len(values)}{'H' if short else 'I'}", *values)
            if len(packed_values) > 4:
                place, packed_values = len(out), b""
                out += struct.pack(f"{order}{len(values)}{'H' if short else 'I'}", *values)
                out += bytes(len(out) % 2)
                packed_values = struct.pack(order + "I", place)
            entry = struct.pack(order + "HHI", tag, 3 if short else 4, len(values))
            entries += entry + packed_values.ljust(4, b"\0")
        out[link : link + 4] = struct.pack(order + "I", len(out))
        out += struct.pack(order + "H", len(whole)) + entries + bytes(4)
        link = len(out) - 4
    return bytes(out)


def page(
    samples: np.ndarray,
    depth: int,
    photometric: int,
    *,
    order: str = "<",
    **more: Sequence[int],
) -> tuple[dict[int, Sequence[int]], list[bytes]]:
    """One page of `tiff`, its rows in two uncompressed strips; `more` is t338=[2] and so on."""
    height, width, channels = samples.shape
    half = (height + 1) // 2
    rows = packed(samples, depth, order)
    tags: dict[int, Sequence[int]] = {
        256: [width], 257: [height], 258: [depth] * channels, 259: [1], 262: [photometric],
        277: [channels], 278: [half],
    }  # fmt: skip
    tags |= {int(name[1:]): values for name, values in more.items()}
    strips = [b"".join(rows[:half]), b"".join(rows[half:])]
    return tags, [strip for strip in strips if strip]


def tiled(samples: np.ndarray, side: int) -> tuple[dict[int, Sequence[int]], list[bytes]]:
    """One page of 8-bit RGB in tiles of `side`, deflated."""
    height, width, channels = samples.shape
    grown = np.zeros((-(-height // side) * side, -(-width // side) * side, channels), np.uint8)
    grown[:height, :width] = samples
    tiles = [
        grown[top : top + side, left : left + side]
        for top in range(0, height, side)
        for left in range(0, width, side)
    ]
    tags: dict[int, Sequence[int]] = {
        256: [width], 257: [height], 258: [8] * channels, 259: [8], 262: [2], 277: [channels],
        322: [side], 323: [side],
    }  # fmt: skip
    return tags, [zlib.compress(tile.tobytes()) for tile in tiles]


def bmp(
    width: int,
    height: int,
    bits: int,
    data: bytes,
    *,
    compression: int = 0,
    palette: Iterable[tuple[int, int, int]] = (),
    masks: Sequence[int] = (),
) -> bytes:
    """A negative height is top-down. `masks` of 4 make a header of version 4, which has alpha."""
    colour_table = b"".join(bytes((blue, green, red, 0)) for red, green, blue in palette)
    header = struct.pack(
        "<iiHHIIiiII", width, height, 1, bits, compression, len(data), 2835, 2835,
        len(colour_table) // 4, 0,
    )  # fmt: skip
    spoken = struct.pack(f"<{len(masks)}I", *masks)
    inside = len(masks) == 4
    if inside:
        header += spoken + b"BGRs" + bytes(48)
        spoken = b""
    start = 14 + 4 + len(header) + len(spoken) + len(colour_table)
    about = struct.pack("<2sIHHI", b"BM", start + len(data), 0, 0, start)
    return about + struct.pack("<I", 4 + len(header)) + header + spoken + colour_table + data


def gif(
    screen: tuple[int, int],
    frames: Sequence[tuple[tuple[int, int, int, int], Sequence[int], int, int | None]],
    palette: Sequence[tuple[int, int, int]],
) -> bytes:
    """Frames of ((left, top, width, height), indices below 4, disposal, transparent index)."""
    table = b"".join(bytes(colour) for colour in palette).ljust(12, b"\0")
    out = b"GIF89a" + struct.pack("<HHBBB", *screen, 0x81, 0, 0) + table
    for box, indices, disposal, transparent in frames:
        flags = disposal << 2 | (transparent is not None)
        out += b"\x21\xf9\x04" + struct.pack("<BHB", flags, 0, transparent or 0) + b"\0"
        # Codes of 3 bits throughout: 'clear' (4) before every second index keeps them so.
        codes = [code for index in indices for code in (4, index)] + [5]
        bits = "".join(f"{code:03b}" for code in reversed(codes))
        data = int(bits, 2).to_bytes(-(-len(bits) // 8), "little")
        out += b"\x2c" + struct.pack("<HHHHB", *box, 0) + b"\x02"
        for start in range(0, len(data), 255):
            out += bytes((len(data[start : start + 255]),)) + data[start : start + 255]
        out += b"\0"
    return out + b";"


def _fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def _profile(space: bytes, kind: bytes, pcs: bytes, tags: dict[bytes, bytes]) -> bytes:
    start = 128 + 4 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for signature, value in tags.items():
        table += struct.pack(">4sII", signature, start + len(body), len(value))
        body += value + bytes(-len(value) % 4)
    header = bytearray(128)
    header[0:4] = struct.pack(">I", start + len(body))
    header[8:24] = struct.pack(">I4s4s4s", 0x02400000, kind, space, pcs)
    header[36:40] = b"acsp"
    header[68:80] = _fixed(0.9642) + _fixed(1.0) + _fixed(0.8249)
    return bytes(header) + table + body


def _common(name: bytes) -> dict[bytes, bytes]:
    white = b"XYZ \0\0\0\0" + _fixed(0.9642) + _fixed(1.0) + _fixed(0.8249)
    said = b"desc\0\0\0\0" + struct.pack(">I", len(name) + 1) + name + bytes(1 + 12 + 67)
    return {b"desc": said, b"wtpt": white}


def _gamma(value: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(value * 256)) + bytes(2)


def rgb_profile(name: bytes, gamma: float, to_xyz: np.ndarray) -> bytes:
    """`to_xyz` (3, 3): linear RGB to XYZ under D50."""
    tags = _common(name)
    for column, letter in enumerate((b"r", b"g", b"b")):
        numbers = b"".join(_fixed(value) for value in to_xyz[:, column])
        tags[letter + b"XYZ"] = b"XYZ \0\0\0\0" + numbers
        tags[letter + b"TRC"] = _gamma(gamma)
    return _profile(b"RGB ", b"mntr", b"XYZ ", tags)


def gray_profile(name: bytes, gamma: float) -> bytes:
    return _profile(b"GRAY", b"mntr", b"XYZ ", _common(name) | {b"kTRC": _gamma(gamma)})


def cmyk_profile(name: bytes) -> bytes:
    """Inks that darken alike and colour nothing: L* is 100 (1 - (C + M + Y + K) / 4)."""
    identity = bytes(range(256))
    corners = [(c, m, y, k) for c in (0, 1) for m in (0, 1) for y in (0, 1) for k in (0, 1)]
    grid = b"".join(bytes((round(255 * (1 - sum(corner) / 4)), 128, 128)) for corner in corners)
    matrix = b"".join(_fixed(value) for value in (1, 0, 0, 0, 1, 0, 0, 0, 1))
    table = b"mft1\0\0\0\0" + bytes((4, 3, 2, 0)) + matrix + identity * 4 + grid + identity * 3
    return _profile(b"CMYK", b"prtr", b"Lab ", _common(name) | {b"A2B0": table})
