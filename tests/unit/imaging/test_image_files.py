"""Golden pixels: every kind of file a camera, a phone, a scanner or a designer makes, decoded."""

from __future__ import annotations

import contextlib
import importlib
import struct
import sys
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from images.drawn import (
    bmp,
    chunk,
    cmyk_profile,
    gif,
    gray_profile,
    page,
    png,
    rgb_profile,
    tiff,
)
from images.variants import (
    ALL,
    GRAY,
    HEIGHT,
    P3_TO_XYZ,
    RGB,
    SRGB_TO_XYZ,
    WIDTH,
    as_gray,
    encoded,
    light,
    on_white,
    picture,
    saved,
)
from PIL import Image, ImageCms

from maskq.contract import FailureCode
from maskq_worker import imaging
from maskq_worker.errors import PermanentError
from maskq_worker.imaging import Decoded, decode, formats

LIMIT = 1_000_000  # px
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
ADOBE = rgb_profile(b"Like Adobe", 2.2, np.roll(SRGB_TO_XYZ, 1, axis=1))
P3 = rgb_profile(b"Like a phone", 2.2, P3_TO_XYZ)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def decoded(data: bytes) -> Decoded:
    return decode(data, max_pixels=LIMIT)


def refused(data: bytes) -> PermanentError:
    with pytest.raises(PermanentError) as caught:
        decoded(data)
    assert "\n" not in caught.value.message
    return caught.value


def off(result: Decoded, expected: np.ndarray) -> int:
    """The largest difference of one sample."""
    assert result.image.mode == "RGB"
    shown = np.asarray(result.image).astype(int)
    assert shown.shape == expected.shape
    return int(np.abs(shown - expected).max())


@pytest.mark.parametrize("name", ALL)
def test_each_kind_has_the_pixels_a_viewer_shows(name: str) -> None:
    variant = ALL[name]
    result = decoded(variant.data)
    assert off(result, variant.pixels) <= variant.tolerance
    assert result.notes == variant.notes
    assert result.format == (variant.format or name.split()[0].upper())
    assert result.image.info == {}


@pytest.mark.parametrize("name", ALL)
def test_the_image_outlives_its_file(name: str) -> None:
    """Given an image whose file is closed, Then it can still be turned, copied and written."""
    image = decoded(ALL[name].data).image
    assert type(image) is Image.Image
    assert saved(image.rotate(90), "PNG")


@pytest.fixture
def heif() -> Any:
    """The extra's own module, to write HEIC with."""
    return importlib.import_module("pillow_heif")


def heic(heif: Any, image: Image.Image, **options: Any) -> bytes:
    heif.register_heif_opener()
    return saved(image, "HEIF", quality=100, chroma=444, matrix_coefficients=0, **options)


def test_heic_is_read_where_the_extra_is_installed(heif: Any) -> None:
    result = decoded(heic(heif, picture()))
    assert (result.format, result.notes) == ("HEIF", ())
    assert off(result, RGB) <= 4


