"""Small files that came out wrong once; each stands for a kind (tests/images/cases)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from maskq.contract import FailureCode
from maskq_worker.errors import PermanentError
from maskq_worker.imaging import Decoded, decode

CASES = Path(__file__).parents[2] / "images" / "cases"
CONVERTED, LAB = "converted from {} to sRGB", "converted from Lab to sRGB"
DEEP = "scaled from 0..65535 to 0..255"
# name: (the sound file it equals, notes)
AS_SOUND: dict[str, tuple[str, tuple[str, ...]]] = {
    "planar-rgb16-raw.tif": ("rgb", (DEEP,)),
    "planar-la8-deflate.tif": ("gray", ()),
    "float32-deflate-big.tif": ("gray", ("scaled from 0..1 to 0..255",)),
    "float32-raw-little.tif": ("gray", ("scaled from 0..1 to 0..255",)),
    "int16-deflate-big.tif": ("gray", ("scaled from 0..255 to 0..255",)),
    "int16-raw-little.tif": ("gray", ("scaled from 0..255 to 0..255",)),
    "uint32-full-range.tif": ("gray", ("scaled from 0..4294967295 to 0..255",)),
    "png16-linear-gama1.png": ("rgb", (DEEP, CONVERTED.format("linear light"))),
    "bmp32-alpha-all-zero.bmp": ("rgb", ("alpha of zero everywhere ignored",)),
    "png-text-crc.png": ("rgb", ("damaged tEXt ignored",)),
    "png-phys-short.png": ("rgb", ("damaged pHYs ignored",)),
    "apng-hidden-default.png": ("rgb", ("first of 2 frames",)),
}


def of(name: str) -> Decoded:
    return decode((CASES / name).read_bytes(), max_pixels=1_000_000)


def pixels(name: str) -> np.ndarray:
    return np.asarray(of(name).image).astype(int)


@pytest.mark.parametrize("name", AS_SOUND)
def test_it_equals_the_sound_picture(name: str) -> None:
    sound, notes = AS_SOUND[name]
    assert np.array_equal(pixels(name), pixels(f"sound-{sound}.png"))
    assert of(name).notes == notes


def test_a_pixel_without_a_value_does_not_decide_the_range() -> None:
    """Given one pixel of -9999 that GDAL_NODATA names, Then only that pixel differs."""
    differs = (pixels("float32-nodata.tif") != pixels("sound-gray.png")).any(axis=2)
    assert differs.sum() == 1
    note = "scaled from 0..255 to 0..255, 1 pixel without a value black"
    assert of("float32-nodata.tif").notes == (note,)


def test_planar_lab_is_gray() -> None:
    assert np.abs(pixels("planar-lab8-raw.tif") - 128).max() <= 2
    assert of("planar-lab8-raw.tif").notes == (LAB,)


def test_display_p3_by_numbers() -> None:
    assert of("avif-nclx-p3.avif").notes == (CONVERTED.format("Display P3"),)


def test_an_orientation_beside_odd_metadata() -> None:
    result = of("tiff-orientation-xmp-long.tif")
    assert result.notes == ("rotated upright",)
    assert np.array_equal(np.asarray(result.image), np.rot90(pixels("sound-rgb.png"), -1))


def test_a_jpeg_that_is_cut_and_closed_is_refused() -> None:
    with pytest.raises(PermanentError) as caught:
        of("jpeg-half-plus-eoi.jpg")
    assert caught.value.code is FailureCode.INVALID_IMAGE
    assert "premature end" in caught.value.message


def test_a_whole_jpeg_without_its_end_is_accepted() -> None:
    assert of("jpeg-without-eoi.jpg").notes == ("ends too early, after its last pixel",)


def test_damaged_codes_of_lzw_do_not_end_the_process() -> None:
    """Given codes on which imagecodecs' own decoder writes outside its memory, Then it is refused."""
    with pytest.raises(PermanentError) as caught:
        of("lzw-damaged-codes.tif")
    assert caught.value.code is FailureCode.INVALID_IMAGE
