"""JPEG: missing and damaged pixels are refused, damage elsewhere is noted."""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
from images.variants import saved
from PIL import Image

from maskq.contract import FailureCode
from maskq_worker.errors import PermanentError
from maskq_worker.imaging import Decoded, decode
from maskq_worker.imaging.readers.jpeg.layout import layout_of

END = b"\xff\xd9"
EARLY = "ends too early, after its last pixel"
WIDTH, HEIGHT = 256, 192


def rich() -> Image.Image:
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    waves = [128 + 100 * np.sin(x / 17 + y / 31), 128 + 90 * np.cos(y / 13), (x + y) % 256]
    noise = np.random.default_rng(3).normal(0, 6, (HEIGHT, WIDTH, 3))
    return Image.fromarray((np.stack(waves, axis=2) + noise).clip(0, 255).astype(np.uint8))


def half_plain() -> Image.Image:
    image = rich()
    image.paste((250, 250, 250), (0, 80, WIDTH, HEIGHT))
    return image


def plain() -> Image.Image:
    return Image.new("RGB", (WIDTH, HEIGHT), (200, 210, 220))


OPTIONS = {
    "baseline": {}, "tables of its own": {"optimize": True}, "progressive": {"progressive": True},
    "restarts": {"restart_marker_blocks": 4}, "4:4:4": {"subsampling": 0}, "4:2:2": {"subsampling": 1},
}  # fmt: skip
SOUND = {
    f"{scene.__name__} {name} {mode}": saved(scene().convert(mode), "JPEG", **more)
    for scene, (name, more), mode in product(
        (rich, half_plain), OPTIONS.items(), ("RGB", "L", "CMYK")
    )
}
PLAIN = {
    f"plain {name} {mode}": saved(plain().convert(mode), "JPEG", **more)
    for (name, more), mode in product(OPTIONS.items(), ("RGB", "L"))
}


def decoded(data: bytes) -> Decoded:
    return decode(data, max_pixels=1_000_000)


