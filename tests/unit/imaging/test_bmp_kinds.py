"""BMP: every header, depth, bit field and run-length coding is the sound picture, or refused."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from images.variants import GRAY, RGB, on_white

from maskq_worker.errors import PermanentError
from maskq_worker.imaging import Decoded, decode

HEIGHT, WIDTH = RGB.shape[:2]
PALETTE = np.array([(i, 255 - i, i * 2 % 256) for i in range(256)], np.uint8)
INDEX = GRAY[..., 0]
HEADERS = (40, 52, 56, 64, 108, 124)  # bytes
FIELDS = {
    "565": (16, (0xF800, 0x07E0, 0x001F)), "555": (16, (0x7C00, 0x03E0, 0x001F)),
    "444": (16, (0x0F00, 0x00F0, 0x000F)), "565 blue first": (16, (0x001F, 0x07E0, 0xF800)),
    "1555": (16, (0x7C00, 0x03E0, 0x001F, 0x8000)), "4444": (16, (0x0F00, 0x00F0, 0x000F, 0xF000)),
    "888": (32, (0xFF0000, 0xFF00, 0xFF)), "888 red first": (32, (0xFF, 0xFF00, 0xFF0000)),
    "888 high": (32, (0xFF000000, 0xFF0000, 0xFF00)),
    "888 high, red first": (32, (0xFF00, 0xFF0000, 0xFF000000)),
    "10 bits": (32, (0x3FF00000, 0xFFC00, 0x3FF)), "8888": (32, (0xFF0000, 0xFF00, 0xFF, 0xFF000000)),
    "8888 red first": (32, (0xFF, 0xFF00, 0xFF0000, 0xFF000000)),
}  # fmt: skip


def decoded(data: bytes) -> Decoded:
    return decode(data, max_pixels=1_000_000)


def off(data: bytes, expected: np.ndarray) -> int:
    return int(np.abs(np.asarray(decoded(data).image).astype(int) - expected).max())


def written(
    size: int,
    bits: int,
    rows: bytes,
    *,
    shape: tuple[int, int] = (WIDTH, HEIGHT),
    compression: int = 0,
    colours: int = 0,
    masks: tuple[int, ...] = (),
) -> bytes:
    """size: of the header; shape: width, and height, which is negative from the top."""
    palette = b""
    if colours:
        padding = 0 if size == 12 else 1
        palette = b"".join(bytes(row[::-1]) + bytes(padding) for row in PALETTE[:colours])
    spoken = struct.pack(f"<{len(masks)}I", *masks)
    if size == 12:
        header = struct.pack("<IHHHH", 12, *shape, 1, bits)
    else:
        header = struct.pack(
            "<IiiHHIIiiII", size, *shape, 1, bits, compression, len(rows), 0, 0, colours % 256, 0
        )
        inside = 0 if size == 40 else min(len(spoken), size - 40)
        header = (header + spoken[:inside]).ljust(size, b"\0") + spoken[inside:]
    start = 14 + len(header) + len(palette)
    return struct.pack("<2sIHHI", b"BM", start + len(rows), 0, 0, start) + header + palette + rows


def padded(pixels: np.ndarray) -> bytes:
    """Rows of bytes from the bottom, each to a multiple of four."""
    rows = [row.tobytes() for row in pixels[::-1]]
    return b"".join(row + bytes(-len(row) % 4) for row in rows)


def in_fields(masks: tuple[int, ...], bits: int) -> tuple[bytes, np.ndarray]:
    """Rows of RGB in bit fields, opaque, and what they can hold of it."""
    packed = np.full((HEIGHT, WIDTH), masks[3] if len(masks) > 3 else 0, np.uint64)
    shown = np.zeros(RGB.shape)
    for band, mask in enumerate(masks[:3]):
        most = mask >> (low := (mask & -mask).bit_length() - 1)
        values = (RGB[..., band].astype(np.uint64) * most + 127) // 255
        packed |= values << np.uint64(low)
        shown[..., band] = (values * 255.0 / most).round()
    return padded(packed.astype(f"<u{bits // 8}")), shown


@pytest.mark.parametrize("size", HEADERS)
def test_depths_of_every_header(size: int) -> None:
    bgr = RGB[..., ::-1].reshape(HEIGHT, -1)
    assert off(written(size, 24, padded(bgr)), RGB) == 0
    assert off(written(size, 24, padded(bgr[::-1]), shape=(WIDTH, -HEIGHT)), RGB) == 0
    assert off(written(size, 8, padded(INDEX), colours=256), PALETTE[INDEX]) == 0
    rows, shown = in_fields((0x7C00, 0x03E0, 0x001F), 16)
    assert off(written(size, 16, rows), shown) <= 1
    for unused in (0, 77, 255):
        four = np.dstack([RGB[..., ::-1], np.full_like(GRAY, unused)]).reshape(HEIGHT, -1)
        assert off(written(size, 32, padded(four)), RGB) == 0


@pytest.mark.parametrize("bits", [1, 4, 8, 24])
def test_the_old_header_of_os_2(bits: int) -> None:
    index = INDEX % min(2**bits, 255)
    shown = PALETTE[index] if bits < 24 else RGB
    rows = {
        1: np.packbits(index, axis=1), 4: (index[:, ::2] << 4 | index[:, 1::2]).astype(np.uint8),
        8: index, 24: RGB[..., ::-1].reshape(HEIGHT, -1),
    }[bits]  # fmt: skip
    assert off(written(12, bits, padded(rows), colours=2**bits if bits < 24 else 0), shown) == 0


@pytest.mark.parametrize("size", HEADERS)
@pytest.mark.parametrize("name", FIELDS)
def test_bit_fields(name: str, size: int) -> None:
    bits, masks = FIELDS[name]
    if len(masks) == 4 and size < 56:
        masks = masks[:3]
    rows, shown = in_fields(masks, bits)
    assert off(written(size, bits, rows, compression=3, masks=masks), shown) <= 1


def test_alpha_in_bit_fields() -> None:
    fade = (np.arange(WIDTH)[None, :] * 255 // (WIDTH - 1)).repeat(HEIGHT, axis=0).astype(np.uint8)
    four = np.dstack([RGB[..., ::-1], fade]).reshape(HEIGHT, -1)
    masks = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    data = written(124, 32, padded(four), compression=3, masks=masks)
    assert off(data, on_white(RGB, fade)) <= 1
    assert decoded(data).notes == ("transparency laid on white",)
    clear = np.dstack([RGB[..., ::-1], np.zeros_like(fade)]).reshape(HEIGHT, -1)
    data = written(124, 32, padded(clear), compression=3, masks=masks)
    assert off(data, RGB) == 0
    assert decoded(data).notes == ("alpha of zero everywhere ignored",)


def runs(rows: np.ndarray, *, literal: bool) -> bytes:
    out = b""
    for row in rows[::-1]:
        if literal:
            out += bytes((0, len(row))) + row.tobytes() + bytes(len(row) % 2)
        else:
            out += b"".join(bytes((1, value)) for value in row)
        out += b"\0\0"
    return out + b"\0\1"


@pytest.mark.parametrize("literal", [False, True])
def test_runs(literal: bool) -> None:
    rows = runs(INDEX, literal=literal)
    data = written(40, 8, rows, compression=1, colours=256)
    assert off(data, PALETTE[INDEX]) == 0
    assert decoded(data).notes == ()


@pytest.mark.parametrize(
    ("bits", "rows", "places"),
    [
        (8, b"\2\5\0\2\2\1\3\7\0\1", {(0, 0, 2): 5, (1, 4, 7): 7}),  # four to the right, one up
        (8, b"\2\5\0\0\3\7\0\1", {(0, 0, 2): 5, (1, 0, 3): 7}),  # rows that end early
        (8, b"\0\0\0\0\3\7\0\1", {(2, 0, 3): 7}),  # rows without pixels
        (8, b"\x0a\7\0\1", {(0, 0, 8): 7}),  # a run longer than its row
        (4, b"\3\x57\0\0\2\x66\0\1", {(0, 0, 3): (5, 7, 5), (1, 0, 2): 6}),
        (4, b"\0\5\x12\x34\x50\0\0\0\0\1", {(0, 0, 5): (1, 2, 3, 4, 5)}),
    ],
)
def test_runs_that_leave_pixels_out(bits: int, rows: bytes, places: dict) -> None:
    index = np.zeros((4, 8), int)
    for (row, start, stop), values in places.items():
        index[row, start:stop] = values
    data = written(40, bits, rows, shape=(8, 4), compression=1 if bits == 8 else 2, colours=2**bits)
    assert off(data, PALETTE[index[::-1]]) == 0
    left = 32 - sum(stop - start for _, start, stop in places)
    assert decoded(data).notes == (f"{left} pixels left out by its runs have its first colour",)


def test_colours_that_the_palette_lacks_are_noted() -> None:
    data = written(40, 8, padded(INDEX), colours=16)
    assert decoded(data).notes == ("colours that its palette lacks shown black",)
    data = written(40, 8, runs(INDEX, literal=True), compression=1, colours=16)
    assert decoded(data).notes == ("colours that its palette lacks shown black",)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (written(40, 2, bytes(200)), "pixel depth"),
        (written(40, 64, bytes(64 * 400)), "pixel depth"),
        (written(40, 0, bytes(200), compression=4), "pixel depth"),
        (written(40, 24, padded(RGB.reshape(HEIGHT, -1))[:-50]), "truncated"),
        (written(40, 8, runs(INDEX, literal=True)[:300], compression=1, colours=256), "too early"),
        (written(40, 16, bytes(60), compression=3, masks=(0xF800, 0x7E0, 0x1F)), "fewer rows"),
        (written(40, 16, bytes(800), compression=3, masks=(0xF0F0, 0x7E0, 0x1F)), "contiguous"),
        (written(40, 8, b"\0\1", shape=(8, -4), compression=1, colours=256), "from the top"),
    ],
)
def test_what_is_not_read_is_named(data: bytes, said: str) -> None:
    with pytest.raises(PermanentError, match=said):
        decoded(data)