def test_of_several_heic_pictures_the_first_is_taken(heif: Any) -> None:
    data = heic(heif, picture(), save_all=True, append_images=[picture(RGB[::-1])])
    result = decoded(data)
    assert result.notes == ("first of 2 frames",)
    assert off(result, RGB) <= 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_heic_is_turned_once(orientation: int, heif: Any) -> None:
    """Given EXIF and HEIF's own boxes that both say how to turn, Then it is turned by one."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    result = decoded(heic(heif, picture(), exif=exif.tobytes()))
    turn = UPRIGHT.get(orientation)
    assert off(result, np.asarray(picture().transpose(turn)) if turn is not None else RGB) <= 4
    assert result.notes == (("rotated upright",) if turn is not None else ())


def test_heic_obeys_its_own_boxes_and_not_exif(heif: Any) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    result = decoded(heic(heif, picture(), exif=exif))  # which writes no box for an Exif object
    assert result.notes == ()
    assert off(result, RGB) <= 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_avif_is_turned_once(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(picture(), "AVIF", exif=exif, quality=100, subsampling="4:4:4", speed=10)
    result = decoded(data)
    turn = UPRIGHT.get(orientation)
    assert off(result, np.asarray(picture().transpose(turn)) if turn is not None else RGB) <= 4
    assert result.notes == (("rotated upright",) if turn is not None else ())


@pytest.fixture
def _without_heif(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    formats.reads_heif.cache_clear()
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    yield
    formats.reads_heif.cache_clear()


@pytest.mark.usefixtures("_without_heif")
@pytest.mark.parametrize("brand", [b"heic", b"heix", b"hevc", b"mif1", b"msf1"])
def test_without_the_extra_heic_is_refused_by_the_name_of_the_extra(brand: bytes) -> None:
    error = refused(b"\0\0\0\x18ftyp" + brand + b"\0\0\0\0mif1" + brand + bytes(64))
    assert error.code is FailureCode.INVALID_IMAGE
    assert "pip install maskq[heic]" in error.message


def test_a_damaged_heic_is_refused(heif: Any) -> None:
    data = heic(heif, picture())
    for length in (24, len(data) // 2, len(data) - 9):
        assert refused(data[:length]).code is FailureCode.INVALID_IMAGE


def test_the_reader_of_heic_sees_no_other_file(heif: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a file that is no HEIC, Then its bytes never reach what the extra brought."""
    decoded(heic(heif, picture()))
    asked: list[str] = []
    factory, accept = Image.OPEN["HEIF"]
    spied = (factory, lambda prefix: asked.append("HEIF") or accept(prefix))
    monkeypatch.setitem(Image.OPEN, "HEIF", spied)
    for data in (ALL["avif"].data, b"hello", saved(picture(), "TGA"), ALL["png rgb 8"].data[:30]):
        with contextlib.suppress(PermanentError):
            decoded(data)
    assert asked == []


def test_a_profile_is_converted_to_srgb() -> None:
    """By the arithmetic of light, for every format that can carry a profile."""
    expected = light(RGB, np.roll(SRGB_TO_XYZ, 1, axis=1), 2.2)
    assert np.abs(expected.astype(int) - RGB).max() > 100  # else the test would show nothing
    options: dict[str, dict[str, Any]] = {
        "PNG": {}, "TIFF": {}, "WEBP": {"lossless": True},
        "JPEG": {"quality": 100, "subsampling": 0, "keep_rgb": True},
    }  # fmt: skip
    for kind, more in options.items():
        result = decoded(saved(picture(), kind, icc_profile=ADOBE, **more))
        assert result.notes == ("converted from Like Adobe to sRGB",)
        assert off(result, expected) <= 3


def test_a_wide_profile_of_a_phone() -> None:
    for kind, more in {"PNG": {}, "AVIF": {"quality": 100, "subsampling": "4:4:4"}}.items():
        result = decoded(saved(picture(), kind, icc_profile=P3, **more))
        assert result.notes == ("converted from Like a phone to sRGB",)
        assert off(result, light(RGB, P3_TO_XYZ, 2.2)) <= (3 if kind == "PNG" else 10)


def test_a_profile_in_heic(heif: Any) -> None:
    result = decoded(heic(heif, picture(), icc_profile=P3))
    assert result.notes == ("converted from Like a phone to sRGB",)
    assert off(result, light(RGB, P3_TO_XYZ, 2.2)) <= 10


