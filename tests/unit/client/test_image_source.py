"""What a client takes as an image, and what it refuses before it uploads anything."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.damaged import damaged

from maskq import FailureCode, InvalidRequest
from maskq.client.image_source import name_of, read_image
from maskq.contract.image_formats import IMAGE_FORMATS, SIGNATURES, media_type_of

PNG = damaged("the rest")


def opened(body: bytes) -> Image.Image:
    with Image.open(io.BytesIO(body)) as image:
        image.load()
        return image


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF"])
def test_a_file_of_an_accepted_format_is_taken_with_its_media_type(
    kind: str, tmp_path: Path
) -> None:
    path = tmp_path / "no-suffix"
    Image.new("RGB", (60, 40), "teal").save(path, kind)
    assert read_image(path) == (path.read_bytes(), f"image/{kind.lower()}")
    assert read_image(str(path)) == read_image(path) == read_image(path.read_bytes())


def test_every_accepted_format_has_a_signature() -> None:
    named = {media_type_of(signature.rjust(offset + len(signature), b"."))
             for offset, signature, _ in SIGNATURES}  # fmt: skip
    assert {one.media_type for one in IMAGE_FORMATS} <= named


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "is empty"),
        (b"hello", "is not an image: its first bytes"),
        (b"{}", "is JSON, which is not accepted"),
        (b"<!doctype html>", "is HTML"),
        (b"%PDF-1.7", "is PDF"),
        (b"\x00\x00\x00\x18ftypcrx ", "camera raw"),
        (b"\x00\x00\x00\x18ftypisom", "MP4"),
        (bytes(5000), "is not an image"),
    ],
)
def test_what_is_no_image_is_refused_by_its_first_bytes(
    body: bytes, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(body)
    for image, what in ((body, "the data"), (path, str(path)), (io.BytesIO(body), "file object")):
        with pytest.raises(InvalidRequest, match=said) as raised:
            read_image(image)
        assert raised.value.code is FailureCode.INVALID_IMAGE
        assert what in str(raised.value)


# --- file objects -------------------------------------------------------------------------------------


def test_a_file_object_is_read_from_its_position() -> None:
    assert read_image(io.BytesIO(PNG)) == (PNG, "image/png")
    file = io.BytesIO(b"header" + PNG)
    file.seek(6)
    assert read_image(file)[0] == PNG
    with pytest.raises(InvalidRequest, match=r"seek\(0\)"):
        read_image(file)
    with tempfile.SpooledTemporaryFile() as spooled:
        spooled.write(PNG)
        spooled.seek(0)
        assert read_image(spooled)[0] == PNG


class Async:
    async def read(self) -> bytes:
        return PNG


def test_a_file_object_without_bytes_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="gives str, not bytes; open the file with 'rb'"):
        read_image(io.StringIO("text"))  # type: ignore[arg-type]
    closed = io.BytesIO(PNG)
    closed.close()
    with pytest.raises(InvalidRequest, match="cannot read the file object"):
        read_image(closed)
    with pytest.raises(InvalidRequest, match="gives coroutine, not bytes"):
        read_image(Async())  # type: ignore[arg-type]


# --- arrays and PIL images ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "dtype", "mode"),
    [
        ((4, 6), np.uint8, "L"),
        ((4, 6, 1), np.uint8, "L"),
        ((4, 6, 3), np.uint8, "RGB"),
        ((4, 6, 4), np.uint8, "RGBA"),
        ((4, 6), np.uint16, "I;16"),
        ((4, 6), np.bool_, "1"),
    ],
)
def test_an_array_becomes_a_png_with_the_same_pixels(
    shape: tuple[int, ...], dtype: Any, mode: str
) -> None:
    array = np.random.default_rng(1).integers(0, 60_000, shape).astype(dtype)
    for given in (array, array[::-1], np.asfortranarray(array)):
        body, kind = read_image(given)
        assert kind == "image/png"
        assert opened(body).mode == mode
        assert np.array_equal(
            np.asarray(opened(body)), given.reshape(np.asarray(opened(body)).shape)
        )


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((4, 6, 3), np.float32), ((4, 6), np.float64), ((4, 6), np.int32), ((3, 4, 6), np.uint8),
        ((4, 6, 2), np.uint8), ((4, 6, 3), np.uint16), ((6,), np.uint8), ((1, 4, 6, 3), np.uint8),
        ((0, 6), np.uint8), ((4, 0, 3), np.uint8), ((4, 6), np.dtype(">u2")),
    ],
)  # fmt: skip
def test_an_array_whose_pixels_are_uncertain_is_refused(shape: Any, dtype: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"array .*shape"):
        read_image(np.zeros(shape, dtype))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "I;16"])
def test_a_pil_image_keeps_its_pixels_and_mode(mode: str) -> None:
    image = Image.effect_noise((60, 40), 90).convert(mode if mode != "I;16" else "L")
    image = image if mode != "I;16" else Image.fromarray(np.asarray(image).astype(np.uint16) * 250)
    read = opened(read_image(image)[0])
    assert (read.mode, read.tobytes()) == (mode, image.tobytes())


@pytest.mark.parametrize(("mode", "becomes"), [("CMYK", "RGB"), ("YCbCr", "RGB"), ("RGBa", "RGBA")])
def test_other_colour_models_are_converted_without_their_profile(mode: str, becomes: str) -> None:
    image = Image.new("RGBA" if mode == "RGBa" else "RGB", (6, 4), "teal").convert(mode)
    image.info["icc_profile"] = b"a profile of the former mode"
    read = opened(read_image(image)[0])
    assert read.mode == becomes
    assert "icc_profile" not in read.info
    assert read.getpixel((0, 0))[:3] == pytest.approx((0, 128, 128), abs=2)  # type: ignore[index]


@pytest.mark.parametrize("mode", ["F", "I"])
def test_a_pil_image_without_a_range_is_refused(mode: str) -> None:
    """Pillow would cut its values off at 255."""
    with pytest.raises(InvalidRequest, match=f"mode {mode} has no fixed range"):
        read_image(Image.new(mode, (6, 4)))
    with pytest.raises(InvalidRequest, match="0x4 pixels"):
        read_image(Image.new("L", (0, 4)))


def test_something_else_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="cannot submit dict; give a path, bytes"):
        read_image({})  # type: ignore[arg-type]


def test_an_array_is_named_by_its_content() -> None:
    array = np.zeros((4, 6), np.uint8)
    assert name_of(array) == name_of(array.copy()) != name_of(array + 1)
