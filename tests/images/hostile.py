"""Files that are damaged, or made to do harm: seeded mutations of real ones, and bombs."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable, Iterator

import numpy as np
import pillow_heif
from images.drawn import chunk, page, png, tiff
from images.variants import ALL, GRAY, RGB, saved
from PIL import Image
from unit.imaging.test_odd_files import NO_IMAGES, bombs

pillow_heif.register_heif_opener()  # here also for writing

SIZE = (96, 72)
_EXTREMES = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def photo(size: tuple[int, int] = SIZE, seed: int = 0) -> Image.Image:
    """RGB: gradients with noise."""
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    noise = np.random.default_rng(seed).integers(0, 40, (size[1], size[0], 3))
    base = np.stack([x * 215 // size[0], y * 215 // size[1], (x + y) % 200], axis=2)
    return Image.fromarray((base + noise).astype(np.uint8))


def good_files() -> dict[str, bytes]:
    """A photograph of 96x72 px in every format."""
    image = photo()
    return {
        "jpeg": saved(image, "JPEG"),
        "progressive jpeg": saved(image, "JPEG", progressive=True),
        "png": saved(image, "PNG"),
        "webp": saved(image, "WEBP"),
        "lossless webp": saved(image, "WEBP", lossless=True),
        "tiff": saved(image, "TIFF", compression="tiff_adobe_deflate"),
        "lzw tiff": saved(image, "TIFF", compression="tiff_lzw"),
        "jpeg tiff": saved(image, "TIFF", compression="jpeg"),
        "gif": saved(image, "GIF"),
        "bmp": saved(image, "BMP"),
        "avif": saved(image, "AVIF"),
        "heic": saved(image, "HEIF"),
    }


def mutated(count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """`count` files with a name each, the same for the same seed; a few can still be read."""
    chance = random.Random(seed)
    whole = [*good_files().items(), *((name, variant.data) for name, variant in ALL.items())]
    names = list(_MUTATIONS)
    for number in range(count):
        name, data = whole[number % len(whole)]
        _, other = chance.choice(whole)
        mutation = names[number // len(whole) % len(names)]
        yield f"{number} {name}, {mutation}", _MUTATIONS[mutation](data, other, chance)


def _cut(data: bytes, _: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(4, max(5, len(data) * 3 // 4))]


def _hole(data: bytes, _: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(8, max(9, len(data) // 2))
    return data[:start] + data[start + chance.randrange(1, max(2, len(data) // 3)) :]


def _bits(data: bytes, _: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    for _turn in range(chance.randint(4, 40)):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _head_bits(data: bytes, _: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    for _turn in range(chance.randint(2, 12)):
        changed[chance.randrange(min(len(changed), 200))] = chance.randrange(256)
    return bytes(changed)


def _numbers(data: bytes, _: bytes, chance: random.Random) -> bytes:
    """Extreme numbers where sizes, counts and offsets may stand."""
    changed = bytearray(data)
    for _turn in range(chance.randint(1, 6)):
        width = chance.choice((2, 4))
        value = chance.choice(_EXTREMES) & (2 ** (8 * width) - 1)
        at = chance.randrange(4, max(5, min(len(changed), 300) - width))
        changed[at : at + width] = value.to_bytes(width, chance.choice(("little", "big")))
    return bytes(changed)


def _noise(data: bytes, _: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(12, max(13, len(data) // 2))
    return data[:start] + chance.randbytes(chance.randint(100, 2000))


def _repeated(data: bytes, _: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(8, max(9, len(data) - 20))
    part = data[start : start + chance.randint(4, 200)]
    return data[:start] + part * chance.randint(2, 60) + data[start:]


def _spliced(data: bytes, other: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(12, max(13, len(data) // 2))] + other[len(other) // 2 :]


def _foreign_head(data: bytes, other: bytes, chance: random.Random) -> bytes:
    length = chance.choice((8, 16, 32))
    return other[:length] + data[length:]


_MUTATIONS: dict[str, Callable[[bytes, bytes, random.Random], bytes]] = {
    "cut": _cut, "hole": _hole, "bits": _bits, "head": _head_bits, "numbers": _numbers,
    "noise": _noise, "repeated": _repeated, "spliced": _spliced, "foreign head": _foreign_head,
}  # fmt: skip


def made_by_hand() -> dict[str, bytes]:
    """Bombs: files of some kilobytes that claim gigabytes, or take minutes."""
    return {**NO_IMAGES, **bombs(), **canvases(), **_avifs(), **_more()}


def canvases() -> dict[str, bytes]:
    """WebPs of some 100 bytes whose canvas is allocated when they are opened."""
    small = saved(photo((16, 16)), "WEBP", lossless=True)
    lossy = saved(photo((16, 16)), "WEBP")
    turned = Image.Exif()
    turned[0x0112] = 6
    extended = saved(photo((16, 16)), "WEBP", lossless=True, exif=turned)
    assert extended[12:16] == b"VP8X"
    files = {}
    for number, side in enumerate((4000, 4400, 10_000, 16_383, 16_384)):
        data = bytearray(small)
        (bits,) = struct.unpack_from("<I", data, 21)
        data[21:25] = struct.pack("<I", bits & 0xF0000000 | (side - 1) << 14 | side - 1)
        files[f"webp canvas {number}"] = bytes(data)
        data = bytearray(lossy)
        data[26:30] = struct.pack("<HH", min(side, 16_383), min(side, 16_383))
        files[f"lossy webp canvas {number}"] = bytes(data)
        data = bytearray(extended)
        data[24:30] = (side - 1).to_bytes(3, "little") * 2
        files[f"extended webp canvas {number}"] = bytes(data)
    return files


def _avifs() -> dict[str, bytes]:
    """Whose boxes say another size than their pixels have."""
    files = {}
    for kind in ("AVIF", "HEIF"):
        whole = bytearray(saved(photo(), kind))
        at = whole.index(b"ispe") + 8
        for side in (1, 4400, 10_000, 65_000, 2**31 - 1):
            whole[at : at + 8] = struct.pack(">II", side, side)
            files[f"{kind} of {side}"] = bytes(whole)
    return files


def _more() -> dict[str, bytes]:
    zeros = zlib.compress(bytes(60 * 10**6), 1)
    profile = chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(16 * 10**6), 9))
    text = chunk(b"zTXt", b"a\0\0" + zeros)
    international = chunk(b"iTXt", b"a\0\1\0\0\0" + zeros)
    frames = photo((300, 300))
    loop = bytearray(tiff([page(GRAY, 8, 1)], "<"))
    loop[-4:] = struct.pack("<I", int.from_bytes(loop[4:8], "little"))
    return {
        "png texts of 60 MB": png(RGB, 8, 2, before=text * 20),
        "png international texts": png(RGB, 8, 2, before=international * 20),
        "png that unpacks 400 profiles": png(RGB, 8, 2, before=profile * 400),  # 10 s
        "png of 16 million pixels": png(RGB, 8, 2, size=(4000, 4000)),
        "apng of many frames": saved(
            frames, "PNG", save_all=True, append_images=[photo((300, 300), i) for i in range(40)]
        )[:-2000],
        "tiff whose pages go in a circle": bytes(loop)[:-40] + bytes(loop)[-4:],
        "jpeg of 100 large scans": scanned(4400, 100),
        "jpeg of 3000 scans": scanned(1000, 3000),
        "jpeg of no lines": _with_lines(0),
        "jpeg of 65535 lines": _with_lines(65_535),
        "tiff of extreme numbers": tiff(
            [page(GRAY, 8, 1, t256=[2**32 - 1], t257=[2**32 - 1])], "<"
        ),
        "gzip bomb": zlib.compress(zeros),
    }


def scanned(side: int, scans: int) -> bytes:
    """A progressive JPEG, gray, one of whose scans is there many times."""
    whole = saved(Image.new("L", (side, side), 90), "JPEG", progressive=True)
    last = whole.rindex(b"\xff\xc4", 0, whole.rindex(b"\xff\xda"))
    end = whole.rindex(b"\xff\xd9")
    more = scans - whole.count(b"\xff\xda")
    return whole[:end] + whole[last:end] * more + whole[end:]


def _with_lines(lines: int) -> bytes:
    whole = bytearray(saved(photo(), "JPEG"))
    at = whole.index(b"\xff\xc0") + 5
    whole[at : at + 2] = struct.pack(">H", lines)
    return bytes(whole)
