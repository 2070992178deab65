"""Colours said by numbers (gAMA, cHRM, cICP, nclx, BMP's header) become sRGB, by their standards."""

from __future__ import annotations

import importlib
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from images.drawn import chunk, png, rgb_profile
from images.variants import (
    GRAY,
    P3_TO_XYZ,
    RGB,
    as_gray,
    by_depth,
    encoded,
    light,
    on_white,
    picture,
    saved,
)
from PIL import Image

from maskq_worker.imaging import Decoded, decode

SRGB_POINTS = (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
P3_POINTS = (31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)
# Linear RGB to linear sRGB, from the standards' own matrices.
P3_TO_SRGB = np.array([[1.2249, -0.2247, 0.0], [-0.0420, 1.0419, 0.0], [-0.0197, -0.0786, 1.0979]])
BT2020_TO_SRGB = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]]
)
NO_COLOURS = "colour information ignored: its primaries are no colours"
SCALED = "scaled from 0..65535 to 0..255"


def srgb(levels: np.ndarray) -> np.ndarray:
    values = levels / 255.0
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def pq(levels: np.ndarray) -> np.ndarray:
    """SMPTE ST 2084, 1 is 203 cd/m²."""
    power = (levels / 255.0) ** (1 / 78.84375)
    return (np.maximum(power - 0.8359375, 0) / (18.8515625 - 18.6875 * power)) ** (
        1 / 0.1593017578125
    ) * (10000 / 203)


def hlg(levels: np.ndarray) -> np.ndarray:
    """ITU-R BT.2100 for a screen of 1000 cd/m², 1 is 203 cd/m²."""
    values = levels / 255.0
    scene = np.where(
        values <= 0.5, values**2 / 3, (np.exp((values - 0.55991073) / 0.17883277) + 0.28466892) / 12
    )
    luminance = scene @ np.array([0.2627, 0.6780, 0.0593])
    return scene * luminance[..., None] ** 0.2 * (1000 / 203)


def decoded(data: bytes) -> Decoded:
    return decode(data, max_pixels=1_000_000)


def off(result: Decoded, expected: np.ndarray) -> int:
    return int(np.abs(np.asarray(result.image).astype(int) - expected).max())


def gama(value: float) -> bytes:
    return chunk(b"gAMA", struct.pack(">I", round(value * 100_000)))


def chrm(points: tuple[int, ...]) -> bytes:
    return chunk(b"cHRM", struct.pack(">8I", *points))


def cicp(primaries: int, transfer: int, matrix: int = 0, full: int = 1) -> bytes:
    return chunk(b"cICP", bytes((primaries, transfer, matrix, full)))


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("gamma", [1.0, 1 / 1.8, 0.35])
def test_gama_of_a_png(gamma: float, depth: int) -> None:
    samples = RGB if depth == 8 else by_depth(RGB, 16)
    result = decoded(png(samples, depth, 2, before=gama(gamma)))
    assert off(result, encoded((RGB / 255.0) ** (1 / round(gamma, 5)))) <= 1
    name = "linear light" if gamma == 1 else f"gamma {1 / round(gamma, 5):.3g}"
    assert result.notes[-1] == f"converted from {name} to sRGB"


