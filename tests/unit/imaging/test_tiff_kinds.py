"""TIFF: the page a viewer shows, ranges, what is refused by its name, and damage."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import replace
from typing import Any

import imagecodecs
import numpy as np
import pytest
from images.tiff_matrix import kinds
from images.tiff_writer import ASCII, LONG, PACKERS, RATIONAL, SHORT, UNDEFINED, Page, written
from images.variants import GRAY, RGB, as_gray, picture, saved
from PIL import Image

from maskq.contract import FailureCode
from maskq_worker.errors import PermanentError
from maskq_worker.imaging import Decoded, decode

EVERY = kinds()
SOUND = Page(RGB, 8, 2)
SMALL = Page(255 - RGB[::2, ::2], 8, 2, tags={254: (LONG, [1])})
MASK = Page(GRAY, 8, 4, tags={254: (LONG, [4])})


def decoded(data: bytes) -> Decoded:
    return decode(data, max_pixels=1_000_000)


def refused(data: bytes) -> PermanentError:
    with pytest.raises(PermanentError) as caught:
        decoded(data)
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 300
    return caught.value


def shows(data: bytes, expected: np.ndarray, *notes: str) -> None:
    result = decoded(data)
    assert np.array_equal(np.asarray(result.image), expected)
    assert result.notes == notes


def test_a_thumbnail_before_the_picture_is_left_out() -> None:
    shows(written([SMALL, SOUND]), RGB, "its thumbnail left out")
    shows(written([SMALL, SOUND, SOUND]), RGB, "first of 2 frames", "its thumbnail left out")


def test_smaller_copies_behind_the_picture_are_no_frames() -> None:
    """Given a pyramid, as cloud-optimised files have, Then there is one picture."""
    shows(written([SOUND, SMALL, SMALL]), RGB)
    shows(written([SOUND, SOUND]), RGB, "first of 2 frames")
    old = replace(SMALL, tags={255: (SHORT, [2])})  # as before TIFF 6
    shows(written([SOUND, old]), RGB)


def test_a_mask_of_transparency_is_no_frame_and_noted() -> None:
    shows(written([SOUND, MASK]), RGB, "transparency mask ignored")


def test_a_smaller_copy_alone_is_the_picture() -> None:
    shows(written([SMALL]), SMALL.samples)


def within(outer: Page, inner: bytes) -> bytes:
    """A file whose first page has the first page of `inner` as its SubIFD."""
    (inner_page,) = struct.unpack("<I", inner[4:8])
    lead = written([replace(outer, tags={**outer.tags, 330: (LONG, [0])})])
    moved = len(lead) + len(lead) % 2
    shifted = bytearray(inner)
    (count,) = struct.unpack_from("<H", inner, inner_page)
    for at in range(inner_page + 2, inner_page + 2 + 12 * count, 12):
        code, kind, number, value = struct.unpack_from("<HHII", inner, at)
        size = {SHORT: 2, LONG: 4}[kind] * number
        if (code == 273 and number == 1) or size > 4:
            struct.pack_into("<I", shifted, at + 8, value + moved)
        if code == 273 and number > 1:
            values = np.frombuffer(inner, "<u4", number, value) + moved
            shifted[value : value + 4 * number] = values.astype("<u4").tobytes()
    (outer_page,) = struct.unpack("<I", lead[4:8])
    whole = bytearray(lead.ljust(moved, b"\0") + shifted)
    (count,) = struct.unpack_from("<H", lead, outer_page)
    for at in range(outer_page + 2, outer_page + 2 + 12 * count, 12):
        if struct.unpack_from("<H", lead, at)[0] == 330:
            struct.pack_into("<I", whole, at + 8, moved + inner_page)
    return bytes(whole)


def test_a_picture_inside_the_page_of_its_thumbnail() -> None:
    shows(within(SMALL, written([SOUND])), RGB, "its thumbnail left out")


@pytest.mark.parametrize("colours", [32803, 34892])
def test_what_a_sensor_saw_is_no_picture(colours: int) -> None:
    """Given a camera raw file with a thumbnail that could be read, Then it is refused as raw."""
    error = refused(within(SMALL, written([Page(GRAY, 8, colours)])))
    assert error.code is FailureCode.INVALID_IMAGE
    assert "camera raw" in error.message
    assert "camera raw" in refused(written([Page(GRAY, 8, colours)])).message


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", "Canon CR3"), (b"II*\0\x10\0\0\0CR\x02\0", "Canon CR2"),
        (b"IIRO\x08\0\0\0", "Olympus ORF"), (b"IIU\0\x18\0\0\0", "Panasonic RW2"),
        (b"FUJIFILMCCD-RAW 0201", "Fujifilm RAF"), (b"FOVb\0\0\2\0", "Sigma X3F"),
    ],
)  # fmt: skip
def test_camera_raw_files_are_named(data: bytes, said: str) -> None:
    message = refused(data + bytes(100)).message
    assert f"camera raw ({said})" in message
    assert "export it as JPEG or TIFF" in message


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(orientation: int, order: str) -> None:
    turns = {
        1: RGB, 2: RGB[:, ::-1], 3: RGB[::-1, ::-1], 4: RGB[::-1], 5: RGB.transpose(1, 0, 2),
        6: np.rot90(RGB, -1), 7: RGB[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(RGB),
    }  # fmt: skip
    page = replace(SOUND, tags={274: (SHORT, [orientation])})
    notes = ("rotated upright",) if orientation > 1 else ()
    shows(written([page], order), turns[orientation], *notes)


@pytest.mark.parametrize("text", [b"-9999\0", b"-9999", b" -9999.0 \0", b"-9.999e3\0"])
@pytest.mark.parametrize("kind", [np.int16, np.int32, np.float32, np.float64])
def test_a_value_that_gdal_calls_none_is_left_out_of_the_range(kind: Any, text: bytes) -> None:
    samples = GRAY.astype(kind)
    samples[0, :3] = -9999
    page = Page(samples, 8 * samples.itemsize, 1, tags={42113: (ASCII, text)})
    expected = as_gray(GRAY)
    expected[0, :3] = 0
    note = "scaled from 0..255 to 0..255, 3 pixels without a value black"
    shows(written([page]), expected, note)


def test_a_value_of_none_that_only_float32_can_hold() -> None:
    samples = GRAY.astype(np.float32)
    samples[0, 0] = -3.4028234663852886e38
    page = Page(samples, 32, 1, tags={42113: (ASCII, b"-3.4028234663852886e+38\0")})
    assert decoded(written([page])).notes == (
        "scaled from 0..255 to 0..255, 1 pixel without a value black",
    )


@pytest.mark.parametrize("text", [b"nan\0", b"none\0", b"\0", b"1e999\0", b"300\0"])
def test_a_value_of_none_that_says_nothing(text: bytes) -> None:
    page = Page(GRAY.astype(np.float32), 32, 1, tags={42113: (ASCII, text)})
    shows(written([page]), as_gray(GRAY), "scaled from 0..255 to 0..255")


def test_primaries_said_by_tags() -> None:
    points = {
        318: (RATIONAL, (0.3127, 0.329)),
        319: (RATIONAL, (0.68, 0.32, 0.265, 0.69, 0.15, 0.06)),
    }
    result = decoded(written([replace(SOUND, tags=points)]))
    assert result.notes == ("converted from other primaries to sRGB",)
    usual = {318: (RATIONAL, (0.3127, 0.329)), 319: (RATIONAL, (0.64, 0.33, 0.3, 0.6, 0.15, 0.06))}
    shows(written([replace(SOUND, tags=usual)]), RGB)


def test_a_transfer_function_is_noted_unless_it_is_the_usual_one() -> None:
    linear = [round(level / 255 * 65535) for level in range(256)]
    usual = [round((level / 255) ** 2.2 * 65535) for level in range(256)]
    shows(written([replace(SOUND, tags={301: (SHORT, linear)})]), RGB, "transfer function ignored")
    shows(written([replace(SOUND, tags={301: (SHORT, usual)})]), RGB)


REFUSED: dict[str, tuple[Page, str]] = {
    **{
        f"compression {code}": (replace(SOUND, tags={259: (SHORT, [code])}), name)
        for code, name in {
            6: "old-style JPEG", 32809: "ThunderScan", 34676: "SGI Log", 34925: "LZMA", 34933: "PNG",
            50002: "JPEG XL", 34661: "JBIG", 33003: "Aperio", 32766: "NeXT", 12345: "compression 12345",
        }.items()
    },
    **{
        f"photometric {code}": (replace(SOUND, tags={262: (SHORT, [code])}), name)
        for code, name in {10: "ITU L", 32844: "LogL", 77: "photometric interpretation 77"}.items()
    },
    "mask alone": (Page(GRAY, 8, 4), "a transparency mask alone"),
    "complex": (Page(GRAY.astype(np.float32), 32, 1, tags={339: (SHORT, [6])}), "complex samples"),
    "24 bits": (Page(GRAY, 8, 1, tags={258: (SHORT, [24])}), "unsigned samples of 24 bits"),
    "mixed bits": (replace(SOUND, tags={258: (SHORT, [5, 6, 5])}), "channels of different depths"),
    "3D": (replace(SOUND, tags={32997: (SHORT, [4])}), "a depth"),
    "40 channels": (Page(np.zeros((4, 4, 40), np.uint8), 8, 2), "40 samples a pixel"),
    "4 grays": (Page(np.zeros((4, 4, 4), np.uint8), 8, 1), "4 channels that do not say"),
    "other inks": (
        Page(np.zeros((4, 4, 4), np.uint8), 8, 5, tags={332: (SHORT, [2])}), "inks other than",
    ),
    "no photometric": (replace(SOUND, photometric=99), "photometric interpretation 99"),
    "predictor 3 of integers": (replace(SOUND, packing="lzw", tags={317: (SHORT, [3])}), "predictor 3"),
    "predictor 9": (replace(SOUND, packing="lzw", tags={317: (SHORT, [9])}), "predictor 9"),
    "subsampled": (
        Page(RGB, 8, 6, tags={530: (SHORT, [2, 2])}), "chroma subsampling",
    ),
    "sparse": (replace(SOUND, tags={279: (LONG, [0, 0, 0])}), "left out (a sparse file)"),
    "float Lab": (Page(RGB.astype(np.float32), 32, 8), "L*a*b* of 32 bits"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_not_read_is_refused_by_its_name(what: str) -> None:
    page, said = REFUSED[what]
    for order in "<>":
        error = refused(written([page], order))
        assert error.code is FailureCode.INVALID_IMAGE
        assert said in error.message
        assert "supported" in error.message


def damaged(name: str, packing: str, change: Any) -> bytes:
    """A file whose middle strip is changed while its size is written as it is."""
    middle = {"seen": -1}

    def pack(data: bytes) -> bytes:
        middle["seen"] += 1
        whole = PACKERS[packing][1](data)
        return change(whole) if middle["seen"] == 1 else whole

    PACKERS["damaged"] = (PACKERS[packing][0], pack)
    try:
        return written([replace(EVERY[name].page, packing="damaged")])
    finally:
        del PACKERS["damaged"]


@pytest.mark.parametrize("packing", PACKERS)
@pytest.mark.parametrize("name", ["gray u1", "gray u8", "gray u12", "rgb u8", "rgb u16", "gray f4"])
def test_a_strip_that_is_too_short_is_refused(name: str, packing: str) -> None:
    for change in (
        lambda data: data[: len(data) // 2],
        lambda data: data[:-5],
        lambda data: data[:1],
        lambda data: bytes(0),
    ):
        assert refused(damaged(name, packing, change)).code is FailureCode.INVALID_IMAGE


@pytest.mark.parametrize("code", [7, 34712, 50001, 34887])
def test_a_strip_that_is_an_image_and_too_short_is_refused(code: int) -> None:
    encode = {
        7: lambda part: imagecodecs.jpeg8_encode(part, level=90),
        34712: lambda part: imagecodecs.jpeg2k_encode(part, level=0, codecformat="j2k"),
        50001: lambda part: imagecodecs.webp_encode(part, lossless=True),
        34887: lambda part: imagecodecs.lerc_encode(part, level=0),
    }[code]
    for share in (0.3, 0.5, 0.9):
        page = replace(
            SOUND, encode=(code, lambda part, s=share: encode(part)[: int(len(encode(part)) * s)])
        )
        assert refused(written([page])).code is FailureCode.INVALID_IMAGE


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt"])
def test_fax_coded_rows_that_are_missing_are_refused(compression: str) -> None:
    pattern = (np.add.outer(np.arange(64), np.arange(96)) // 7 % 2 * 255).astype(np.uint8)
    blank = pattern.copy()
    blank[40:] = 255
    for levels in (pattern, blank):
        for white_is_zero in (0, 1):
            for order in (1, 2):
                tags = {262: 1 - white_is_zero, 266: order}
                image = Image.fromarray(levels).convert("1")
                data = saved(image, "TIFF", compression=compression, tiffinfo=tags)
                start, count = placed(data)
                half = (
                    data[: start + count // 2] + bytes(count - count // 2) + data[start + count :]
                )
                assert "fax-coded" in refused(half).message
                if levels is pattern or compression == "group4":
                    shows(data, as_gray(levels))


def placed(data: bytes) -> tuple[int, int]:
    """Where the only strip of a file of Pillow's lies."""
    with Image.open(io.BytesIO(data)) as image:
        return image.tag_v2[273][0], image.tag_v2[279][0]  # type: ignore[attr-defined]


