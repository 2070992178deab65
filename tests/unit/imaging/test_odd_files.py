"""Hundreds of odd and damaged files: each is an image or a typed failure, soon and in little memory."""

from __future__ import annotations

import importlib
import io
import random
import struct
import subprocess
import sys
import tarfile
import time
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from images.drawn import bmp, chunk, gif, page, png, tiff, tiled
from images.variants import ALL, GRAY, RGB, picture, saved
from PIL import Image

from maskq.contract import FailureCode
from maskq_worker.decoding import DecodeLimits, ThreadDecoder
from maskq_worker.errors import JobError

LIMIT = 1_000_000  # px
DECODER = ThreadDecoder(DecodeLimits(LIMIT, max_bytes=2**26, max_scans=100, cpu_s=20))
PATIENCE = 5.0  # CPU seconds for a single file
KINDS = sorted({name.split()[0] for name in ALL})


def outcome(data: bytes) -> str:
    """`decoded` or the failure's code; whatever else is raised goes through."""
    start = time.process_time()
    try:
        image = DECODER.decode(data, lambda _: None).image
    except JobError as error:
        failure = error
    else:
        failure = None
    assert time.process_time() - start < PATIENCE
    if failure is None:
        assert image.mode == "RGB"
        assert 0 < image.width * image.height <= LIMIT
        return "decoded"
    assert failure.code in (FailureCode.INVALID_IMAGE, FailureCode.IMAGE_TOO_LARGE)
    assert failure.message.isprintable()  # one sentence, which goes into a record
    assert len(failure.message) < 400
    return failure.code.value


def of_kind(kind: str) -> Iterator[bytes]:
    return (variant.data for name, variant in ALL.items() if name.split()[0] == kind)


