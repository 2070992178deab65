"""Sizes and scans of images, read before a decoder sees them."""

from __future__ import annotations

import io
import random
import struct

import pytest
from images.hostile import good_files, photo, scanned
from images.variants import ALL, saved
from PIL import Image

from maskq.contract import FailureCode
from maskq_worker.decoding import DecodeLimits, ThreadDecoder
from maskq_worker.decoding.headers import format_of, scans_of, size_of
from maskq_worker.errors import PermanentError

LIMITS = DecodeLimits(max_pixels=1_000_000, max_bytes=2**24, max_scans=100, cpu_s=20)
KNOWN = {"JPEG", "PNG", "GIF", "BMP", "WEBP"}


# Of TIFFs no size is read from the header, and Pillow does not know all that are generated here.
@pytest.mark.parametrize("name", sorted(name for name in ALL if not name.startswith("tiff")))
def test_sizes_are_those_that_pillow_reads(name: str) -> None:
    data = ALL[name].data
    with Image.open(io.BytesIO(data)) as image:
        kind = {"MPO": "JPEG"}.get(image.format or "", image.format)
        assert format_of(data) == kind
        assert size_of(data) == (image.size if kind in KNOWN else None)


@pytest.mark.parametrize("name", sorted(good_files()))
def test_what_is_cut_short_or_altered_never_raises(name: str) -> None:
    whole = good_files()[name]
    chance = random.Random(name)
    for length in range(60):
        size_of(whole[:length])
        scans_of(whole[:length], 0)
    for _ in range(300):
        data = bytearray(whole)
        for _turn in range(8):
            data[chance.randrange(min(len(data), 250))] = chance.randrange(256)
        size_of(bytes(data))
        scans_of(bytes(data), 0)


def test_scans_are_counted() -> None:
    assert scans_of(saved(photo(), "JPEG"), 0) == 1
    progressive = saved(photo(), "JPEG", progressive=True)
    assert scans_of(progressive, 0) == progressive.count(b"\xff\xda") > 5
    assert scans_of(scanned(64, 333), 100) == 333
    assert scans_of(saved(photo(), "PNG"), 0) == 0


def test_a_video_behind_a_photograph_is_not_counted() -> None:
    """Phones append one; its bytes are as good as random."""
    moving = saved(photo(), "JPEG") + random.Random(3).randbytes(2**24) + b"\xff\xda" * 200
    assert moving.count(b"\xff\xda") > 400
    assert scans_of(moving, 100) == 1
    assert ThreadDecoder(LIMITS).decode(moving, lambda _: None).image.size == photo().size


def test_a_thumbnail_in_a_segment_is_not_counted() -> None:
    whole = saved(photo(), "JPEG")
    inside = struct.pack(">2sH", b"\xff\xe1", 2 + 600) + b"\xff\xda\0\2" * 150
    assert scans_of(whole[:2] + inside + whole[2:], 100) == 1


@pytest.mark.parametrize(("scans", "passes"), [(100, True), (101, False)])
def test_one_scan_too_many_is_refused(scans: int, passes: bool) -> None:
    data = scanned(64, scans)
    if passes:
        assert ThreadDecoder(LIMITS).decode(data, lambda _: None).image.size == (64, 64)
        return
    with pytest.raises(
        PermanentError, match=r"101 scans; at most 100 .*MASKQ_MAX_IMAGE_SCANS"
    ) as e:
        ThreadDecoder(LIMITS).decode(data, lambda _: None)
    assert e.value.code is FailureCode.INVALID_IMAGE


@pytest.mark.parametrize("kind", sorted(KNOWN))
def test_what_is_too_large_never_reaches_a_decoder(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = saved(photo((60, 40)), kind)
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("it was opened"))
    small = DecodeLimits(max_pixels=2399, max_bytes=2**24, max_scans=100, cpu_s=20)
    with pytest.raises(PermanentError, match="60x40 px, 2400 pixels; at most 2399") as raised:
        ThreadDecoder(small).decode(data, lambda _: pytest.fail("memory was taken"))
    assert raised.value.code is FailureCode.IMAGE_TOO_LARGE


@pytest.mark.parametrize("kind", sorted(KNOWN))
def test_memory_is_taken_before_a_decoder_sees_the_file(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow's WebP reader allocates the canvas when it opens a file of 40 bytes."""
    steps: list[str] = []
    data, opened = saved(photo(), kind), Image.open
    monkeypatch.setattr(Image, "open", lambda *a, **k: steps.append("opened") or opened(*a, **k))
    ThreadDecoder(LIMITS).decode(data, lambda _: steps.append("taken"))
    assert steps[:2] == ["taken", "opened"]