def pillow(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def start(data: bytes) -> int:
    """Of the coded pixels."""
    return layout_of(data).scans[0].start


def cut(data: bytes, share: float) -> bytes:
    begin = start(data)
    return data[: begin + int((len(data) - begin) * share)]


def zeroed(data: bytes, share: float) -> bytes:
    return cut(data, share).ljust(len(data), b"\0")


def of_height(data: bytes, change: Callable[[int], int]) -> bytes:
    changed = bytearray(data)
    at = next(at for mark in (b"\xff\xc0", b"\xff\xc2") if (at := data.find(mark)) > 0) + 5
    (height,) = struct.unpack_from(">H", data, at)
    struct.pack_into(">H", changed, at, change(height))
    return bytes(changed)


@pytest.mark.parametrize("name", SOUND | PLAIN)
def test_a_sound_one_is_what_pillow_shows(name: str) -> None:
    data = (SOUND | PLAIN)[name]
    result = decoded(data)
    assert result.notes == ()
    assert np.array_equal(np.asarray(result.image), pillow(data))


@pytest.mark.parametrize("name", SOUND)
@pytest.mark.parametrize("behind", [b"junk" * 50, bytes(5000), b"\xff\xda" * 300, END])
def test_what_lies_behind_the_image_does_not_matter(name: str, behind: bytes) -> None:
    assert decoded(SOUND[name] + behind).notes == ()


@pytest.mark.parametrize("name", SOUND)
@pytest.mark.parametrize("behind", [b"", b"\xff", bytes(5000)], ids=["nothing", "half", "zeros"])
def test_a_whole_one_without_its_end_is_accepted_with_a_note(name: str, behind: bytes) -> None:
    data = SOUND[name]
    result = decoded(data.removesuffix(END) + behind)
    assert result.notes == (EARLY,)
    assert np.array_equal(np.asarray(result.image), pillow(data))


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "cut in half": lambda data: cut(data, 0.5),
    "cut in half and closed": lambda data: cut(data, 0.5) + END,
    "cut near the end and closed": lambda data: cut(data, 0.9) + END,
    "zeros from the middle": lambda data: zeroed(data, 0.5),
    "zeros from the middle, closed": lambda data: zeroed(data, 0.5)[:-2] + END,
    "zeros at the end": lambda data: zeroed(data, 0.9),
    "too high": lambda data: of_height(data, lambda height: height + 16),
    "twice as high": lambda data: of_height(data, lambda height: 2 * height),
    "half as high": lambda data: of_height(data, lambda height: height // 2),
}


@pytest.mark.parametrize("name", SOUND)
@pytest.mark.parametrize("damage", DAMAGE)
def test_missing_pixels_are_refused(name: str, damage: str) -> None:
    with pytest.raises(PermanentError) as caught:
        decoded(DAMAGE[damage](SOUND[name]))
    assert caught.value.code is FailureCode.INVALID_IMAGE
    assert "JPEG image" in caught.value.message
    assert caught.value.message.isprintable()


def restarts(data: bytes) -> list[int]:
    return [found.start() for found in re.finditer(rb"\xff[\xd0-\xd7]", data)]


RESTARTS: dict[str, Callable[[bytes, list[int]], bytes]] = {
    "a marker left out": lambda data, at: data[: at[3]] + data[at[3] + 2 :],
    "a part left out": lambda data, at: data[: at[3]] + data[at[4] :],
    "a part twice": lambda data, at: data[: at[4]] + data[at[3] :],
    "parts in another order": lambda data, at: (
        data[: at[3]] + data[at[4] : at[5]] + data[at[3] : at[4]] + data[at[5] :]
    ),
}


@pytest.mark.parametrize("name", [name for name in SOUND if "restarts" in name])
@pytest.mark.parametrize("damage", RESTARTS)
def test_damage_between_restarts_is_refused(name: str, damage: str) -> None:
    data = SOUND[name]
    with pytest.raises(PermanentError, match="damaged or cut short"):
        decoded(RESTARTS[damage](data, restarts(data)))


def test_a_plain_area_may_be_all_zeros() -> None:
    """Given tables whose shortest code means 'as before', Then zeros in the file are pixels."""
    large = saved(Image.new("L", (2000, 2000), 200), "JPEG", optimize=True)
    assert bytes(64) in large[start(large) :]
    assert decoded_of_any_size(large).notes == ()


def decoded_of_any_size(data: bytes) -> Decoded:
    return decode(data, max_pixels=10_000_000)


def test_a_progressive_one_that_ends_between_scans_is_coarse_and_noted() -> None:
    data = SOUND["rich progressive RGB"]
    first = layout_of(data).scans[0]
    assert len(first.components) == 3
    result = decoded(data[: first.end] + END)
    assert result.notes == ("its last scans are missing: coarser than it was",)


def test_a_scan_of_a_colour_channel_that_is_missing() -> None:
    """Given a file whose scan leaves Cr out, Then it is no green picture."""
    data = SOUND["rich 4:4:4 RGB"]
    scan = layout_of(data).scans[0]
    header = b"\xff\xda\0\x0a\x02\x01\0\x02\x11\0\x3f\0"
    begin = data.rindex(b"\xff\xda", 0, scan.start)
    with pytest.raises(PermanentError, match="lacks the scan of a colour channel"):
        decoded(data[:begin] + header + data[scan.start :])


def test_bytes_left_behind_the_last_row_are_padding_if_they_are_few() -> None:
    data = SOUND["rich baseline RGB"].removesuffix(END)
    (note,) = decoded(data + b"\x12" * 18 + END).notes
    assert re.fullmatch(r"1\d bytes after its last pixel ignored", note)
    with pytest.raises(
        PermanentError, match=r"\d\d bytes of pixels follow the last of its 192 rows"
    ):
        decoded(data + b"\x12" * 100 + END)


def test_scans_are_counted_in_the_image_and_not_in_a_video_behind_it() -> None:
    """Given a motion photo, Then the markers in its video are no scans of the photo."""
    video = b"\0\0\0\x18ftypmp42" + b"\xff\xda\0\x08 and so on" * 5000
    assert decoded(SOUND["rich baseline RGB"] + video).notes == ()


def test_scans_are_not_counted_in_a_thumbnail() -> None:
    thumbnail = b"\xff\xd8" + b"\xff\xda\0\x02" * 300 + END
    data = SOUND["rich baseline RGB"]
    segment = b"\xff\xe1" + struct.pack(">H", 2 + len(thumbnail)) + thumbnail
    assert decoded(data[:2] + segment + data[2:]).notes == ()


@pytest.mark.parametrize(
    ("mark", "bits", "said"),
    [
        (0xC1, 12, "12 bits"), (0xC3, 8, "lossless"), (0xC5, 8, "hierarchical"), (0xCB, 8, "lossless"),
    ],
)  # fmt: skip
def test_kinds_that_are_not_read_are_named(mark: int, bits: int, said: str) -> None:
    data = bytearray(SOUND["rich baseline RGB"])
    at = data.index(b"\xff\xc0")
    data[at + 1], data[at + 4] = mark, bits
    with pytest.raises(PermanentError, match=f"{said}.*not supported"):
        decoded(bytes(data))


def test_harmless_warnings_do_not_hide_others() -> None:
    """Given scan parameters as some cameras write them, Then a cut is still heard."""
    data = bytearray(SOUND["rich baseline RGB"])
    at = layout_of(bytes(data)).scans[0].parameters
    data[at : at + 3] = b"\0\0\0"
    result = decoded(bytes(data))
    assert np.array_equal(np.asarray(result.image), pillow(SOUND["rich baseline RGB"]))
    with pytest.raises(PermanentError, match="premature end"):
        decoded(cut(bytes(data), 0.5) + END)


def test_adobe_rgb_by_exif_alone() -> None:
    """Given a camera's file of Adobe RGB without a profile, Then it is converted."""
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA001] = 0xFFFF
    exif.get_ifd(0x8769)[0xA005] = {1: "R03"}
    result = decoded(saved(rich(), "JPEG", exif=exif))
    assert result.notes == ("converted from Adobe RGB to sRGB",)
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA001] = 1
    assert decoded(saved(rich(), "JPEG", exif=exif)).notes == ()