@pytest.mark.parametrize("kind", KINDS)
def test_files_that_end_too_early(kind: str) -> None:
    seen = Counter(
        outcome(data[:length])
        for data in of_kind(kind)
        for length in (4, 13, 40, len(data) // 4, len(data) // 2, len(data) - 30, len(data) - 1)
    )
    assert seen["invalid_image"] > seen.total() / 3


@pytest.mark.parametrize("kind", KINDS)
def test_files_with_a_few_bits_turned(kind: str) -> None:
    chance = random.Random(kind)
    seen: Counter[str] = Counter()
    for whole in of_kind(kind):
        for reach in (32, 200, 200, len(whole), len(whole), len(whole)):
            data = bytearray(whole)
            for _ in range(chance.randint(1, 6)):
                data[chance.randrange(min(reach, len(data)))] ^= 1 << chance.randrange(8)
            seen[outcome(bytes(data))] += 1
    assert seen["invalid_image"] > 0


def test_heic_files_that_are_cut_or_damaged() -> None:
    heif = importlib.import_module("pillow_heif")
    heif.register_heif_opener()
    whole = saved(picture(), "HEIF", icc_profile=b"profile")
    chance = random.Random(3)
    seen = Counter(outcome(whole[:length]) for length in range(8, len(whole) - 8, len(whole) // 40))
    for _ in range(80):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        seen[outcome(bytes(data))] += 1
    assert seen["invalid_image"] > 40


@pytest.mark.parametrize("kind", KINDS)
def test_files_with_the_first_bytes_of_another(kind: str) -> None:
    """Given a file's head before another one's body, Then neither reader falls over it."""
    body = next(of_kind(kind))
    for other in KINDS:
        head = next(of_kind(other))
        for length in (8, 16, 64):
            outcome(head[:length] + body[length:])
            outcome(head[:length] + body)


@pytest.mark.parametrize("at", [33 + 8, 200, 500])
def test_a_png_whose_pixels_do_not_unpack_is_not_black(at: int) -> None:
    data = bytearray(png(RGB, 8, 2))
    data[at : at + 30] = b"\x55" * 30
    assert outcome(bytes(data)) == "invalid_image"


def archives() -> dict[str, bytes]:
    inside = saved(picture(), "PNG")
    zipped, taped = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("a.png", inside)
    with tarfile.open(fileobj=taped, mode="w") as tape:
        entry = tarfile.TarInfo("a.png")
        entry.size = len(inside)
        tape.addfile(entry, io.BytesIO(inside))
    return {"zip": zipped.getvalue(), "tar": taped.getvalue(), "zlib": zlib.compress(inside)}


NO_IMAGES = {
    "nothing": b"",
    "one byte": b"\0",
    "one byte of a JPEG": b"\xff",
    "zeros": bytes(100_000),
    "noise": random.Random(1).randbytes(100_000),
    "text": "Grüße aus Köln\n".encode() * 100,
    "markup": b"<svg xmlns='http://www.w3.org/2000/svg'><rect width='9' height='9'/></svg>",
    "a script": b"#!/bin/sh\nexit 1\n",
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n",
    "an icon": saved(picture(), "ICO"),
    "a PPM": saved(picture(), "PPM"),
    "a TGA": saved(picture(), "TGA"),
    "a PCX": saved(picture(), "PCX"),
    "a JPEG 2000": saved(picture(), "JPEG2000"),
    "a PNG behind something else": b"something else" + saved(picture(), "PNG"),
    "a TIFF's header alone": b"II*\0\x08\0\0\0",
    "a GIF's header alone": b"GIF89a\x04\0\x04\0\0\0\0",
    **archives(),
}


@pytest.mark.parametrize("what", NO_IMAGES)
def test_what_is_no_image(what: str) -> None:
    assert outcome(NO_IMAGES[what]) == "invalid_image"


def scans(count: int) -> bytes:
    """A progressive JPEG whose last scan is there `count` times more."""
    whole = saved(Image.new("L", (1000, 1000)), "JPEG", progressive=True)
    last = whole.rindex(b"\xff\xc4", 0, whole.rindex(b"\xff\xda"))
    end = whole.rindex(b"\xff\xd9")
    return whole[:end] + whole[last:end] * count + whole[end:]


def bombs() -> dict[str, bytes]:
    """Files that claim, or unpack to, far more than they hold; each is below 3 MB itself."""
    zeros = zlib.compress(bytes(300 * 10**6), 1)
    some = zlib.compress(bytes(15 * 10**6), 1)
    small = gif((4, 4), [((0, 0, 4, 4), [1] * 16, 2, None)], [(1, 2, 3)])
    frame = small.index(b"\x2c") + 5
    sides = tiled(RGB, 16)[0]
    side = 6000
    huge_tile = {**sides, 322: [side], 323: [side]}
    jpeg = bytearray(saved(picture(), "JPEG"))
    frame_header = jpeg.index(b"\xff\xc0") + 5
    jpeg[frame_header : frame_header + 4] = struct.pack(">2H", 65_000, 65_000)
    webp = bytearray(saved(picture(), "WEBP", lossless=True))
    webp[21:25] = struct.pack("<I", 0x0FFFFFFF)  # 16384 x 16384
    far, count = 0xFFFFFFF0, 0x7FFFFFFF
    one = page(RGB, 8, 2)
    lying = tiff([one], "<")
    return {
        "png by its header": png(RGB, 8, 2, size=(60_000, 60_000)),
        "png at the limit, without pixels": png(RGB, 8, 2, size=(1000, 1000)),
        "png beyond its size": png(RGB, 8, 2)[:33] + chunk(b"IDAT", zeros) + chunk(b"IEND", b""),
        "png profile": png(RGB, 8, 2, before=chunk(b"iCCP", b"x\0\0" + zeros)),
        "png texts": png(
            RGB, 8, 2, before=b"".join(chunk(b"zTXt", b"%d\0\0" % i + some) for i in range(30))
        ),
        "png profiles": png(
            RGB, 8, 2, before=b"".join(chunk(b"iCCP", b"%d\0\0" % i + some) for i in range(30))
        ),
        "png of a length that lies": png(RGB, 8, 2)[:33] + b"\x7f\xff\xff\xffIDAT" + bytes(50),
        "gif screen": small[:6] + struct.pack("<HH", 65_535, 65_535) + small[10:],
        "gif frame": small[:frame] + struct.pack("<HH", 65_535, 32_000) + small[frame + 4 :],
        "gif of many frames": small[:-1] + small[frame - 5 : -1] * 20_000 + b";",
        "tiff size": tiff([page(RGB, 8, 2, t256=[60_000], t257=[60_000])], "<"),
        "tiff tiles": tiff(
            [({**huge_tile, 257: [16], 256: [24]}, [zlib.compress(bytes(side * side * 3), 1)])], "<"
        ),
        "tiff strips far away": tiff([page(RGB, 8, 2, t273=[far, far])], "<"),
        "tiff strips of a length that lies": tiff([page(RGB, 8, 2, t279=[far, far])], "<"),
        "tiff rows": tiff([page(RGB, 8, 2, t278=[far])], "<"),
        "tiff samples": tiff([page(RGB, 8, 2, t277=[60_000])], "<"),
        "tiff tags": lying.replace(
            struct.pack("<HHI", 258, 3, 3), struct.pack("<HHI", 258, 3, count)
        ),
        "tiff of many pages": tiff([page(GRAY, 8, 1)] * 4000, "<"),
        "jpeg by its header": bytes(jpeg),
        "jpeg of many scans": scans(12_000),
        "webp by its header": bytes(webp),
        "bmp by its header": bmp(60_000, 60_000, 24, bytes(100)),
        "bmp below nothing": bmp(-5, 2**31 - 1, 24, bytes(100)),
    }  # fmt: skip


EXPECTED = {  # of those not named, either failure will do
    "png beyond its size": "decoded",
    "png profiles": "decoded",
    "gif of many frames": "decoded",
    "tiff of many pages": "decoded",
    "png by its header": "image_too_large",
    "gif screen": "image_too_large",
    "gif frame": "image_too_large",
    "tiff size": "image_too_large",
    "tiff tiles": "image_too_large",
    "jpeg by its header": "image_too_large",
    "webp by its header": "image_too_large",
    "bmp by its header": "image_too_large",
    "jpeg of many scans": "invalid_image",
}
MEMORY = 200  # MiB that all bombs together may add to a process, at LIMIT pixels
CHILD = """
import pathlib, resource, sys
sys.path[:0] = sys.argv[2:]
from unit.imaging import test_odd_files as here
files = sorted(pathlib.Path(sys.argv[1]).iterdir())
first = files.pop(0)
resource.setrlimit(resource.RLIMIT_AS, (6 * 2**30, 6 * 2**30))  # for the sake of this machine
here.outcome(first.read_bytes())
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for file in files:
    print(file.name, here.outcome(file.read_bytes()), sep="=")
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_bombs_do_not_fill_the_memory(tmp_path: Path) -> None:
    """Given files made to exhaust whoever opens them, Then one process survives them all."""
    (tmp_path / "0").write_bytes(saved(picture(), "PNG"))
    files = bombs()
    for name, data in files.items():
        assert len(data) < 3 * 2**20
        (tmp_path / name).write_bytes(data)
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path), *sys.path],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert child.returncode == 0, child.stderr
    *lines, grown = child.stdout.splitlines()
    results = dict(line.rsplit("=", 1) for line in lines)
    assert {name: results[name] for name in EXPECTED} == EXPECTED
    assert results.keys() == files.keys()
    assert int(grown) < MEMORY
