"""TIFF files written tag by tag, in every layout, without the library that reads them.

Compressed bytes come from codecs, everything around them from here: byte order, strips and tiles,
planes, bits, predictors, tags.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import imagecodecs
import numpy as np

SHORT, LONG, RATIONAL, ASCII, UNDEFINED, LONG8, IFD = 3, 4, 5, 2, 7, 16, 13
_FORMATS = {SHORT: "H", LONG: "I", LONG8: "Q", IFD: "I"}
_FORMAT_OF_KIND = {"u": 1, "b": 1, "i": 2, "f": 3}

PACKERS: dict[str, tuple[int, Callable[[bytes], bytes]]] = {
    "raw": (1, bytes),
    "lzw": (5, imagecodecs.lzw_encode),
    "deflate": (8, zlib.compress),
    "old deflate": (32946, zlib.compress),
    "packbits": (32773, imagecodecs.packbits_encode),
    "zstd": (50000, imagecodecs.zstd_encode),
}
Tag = tuple[int, Any]  # type and values


@dataclass
class Page:
    """samples (H, W, C) as they are to be read back; `tags` are added or win."""

    samples: np.ndarray
    bits: int
    photometric: int
    packing: str = "raw"
    tile: int = 0  # side; 0: strips
    rows: int = 0  # of a strip; 0: three strips
    is_planar: bool = False
    predictor: int = 1
    fill_order: int = 1
    tags: dict[int, Tag] = field(default_factory=dict)
    encode: tuple[int, Callable[[np.ndarray], bytes]] | None = None  # compression of whole images


def written(pages: Sequence[Page], order: str = "<", *, big: bool = False) -> bytes:
    """A file of pages; a page's SubIFDs are not written here."""
    mark = b"II" if order == "<" else b"MM"
    size = "Q" if big else "I"
    head = struct.pack(order + "HHH", 43, 8, 0) if big else struct.pack(order + "H", 42)
    out = bytearray(mark + head)
    link = len(out)
    out += bytes(8 if big else 4)
    for page in pages:
        blocks = _blocks(page, order)
        offsets = []
        for block in blocks:
            out += bytes(len(out) % 2)
            offsets.append(len(out))
            out += block
        tags = _tags(page, offsets, [len(block) for block in blocks]) | page.tags
        entries, later = b"", bytearray()
        out += bytes(len(out) % 2)
        start = len(out) + (8 + 20 * len(tags) + 8 if big else 2 + 12 * len(tags) + 4)
        for code, (kind, values) in sorted(tags.items()):
            body, count = _packed(kind, values, order)
            inline = 8 if big else 4
            if len(body) > inline:
                place = start + len(later)
                later += body + bytes(len(body) % 2)
                body = struct.pack(order + size, place)
            entries += struct.pack(order + "HH" + size, code, kind, count) + body.ljust(
                inline, b"\0"
            )
        struct.pack_into(order + size, out, link, len(out))
        out += struct.pack(order + ("Q" if big else "H"), len(tags)) + entries
        link = len(out)
        out += bytes(8 if big else 4) + later
    return bytes(out)


def _packed(kind: int, values: Any, order: str) -> tuple[bytes, int]:
    if kind in (ASCII, UNDEFINED):
        return bytes(values), len(values)
    if kind == RATIONAL:
        return b"".join(struct.pack(order + "II", round(v * 10**6), 10**6) for v in values), len(
            values
        )
    return struct.pack(f"{order}{len(values)}{_FORMATS[kind]}", *values), len(values)


def _tags(page: Page, offsets: list[int], counts: list[int]) -> dict[int, Tag]:
    height, width, channels = page.samples.shape
    compression = page.encode[0] if page.encode else PACKERS[page.packing][0]
    tags: dict[int, Tag] = {
        256: (LONG, [width]), 257: (LONG, [height]), 258: (SHORT, [page.bits] * channels),
        259: (SHORT, [compression]), 262: (SHORT, [page.photometric]), 277: (SHORT, [channels]),
        339: (SHORT, [_FORMAT_OF_KIND[page.samples.dtype.kind]] * channels),
    }  # fmt: skip
    if page.is_planar:
        tags[284] = (SHORT, [2])
    if page.predictor != 1:
        tags[317] = (SHORT, [page.predictor])
    if page.fill_order != 1:
        tags[266] = (SHORT, [page.fill_order])
    if page.tile:
        tags |= {322: (SHORT, [page.tile]), 323: (SHORT, [page.tile])}
        tags |= {324: (LONG, offsets), 325: (LONG, counts)}
    else:
        tags |= {278: (SHORT, [_rows(page)]), 273: (LONG, offsets), 279: (LONG, counts)}
    return tags


def _rows(page: Page) -> int:
    return page.rows or -(-len(page.samples) // 3)


def _blocks(page: Page, order: str) -> list[bytes]:
    height, width, channels = page.samples.shape
    planes = [page.samples]
    if page.is_planar:
        planes = [page.samples[..., band : band + 1] for band in range(channels)]
    parts = []
    for plane in planes:
        if page.tile:
            side = page.tile
            grown = np.pad(plane, ((0, -height % side), (0, -width % side), (0, 0)), mode="edge")
            parts += [
                grown[top : top + side, left : left + side]
                for top in range(0, height, side)
                for left in range(0, width, side)
            ]
        else:
            step = _rows(page)
            parts += [plane[top : top + step] for top in range(0, height, step)]
    if page.encode:
        return [page.encode[1](np.ascontiguousarray(part)) for part in parts]
    pack = PACKERS[page.packing][1]
    blocks = [pack(_bytes(part, page, order)) for part in parts]
    if page.fill_order == 2:
        bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)
        turned = np.packbits(bits[:, ::-1], axis=1)
        blocks = [turned[np.frombuffer(block, np.uint8), 0].tobytes() for block in blocks]
    return blocks


def _bytes(part: np.ndarray, page: Page, order: str) -> bytes:
    height, width, channels = part.shape
    if page.bits not in (8, 16, 32, 64):
        flat = part.reshape(height, -1).astype(np.uint32)
        bits = (flat[..., None] >> np.arange(page.bits - 1, -1, -1)) & 1
        return np.packbits(bits.reshape(height, -1).astype(np.uint8), axis=1).tobytes()
    kind = part.dtype.newbyteorder(order)
    if page.predictor == 2:
        number = part.view(f"u{part.dtype.itemsize}")
        before = np.zeros_like(number)
        before[:, 1:] = number[:, :-1]
        return (number - before).astype(kind.str.replace("i", "u")).tobytes()
    if page.predictor == 3:
        # Rows of the highest bytes, then of the next …, whatever the file's order; then differences.
        size = part.dtype.itemsize
        raw = np.frombuffer(part.astype(part.dtype.newbyteorder(">")).tobytes(), np.uint8)
        shuffled = (
            raw.reshape(height, width * channels, size).transpose(0, 2, 1).reshape(height, -1)
        )
        before = np.zeros_like(shuffled)
        before[:, channels:] = shuffled[:, :-channels]
        return (shuffled - before).tobytes()
    return part.astype(kind).tobytes()