def test_transparency_is_laid_on_white_after_the_colours_are_converted() -> None:
    fade = (np.arange(WIDTH)[None, :, None] * 255 // (WIDTH - 1)).repeat(HEIGHT, axis=0)
    clear = picture(np.dstack([RGB, fade.astype(np.uint8)]))
    result = decoded(saved(clear, "PNG", icc_profile=P3))
    assert result.notes == ("converted from Like a phone to sRGB", "transparency laid on white")
    assert off(result, on_white(light(RGB, P3_TO_XYZ, 2.2), fade)) <= 3


def test_a_profile_and_an_orientation() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    result = decoded(saved(picture(), "PNG", icc_profile=P3, exif=exif))
    assert result.notes == ("rotated upright", "converted from Like a phone to sRGB")
    assert off(result, np.rot90(light(RGB, P3_TO_XYZ, 2.2), -1)) <= 3


def test_a_profile_for_a_palette() -> None:
    index = (GRAY % 4).astype(np.uint8)
    colours = RGB[:4, 0]
    body = b"Like a phone\0\0" + zlib.compress(P3)
    before = chunk(b"iCCP", body) + chunk(b"PLTE", colours.tobytes())
    result = decoded(png(index, 8, 3, before=before))
    assert result.notes == ("converted from Like a phone to sRGB",)
    assert off(result, light(colours, P3_TO_XYZ, 2.2)[index[..., 0]]) <= 3


@pytest.mark.parametrize("depth", [8, 16])
def test_a_profile_of_gray(depth: int) -> None:
    """Linear light, which sRGB shows brighter."""
    samples = GRAY.astype(int) * (257 if depth == 16 else 1)
    icc = chunk(b"iCCP", b"x\0\0" + zlib.compress(gray_profile(b"Linear", 1.0)))
    result = decoded(png(samples, depth, 0, before=icc))
    scaled = ("scaled from 0..65535 to 0..255",) if depth == 16 else ()
    assert result.notes == (*scaled, "converted from Linear to sRGB")
    assert off(result, as_gray(encoded(GRAY / 255.0))) <= 2


def test_a_profile_of_gray_with_alpha() -> None:
    fade = (np.arange(WIDTH)[None, :, None] * 255 // (WIDTH - 1)).repeat(HEIGHT, axis=0)
    icc = chunk(b"iCCP", b"x\0\0" + zlib.compress(gray_profile(b"Linear", 1.0)))
    result = decoded(png(np.dstack([GRAY, fade.astype(np.uint8)]), 8, 4, before=icc))
    assert result.notes == ("converted from Linear to sRGB", "transparency laid on white")
    assert off(result, on_white(as_gray(encoded(GRAY / 255.0)), fade)) <= 3


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_a_profile_of_a_press(kind: str) -> None:
    inks = np.dstack([RGB, GRAY // 3])
    image = Image.frombytes("CMYK", (WIDTH, HEIGHT), inks.tobytes())
    more: dict[str, Any] = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    result = decoded(saved(image, kind, icc_profile=cmyk_profile(b"Gray inks"), **more))
    lightness = 100 * (1 - inks.sum(axis=2) / 1020.0)
    f = (lightness + 16) / 116
    luminance = np.where(lightness > 8, f**3, lightness / 903.3)
    assert result.notes == ("converted from Gray inks to sRGB",)
    assert off(result, as_gray(encoded(luminance))) <= 4


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_srgb_itself_changes_nothing_and_is_not_noted(kind: str, mode: str) -> None:
    """In gray too: a profile of three colours is out of place there, but harmless if it is sRGB."""
    image = picture().convert(mode)
    more = {"lossless": True} if kind == "WEBP" else {}
    with_profile = decoded(saved(image, kind, icc_profile=SRGB, **more))
    without = decoded(saved(image, kind, **more))
    assert with_profile.notes == without.notes == ()
    assert np.array_equal(np.asarray(with_profile.image), np.asarray(without.image))


@pytest.mark.parametrize(
    "icc",
    [
        b"profile",
        P3[:200],
        cmyk_profile(b"Of a press"),
        gray_profile(b"Of gray", 1.0),
        SRGB[:128] + b"\xff" * 400,
    ],
    ids=["text", "cut short", "of a press", "of gray", "damaged"],
)
def test_a_profile_that_is_broken_or_unsuitable_is_ignored_and_noted(icc: bytes) -> None:
    result = decoded(saved(picture(), "PNG", icc_profile=icc))
    assert result.notes == ("colour profile ignored",)
    assert off(result, RGB) == 0


def test_a_profile_of_colours_is_not_for_gray() -> None:
    result = decoded(saved(picture(GRAY[..., 0]), "PNG", icc_profile=P3))
    assert result.notes == ("colour profile ignored",)
    assert off(result, as_gray(GRAY)) == 0


def test_a_profile_that_cannot_be_unpacked() -> None:
    result = decoded(png(RGB, 8, 2, before=chunk(b"iCCP", b"x\0\0" + b"no zlib at all")))
    assert result.notes == ("colour profile ignored",)
    assert off(result, RGB) == 0


def test_a_large_profile_is_no_bomb() -> None:
    """Two megabytes of a printer's tables, more than Pillow by itself lets a PNG unpack."""
    result = decoded(saved(picture(), "PNG", icc_profile=P3 + bytes(2 * 2**20)))
    assert result.notes == ("converted from Like a phone to sRGB",)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (b"A\x07B \n C", "A B C"),
        (b"x" * 300, "x" * 60),
        (b"   ", "an unnamed profile"),
    ],
)
def test_what_a_profile_calls_itself_fits_one_line(name: bytes, said: str) -> None:
    profile = rgb_profile(name, 2.2, P3_TO_XYZ)
    assert decoded(saved(picture(), "PNG", icc_profile=profile)).notes == (
        f"converted from {said} to sRGB",
    )


def test_an_orientation_that_follows_the_pixels() -> None:
    """PNG may carry EXIF after its pixels."""
    exif = Image.Exif()
    exif[0x0112] = 3
    result = decoded(png(RGB, 8, 2, after=chunk(b"eXIf", exif.tobytes()[6:])))
    assert result.notes == ("rotated upright",)
    assert off(result, RGB[::-1, ::-1]) == 0


def test_pages_of_a_tiff_are_counted_up_to_a_limit() -> None:
    one = page(GRAY, 8, 1)
    some = tiff([one] * 5, "<")
    assert decoded(some).notes == ("first of 5 frames",)
    exactly = tiff([one] * imaging.MAX_FRAMES, "<")
    assert decoded(exactly).notes == (f"first of {imaging.MAX_FRAMES} frames",)
    many = tiff([one] * (imaging.MAX_FRAMES + 1), "<")
    assert decoded(many).notes == (f"first of more than {imaging.MAX_FRAMES} frames",)


def test_a_transparent_colour_of_16_bits_is_met_by_all_of_them() -> None:
    """Given a colour that differs from the transparent one below its upper 8 bits, Then it stays."""
    samples = np.array([[[0x1234, 0x5678, 0x9ABC], [0x1235, 0x5678, 0x9ABC]]])
    key = chunk(b"tRNS", struct.pack(">3H", *samples[0, 0]))
    result = decoded(png(samples, 16, 2, before=key))
    assert off(result, np.array([[[255] * 3, [0x12, 0x56, 0x9A]]])) == 0


def test_a_camera_raw_file_is_no_thumbnail() -> None:
    """Given a TIFF whose first page is a small copy of what lies elsewhere, Then it is refused."""
    raw = tiff([page(GRAY, 8, 1, t254=[1], t330=[8])], "<")
    dng = tiff([page(GRAY, 8, 1, t50706=[1, 4, 0, 0])], "<")
    for data in (raw, dng):
        error = refused(data)
        assert error.code is FailureCode.INVALID_IMAGE
        assert "camera raw" in error.message
    assert off(decoded(tiff([page(GRAY, 8, 1, t254=[0], t330=[8])], "<")), as_gray(GRAY)) == 0


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (bmp(2, 2, 2, bytes(8)), "of a kind that cannot be read"),
        (tiff([page(GRAY.astype(np.float32), 32, 1, t258=[64], t339=[6])], "<"), "not supported"),
        (b"\xff\x0a" + bytes(30), "JPEG XL"),
        (b"II+\0\x08\0\0\0" + bytes(30), "TIFF"),
    ],
    ids=["BMP of 2 bits", "TIFF of complex numbers", "JPEG XL", "empty BigTIFF"],
)
def test_what_cannot_be_read_is_not_called_damaged_only(data: bytes, said: str) -> None:
    error = refused(data)
    assert error.code is FailureCode.INVALID_IMAGE
    assert said in error.message


def test_a_gif_larger_than_its_screen_is_refused_by_its_frame() -> None:
    """Pillow makes room for the frame while it opens the file, before anyone can ask its size."""
    whole = gif((4, 4), [((0, 0, 4, 4), [1] * 16, 2, None)], [(1, 2, 3)])
    at = whole.index(b"\x2c") + 5
    error = refused(whole[:at] + struct.pack("<HH", 65_535, 65_535) + whole[at + 4 :])
    assert error.code is FailureCode.IMAGE_TOO_LARGE
    assert "the image has 4294836225 pixels; at most 1000000 are accepted" in error.message