def bombs() -> dict[str, tuple[bytes, str]]:
    big = zlib.compress(bytes(50_000_000), 9)
    jpeg = bytearray(imagecodecs.jpeg8_encode(RGB, level=90))
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 4] = struct.pack(">HH", 60_000, 60_000)
    deep = bytearray(imagecodecs.jpeg2k_encode(RGB, level=0, codecformat="j2k"))
    at = deep.index(b"\xff\x4f\xff\x51") + 8
    deep[at : at + 8] = struct.pack(">II", 60_000, 60_000)
    webp = bytearray(imagecodecs.webp_encode(RGB, lossless=True))
    webp[21:25] = struct.pack("<I", 0x0FFFFFFF)
    one = replace(SOUND, rows=16)

    def of(code: int, body: bytes) -> bytes:
        return written([replace(one, encode=(code, lambda _: bytes(body)))])

    samples = np.zeros((1000, 1000, 1), np.uint8)
    return {
        "deflate": (of(8, big), "invalid_image"),
        "jpeg": (of(7, jpeg), "invalid_image"),
        "jpeg 2000": (of(34712, deep), "invalid_image"),
        "webp": (of(50001, webp), "invalid_image"),
        "channels": (
            written([Page(samples, 8, 1, tags={277: (SHORT, [32]), 258: (SHORT, [64] * 32)})]),
            "image_too_large",
        ),
        "offsets": (
            written([replace(SOUND, tags={273: (LONG, [0x7FFFFFFF] * 3)})]),
            "invalid_image",
        ),
        "strips": (written([replace(SOUND, tags={278: (LONG, [1])})]), "invalid_image"),
    }


