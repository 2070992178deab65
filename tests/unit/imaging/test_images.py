"""decode: upright RGB from what cameras and tools write, a typed error for everything else."""

from __future__ import annotations

import contextlib
import io
import random
import subprocess
import sys
import warnings
from typing import Any

import numpy as np
import pytest
from images import drawn
from PIL import Image

from maskq.contract import FailureCode
from maskq.contract.image_formats import IMAGE_FORMATS
from maskq_worker.errors import JobError, PermanentError, TransientError
from maskq_worker.imaging import FORMATS, Decoded, decode

LIMIT = 1_000_000  # px


def scene(width: int = 48, height: int = 32) -> Image.Image:
    """RGB noise over a gradient: no two corners alike, and too rich to survive being cut."""
    y, x = np.mgrid[0:height, 0:width]
    noise = np.random.default_rng(5).integers(0, 40, (height, width, 3))
    base = np.stack([x * 4, y * 6, (x + y) * 2], axis=2)
    return Image.fromarray((base + noise).clip(0, 255).astype(np.uint8))


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decoded(data: bytes, max_pixels: int = LIMIT) -> Decoded:
    return decode(data, max_pixels=max_pixels)


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image)


def refused(data: bytes, **limits: Any) -> PermanentError:
    with pytest.raises(PermanentError) as caught:
        decode(data, **{"max_pixels": LIMIT, **limits})
    assert "\n" not in caught.value.message
    return caught.value


def test_the_accepted_formats_are_those_that_clients_look_for() -> None:
    assert {one.name for one in IMAGE_FORMATS} == {*FORMATS, "AVIF", "HEIF"}