def test_gama_of_gray_with_alpha() -> None:
    fade = np.broadcast_to(np.arange(24)[None, :, None] * 255 // 23, GRAY.shape)
    data = png(np.dstack([GRAY, fade.astype(np.uint8)]), 8, 4, before=gama(1))
    result = decoded(data)
    assert off(result, on_white(as_gray(encoded(GRAY / 255.0)), fade)) <= 1
    assert result.notes == ("converted from linear light to sRGB", "transparency laid on white")


def test_gama_of_a_palette() -> None:
    index, table = (GRAY % 4).astype(np.uint8), RGB[:4, 0]
    result = decoded(png(index, 8, 3, before=gama(1) + chunk(b"PLTE", table.tobytes())))
    assert off(result, encoded(table / 255.0)[index[..., 0]]) <= 1


@pytest.mark.parametrize("chunks", [
    gama(0.45455), gama(0.45), chrm(SRGB_POINTS), gama(0.45455) + chrm(SRGB_POINTS), cicp(1, 13),
    cicp(1, 1), cicp(2, 2), chunk(b"sRGB", b"\0"),
])  # fmt: skip
def test_what_says_srgb_changes_nothing(chunks: bytes) -> None:
    result = decoded(png(RGB, 8, 2, before=chunks))
    assert (off(result, RGB), result.notes) == (0, ())


@pytest.mark.parametrize("depth", [8, 16])
def test_chrm_of_a_png(depth: int) -> None:
    samples = RGB if depth == 8 else by_depth(RGB, 16)
    result = decoded(png(samples, depth, 2, before=chrm(P3_POINTS) + gama(0.45455)))
    assert off(result, encoded(srgb(RGB) @ P3_TO_SRGB.T)) <= 1
    assert result.notes[-1] == "converted from other primaries to sRGB"


@pytest.mark.parametrize("depth", [8, 16])
def test_cicp_of_a_png(depth: int) -> None:
    samples = RGB if depth == 8 else by_depth(RGB, 16)
    for code, matrix, name in ((12, P3_TO_SRGB, "Display P3"), (9, BT2020_TO_SRGB, "BT.2020")):
        result = decoded(png(samples, depth, 2, before=cicp(code, 13)))
        assert off(result, encoded(srgb(RGB) @ matrix.T)) <= 1
        assert result.notes[-1] == f"converted from {name} to sRGB"


@pytest.mark.parametrize(("transfer", "curve", "name"), [(16, pq, "PQ"), (18, hlg, "HLG")])
def test_hdr_is_shown_with_white_at_203_candela(
    transfer: int, curve: Callable[[np.ndarray], np.ndarray], name: str
) -> None:
    result = decoded(png(RGB, 8, 2, before=cicp(9, transfer)))
    assert off(result, encoded(curve(RGB) @ BT2020_TO_SRGB.T)) <= 1
    assert result.notes == (f"converted from BT.2020 {name} to sRGB, white at 203 cd/m²",)
    assert off(result, RGB) > 40  # else the test would show nothing


@pytest.mark.parametrize(("chunks", "note"), [
    (cicp(3, 13), "colours taken as sRGB: code 3/13 of H.273 is not supported"),
    (cicp(1, 11), "colours taken as sRGB: code 1/11 of H.273 is not supported"),
    (cicp(12, 13, matrix=1), "colour information ignored: cICP says what PNG does not allow"),
    (gama(0), "colour information ignored: its gamma is out of range"),
    (chrm((0,) * 8), NO_COLOURS),
    (chrm((31270, 32900) + (30000, 30000) * 3), NO_COLOURS),
])  # fmt: skip
def test_what_is_not_converted_is_noted(chunks: bytes, note: str) -> None:
    for depth in (8, 16):
        samples = RGB if depth == 8 else by_depth(RGB, 16)
        result = decoded(png(samples, depth, 2, before=chunks))
        assert off(result, RGB) == 0
        assert result.notes == ((SCALED,) if depth == 16 else ()) + (note,)


def test_the_order_of_what_a_png_says() -> None:
    """A profile, else cICP, else sRGB, else gAMA and cHRM."""
    icc = chunk(b"iCCP", b"P\0\0" + zlib.compress(rgb_profile(b"A phone", 2.2, P3_TO_XYZ)))
    both = gama(1) + chrm(P3_POINTS)
    by_profile = light(RGB, P3_TO_XYZ, 2.2)
    for chunks, expected in (
        (icc + cicp(9, 16) + both, by_profile),
        (cicp(12, 13) + chunk(b"sRGB", b"\0") + both, encoded(srgb(RGB) @ P3_TO_SRGB.T)),
        (chunk(b"sRGB", b"\0") + both, RGB),
        (both, encoded(RGB / 255.0 @ P3_TO_SRGB.T)),
    ):
        for depth in (8, 16):
            samples = RGB if depth == 8 else by_depth(RGB, 16)
            assert off(decoded(png(samples, depth, 2, before=chunks)), expected) <= 3


def avif(primaries: int, transfer: int, **more: Any) -> bytes:
    """RGB, with other codes in its nclx box."""
    data = bytearray(saved(picture(), "AVIF", quality=100, subsampling="4:4:4", speed=10, **more))
    at = data.index(b"nclx") + 4
    struct.pack_into(">HH", data, at, primaries, transfer)
    return bytes(data)


def heic(primaries: int, transfer: int) -> bytes:
    heif = importlib.import_module("pillow_heif")
    heif.register_heif_opener()
    data = bytearray(saved(picture(), "HEIF", quality=100, chroma=444, matrix_coefficients=0))
    at = data.index(b"nclx") + 4
    struct.pack_into(">HH", data, at, primaries, transfer)
    return bytes(data)


@pytest.mark.parametrize("written", [avif, heic])
def test_nclx_of_avif_and_heic(written: Callable[[int, int], bytes]) -> None:
    plain = decoded(written(1, 13))
    assert plain.notes == ()
    shown = np.asarray(plain.image)
    result = decoded(written(12, 13))
    assert result.notes == ("converted from Display P3 to sRGB",)
    assert off(result, encoded(srgb(shown) @ P3_TO_SRGB.T)) <= 3
    for transfer, curve, name in ((16, pq, "PQ"), (18, hlg, "HLG")):
        result = decoded(written(9, transfer))
        assert result.notes == (f"converted from BT.2020 {name} to sRGB, white at 203 cd/m²",)
        assert off(result, encoded(curve(shown) @ BT2020_TO_SRGB.T)) <= 3


def test_nclx_codes_that_are_not_known_are_noted() -> None:
    """In HEIC its own reader refuses them."""
    result = decoded(avif(3, 13))
    assert result.notes == ("colours taken as sRGB: code 3/13 of H.273 is not supported",)


def test_a_profile_wins_over_nclx() -> None:
    icc = rgb_profile(b"A phone", 2.2, P3_TO_XYZ)
    data = saved(picture(), "AVIF", quality=100, subsampling="4:4:4", speed=10, icc_profile=icc)
    assert decoded(data).notes == ("converted from A phone to sRGB",)


def bmp(kind: bytes, points: list[int], gammas: list[int], profile: bytes = b"") -> bytes:
    """24 bits with a header of version 5."""
    rows = RGB[::-1, :, ::-1].tobytes()
    height, width = RGB.shape[:2]
    header = struct.pack("<IiiHHIIiiII", 124, width, height, 1, 24, 0, len(rows), 0, 0, 0, 0)
    header += bytes(16) + kind + struct.pack("<9i3I", *points, *gammas)
    header += struct.pack("<4I", 4, 124 + len(rows), len(profile), 0)
    start = 14 + len(header)
    about = struct.pack("<2sIHHI", b"BM", start + len(rows) + len(profile), 0, 0, start)
    return about + header + rows + profile


def test_colours_of_a_bmp() -> None:
    none = [0] * 9
    icc = rgb_profile(b"A phone", 2.2, P3_TO_XYZ)
    embedded = decoded(bmp(b"DEBM", none, [0] * 3, icc))
    assert embedded.notes == ("converted from A phone to sRGB",)
    assert off(embedded, light(RGB, P3_TO_XYZ, 2.2)) <= 3
    assert decoded(bmp(b"BGRs", none, [0] * 3)).notes == ()
    assert decoded(bmp(bytes(4), none, [0] * 3)).notes == ()
    assert decoded(bmp(b"KNIL", none, [0] * 3)).notes == ("colour profile ignored",)
    xyz = np.array([[0.4866, 0.2290, 0.0], [0.2657, 0.6917, 0.0451], [0.1982, 0.0793, 1.0439]])
    fixed = [round(value * 2**30) for value in xyz.reshape(-1)]
    calibrated = decoded(bmp(bytes(4), fixed, [round(1.8 * 65536)] * 3))
    assert calibrated.notes == ("converted from gamma 1.8 and other primaries to sRGB",)
    assert off(calibrated, encoded((RGB / 255.0) ** 1.8 @ P3_TO_SRGB.T)) <= 2
    different = decoded(bmp(bytes(4), fixed, [65536, 2 * 65536, 65536]))
    assert different.notes == ("colour information ignored: its channels have different gammas",)


def test_large_images_are_converted_part_by_part() -> None:
    tall = np.tile(RGB, (60, 40, 1))
    result = decoded(png(tall, 8, 2, before=cicp(12, 13)))
    assert off(result, np.tile(encoded(srgb(RGB) @ P3_TO_SRGB.T), (60, 40, 1))) <= 1
    assert isinstance(result.image, Image.Image)