@pytest.mark.parametrize("what", bombs())
def test_sizes_are_checked_before_pixels_take_memory(what: str) -> None:
    data, code = bombs()[what]
    taken: list[int] = []
    with pytest.raises(PermanentError) as caught:
        decode(data, max_pixels=1_000_000, on_pixels=lambda pixels, size: taken.append(size))
    assert caught.value.code.value == code
    assert sum(taken) < 8_000_000


def test_memory_is_asked_for_by_what_samples_take() -> None:
    taken: list[int] = []
    page = Page(np.zeros((100, 100, 3)), 64, 2)
    decode(written([page]), max_pixels=1_000_000, on_pixels=lambda pixels, size: taken.append(size))
    assert taken[0] >= 3 * 8 * 100 * 100
    taken.clear()
    decode(
        written([Page(np.zeros((100, 100, 1), np.uint8), 8, 1)]),
        max_pixels=10**6,
        on_pixels=lambda pixels, size: taken.append(size),
    )
    assert taken[0] <= 8 * 100 * 100


@pytest.mark.parametrize("tag", [270, 305, 306, 315, 700, 33723, 34377, 34665, 34853, 37724, 50839])
def test_odd_metadata_never_refuses_sound_pixels(tag: int) -> None:
    """Given a tag of an odd type, an odd length or none of its own place, Then pixels are read."""
    forms = ((LONG, [2**31] * 5), (SHORT, [7]), (ASCII, b"\xff\xfe\0"), (UNDEFINED, b"junk" * 9))
    for form in forms:
        result = decoded(written([replace(SOUND, tags={tag: form})]))
        assert np.array_equal(np.asarray(result.image), RGB)
    far = written([replace(SOUND, tags={tag: (UNDEFINED, b"junk" * 9)})])
    entry = struct.pack("<HHI", tag, UNDEFINED, 36)
    at = far.index(entry) + 8
    for place in (0, 0x7FFFFFFF, len(far) - 3):
        moved = far[:at] + struct.pack("<I", place) + far[at + 4 :]
        assert np.array_equal(np.asarray(decoded(moved).image), RGB)


def test_the_picture_is_that_of_libtiff() -> None:
    """Given files written by libtiff, Then they are read as they were meant."""
    for options in (
        {"compression": "jpeg", "quality": 95}, {"compression": "tiff_lzw", "tiffinfo": {317: 2}},
        {"compression": "zstd"}, {"compression": "packbits"},
        {"compression": "tiff_adobe_deflate"}, {"big_tiff": True},
    ):  # fmt: skip
        result = decoded(saved(picture(), "TIFF", **options))
        tolerance = 48 if options.get("compression") == "jpeg" else 0  # its chroma is halved
        assert np.abs(np.asarray(result.image).astype(int) - RGB).max() <= tolerance