@pytest.mark.parametrize("kind", FORMATS)
def test_every_accepted_format_is_read(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    result = decoded(saved(scene(), kind, **options))

    assert (result.format, result.notes) == (kind, ())
    assert (result.image.mode, result.image.size) == ("RGB", (48, 32))
    if kind in ("PNG", "WEBP", "TIFF", "BMP"):
        assert np.array_equal(pixels(result.image), pixels(scene()))


def test_a_photo_with_a_second_picture_in_it_gives_the_first() -> None:
    data = saved(scene(), "MPO", save_all=True, append_images=[scene().rotate(180)])
    result = decoded(data)
    assert result.format == "MPO"
    assert result.notes == ("first of 2 frames",)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_and_noted(kind: str, orientation: int) -> None:
    """Given a scene stored turned, When it is decoded, Then it is as the eye sees it."""
    to_stored = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    upright = scene()
    stored = upright.transpose(to_stored[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, Any] = {
        "JPEG": {"quality": 100, "subsampling": 0},
        "WEBP": {"lossless": True},
    }
    result = decoded(saved(stored, kind, exif=exif, **options.get(kind, {})))

    assert result.image.size == upright.size
    assert result.notes == (("rotated upright",) if orientation > 1 else ())
    difference = pixels(result.image).astype(int) - pixels(upright)
    assert np.abs(difference).mean() < 2  # JPEG is lossy; a wrong turn differs by 40 and more
    assert not result.image.getexif()


def test_broken_exif_does_not_break_the_image() -> None:
    data = saved(scene(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff garbage")
    assert decoded(data).image.size == (48, 32)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_not_saturated(kind: str) -> None:
    gray = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    result = decoded(saved(Image.fromarray(gray), kind))
    assert pixels(result.image)[0, :, 0].tolist() == [0, 1, 128, 255]
    assert result.notes == ("scaled from 0..65535 to 0..255",)


def test_big_endian_sixteen_bits_are_scaled() -> None:
    gray = np.array([[0, 257, 32896, 65535]], dtype=">u2")
    image = Image.frombytes("I;16B", (4, 1), gray.tobytes())
    result = decoded(saved(image, "TIFF"))
    assert pixels(result.image)[0, :, 0].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize(
    ("values", "expected", "said"),
    [
        (np.array([[0, 128, 255]], np.int32), [0, 128, 255], "0..255"),  # as 8 bits
        (np.array([[0, 32896, 65535]], np.int32), [0, 128, 255], "0..65535"),  # as 16 bits
        (np.array([[0, 2048, 4095]], np.int32), [0, 128, 255], "0..4095"),  # as 12 bits
        (np.array([[-100, 0, 100]], np.int32), [0, 128, 255], "-100..100"),  # its own range
        (np.array([[0, 10**5, 2 * 10**5]], np.int32), [0, 128, 255], "0..200000"),
        (np.array([[0.0, 0.5, 1.0]], np.float32), [0, 128, 255], "0..1"),
        (np.array([[0.0, 0.75, 1.5]], np.float32), [0, 128, 255], "0..1.5"),  # brighter than white
        (np.array([[0.0, 128.0, 255.0]], np.float32), [0, 128, 255], "0..255"),
        (np.array([[0.0, 1e6, 2e6]], np.float32), [0, 128, 255], "0..2000000"),
        (np.array([[0.0, 0.5, 1.0, np.inf]], np.float32), [0, 128, 255, 0], "0..1"),
        (np.array([[np.nan, 0.5, 1.0]], np.float32), [0, 128, 255], "0..1"),
        (np.array([[5e6, 5e6, 5e6]], np.float32), [0, 0, 0], "5000000..5000000"),
        (np.array([[np.nan, np.nan]], np.float32), [0, 0], "0..1"),
    ],
)
def test_samples_of_32_bits_are_scaled_by_the_range_they_use(
    values: np.ndarray, expected: list[int], said: str
) -> None:
    result = decoded(saved(Image.fromarray(values), "TIFF"))
    assert pixels(result.image)[0, :, 0].tolist() == pytest.approx(expected, abs=1)
    missing = int((~np.isfinite(values)).sum())
    note = f"scaled from {said} to 0..255"
    if missing:
        note += f", {missing} pixel{'s' if missing > 1 else ''} without a value black"
    assert result.notes == (note,)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_laid_on_white(mode: str) -> None:
    image = Image.new("RGBA", (3, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (0, 0, 0, 255))
    image.putpixel((2, 0), (0, 0, 0, 51))
    result = decoded(saved(image.convert(mode), "PNG"))
    assert pixels(result.image)[0].tolist() == [[255] * 3, [0] * 3, [204] * 3]
    assert result.notes == ("transparency laid on white",)


def test_an_opaque_alpha_channel_is_not_worth_a_note() -> None:
    assert decoded(saved(scene().convert("RGBA"), "PNG")).notes == ()


@pytest.mark.parametrize("transparency", [1, b"\xff\x00"])
def test_a_palette_with_transparency(transparency: int | bytes) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    result = decoded(saved(image, "PNG", transparency=transparency))
    assert pixels(result.image)[0].tolist() == [[10, 20, 30], [255, 255, 255]]


def test_the_other_modes_become_rgb() -> None:
    white = Image.new("CMYK", (2, 1), (0, 0, 0, 0))
    assert pixels(decoded(saved(white, "JPEG")).image).min() == 255
    bits = Image.new("1", (2, 1))
    bits.putpixel((1, 0), 1)
    assert pixels(decoded(saved(bits, "PNG")).image)[0, :, 0].tolist() == [0, 255]
    gray = decoded(saved(Image.new("L", (2, 1), 77), "PNG")).image
    assert pixels(gray).tolist() == [[[77] * 3] * 2]


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_several_frames_the_first_is_taken_and_said_so(kind: str) -> None:
    first, others = scene(), [scene().rotate(180), scene().rotate(90)]
    options: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {}
    data = saved(first, kind, save_all=True, append_images=others, **options)
    result = decoded(data)
    assert result.notes == ("first of 3 frames",)
    if kind != "GIF":
        assert np.array_equal(pixels(result.image), pixels(first))


def claiming(width: int, height: int) -> bytes:
    """A PNG of one pixel, whose header gives another size."""
    return drawn.png(np.zeros((1, 1, 1), np.uint8), 1, 0, size=(width, height))


def test_pixels_are_limited_by_the_header_before_anything_is_decoded() -> None:
    """Given a PNG whose pixel data is missing, Then its size alone decides."""
    error = refused(claiming(40_000, 30_000), max_pixels=100_000_000)
    assert error.code is FailureCode.IMAGE_TOO_LARGE
    assert str(40_000 * 30_000) in error.message
    barely = claiming(12_000, 10_000)  # within twice the limit
    assert "12000x10000" in refused(barely, max_pixels=100_000_000).message


def test_the_limit_is_ours_not_pillows() -> None:
    """Beyond twice Pillow's own limit, which cannot be lifted for a single call."""
    error = refused(claiming(20_000, 10_000), max_pixels=300_000_000)
    assert error.code is FailureCode.INVALID_IMAGE  # cut short; its size was no objection


def test_a_side_longer_than_an_overlay_can_be_is_refused() -> None:
    error = refused(saved(Image.new("1", (65_501, 1)), "PNG"))
    assert error.code is FailureCode.IMAGE_TOO_LARGE
    assert "65500" in error.message


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "0 bytes"),
        (b"hello", "not a supported image format"),
        (b"%PDF-1.7 and so on", "PDF"),
        (b'<?xml version="1.0"?><Error><Code>NoSuchKey</Code></Error>', "XML"),
        (b"\n<html><body>Sign in</body></html>", "HTML"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\x89PNG\r\n\x1a\n", "PNG image is damaged"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "JPEG image is damaged"),
    ],
)
def test_what_is_no_image_is_refused_by_name(data: bytes, said: str) -> None:
    error = refused(data)
    assert error.code is FailureCode.INVALID_IMAGE
    assert said in error.message


def test_a_format_off_the_list_is_refused() -> None:
    error = refused(saved(scene(), "TGA"))
    assert error.code is FailureCode.INVALID_IMAGE
    assert "JPEG" in error.message  # says what is accepted


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("part", [0.02, 0.3, 0.6, 0.95])
def test_a_truncated_image_is_refused(kind: str, part: float) -> None:
    data = saved(scene(), kind)
    error = refused(data[: max(12, int(len(data) * part))])
    assert error.code is FailureCode.INVALID_IMAGE


@pytest.mark.parametrize("kind", [*FORMATS, "MPO"])
def test_damage_ends_in_an_image_or_in_a_typed_error(kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "camera"
    options: dict[str, Any] = {} if kind in ("BMP", "GIF") else {"exif": exif}
    if kind in ("GIF", "MPO", "TIFF", "WEBP"):
        options |= {"save_all": True, "append_images": [scene()]}
    whole = saved(scene(), kind, **options)
    chance = random.Random(kind)
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 8)):
            data[chance.randrange(min(len(data), chance.choice((64, 512, len(data)))))] = (
                chance.randrange(256)
            )
        with contextlib.suppress(JobError):
            assert decoded(bytes(data)).image.mode == "RGB"


def test_too_little_memory_is_worth_another_try(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(_: Image.Image) -> None:
        raise MemoryError

    data = saved(scene(), "PNG")
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", load)
    with pytest.raises(TransientError) as caught:
        decoded(data)
    assert caught.value.code is FailureCode.OUT_OF_MEMORY


def test_no_warning_of_pillow_escapes_and_none_of_ours_is_hidden() -> None:
    whole = saved(scene(), "TIFF", description="d" * 50)
    # A description of a million bytes, in a file of five thousand.
    odd = whole.replace(b"\x0e\x01\x02\0" + (51).to_bytes(4, "little"), b"\x0e\x01\x02\0\0\0\x10\0")
    with pytest.warns(UserWarning, match="larger than file"):
        Image.open(io.BytesIO(odd)).load()
    with warnings.catch_warnings(record=True) as escaped:
        warnings.simplefilter("always")
        decoded(odd)
        warnings.warn("of our own", stacklevel=1)
    assert [str(warning.message) for warning in escaped] == ["of our own"]


def test_decoding_needs_no_torch_and_reads_usual_files_without_the_readers_of_rare_ones() -> None:
    """Given a process that decodes a JPEG, Then neither torch nor TIFF's libraries are loaded."""
    program = (
        "import sys, maskq_worker.imaging as i; i.decode(sys.stdin.buffer.read(), max_pixels=10**6); "
        "print([m for m in ('torch', 'tifffile', 'imagecodecs', 'celery') if m in sys.modules])"
    )
    child = subprocess.run(
        [sys.executable, "-c", program],
        input=saved(scene(), "JPEG"),
        capture_output=True,
        timeout=60,
    )
    assert child.stdout.strip() == b"[]", child.stderr


def test_nothing_of_the_input_but_its_pixels_is_kept() -> None:
    data = saved(scene(), "JPEG", comment=b"secret", icc_profile=b"profile", dpi=(300, 300))
    result = decoded(data)
    assert result.image.info == {}
    assert b"secret" not in saved(result.image, "JPEG")
