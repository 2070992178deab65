"""PNG: damage beside the pixels is a note, damage in them a refusal; the frame that viewers show."""

from __future__ import annotations

import struct
import zlib
from itertools import product

import numpy as np
import pytest
from images.drawn import chunk, packed, png
from images.variants import GRAY, RGB, as_gray, by_depth, on_white, picture, saved

from maskq.contract import FailureCode
from maskq_worker.errors import PermanentError
from maskq_worker.imaging import Decoded, decode

SCALED = "scaled from 0..65535 to 0..255"
SIGNATURE = b"\x89PNG\r\n\x1a\n"
END = chunk(b"IEND", b"")
EARLY = "ends too early, after its last pixel"
ANCILLARY = {
    b"tEXt": b"a\0b", b"zTXt": b"a\0\0" + zlib.compress(b"x"), b"iTXt": b"a\0\0\0\0\0x",
    b"pHYs": bytes(9), b"tIME": bytes(7), b"gAMA": struct.pack(">I", 45455), b"sRGB": b"\0",
    b"cHRM": struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000),
    b"cICP": bytes((1, 13, 0, 1)), b"eXIf": b"II*\0\x08\0\0\0\0\0\0\0\0\0", b"bKGD": bytes(6),
    b"sBIT": bytes(3), b"hIST": bytes(2), b"sPLT": b"a\0\x08", b"tRNS": bytes(6),
    b"acTL": bytes(8), b"fcTL": bytes(26), b"fdAT": bytes(9), b"abCd": b"1",
}  # fmt: skip


def decoded(data: bytes) -> Decoded:
    return decode(data, max_pixels=1_000_000)


def refused(data: bytes) -> str:
    with pytest.raises(PermanentError) as caught:
        decoded(data)
    assert caught.value.code is FailureCode.INVALID_IMAGE
    return caught.value.message


def unsound(kind: bytes, body: bytes) -> bytes:
    """A chunk with another checksum."""
    whole = chunk(kind, body)
    return whole[:-1] + bytes((whole[-1] ^ 1,))


def in_depth(depth: int) -> np.ndarray:
    return RGB if depth == 8 else by_depth(RGB, depth)


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("kind", ANCILLARY)
def test_what_is_not_pixels_never_refuses_sound_pixels(kind: bytes, depth: int) -> None:
    """Given a chunk that is damaged, empty, too short, too long or there twice, before or after."""
    body = ANCILLARY[kind]
    forms = (
        unsound(kind, body), chunk(kind, b""), chunk(kind, body[:-1]), chunk(kind, body + b"zz"),
        chunk(kind, body) * 2, chunk(kind, body),
    )  # fmt: skip
    for form, where in product(forms, ("before", "after")):
        result = decoded(png(in_depth(depth), depth, 2, **{where: form}))
        assert np.array_equal(np.asarray(result.image), RGB)
    damaged = decoded(png(in_depth(depth), depth, 2, before=forms[0]))
    assert f"damaged {kind.decode()} ignored" in damaged.notes


def test_many_damaged_chunks_make_one_short_note() -> None:
    many = b"".join(unsound(kind, body) for kind, body in ANCILLARY.items()) * 3
    (note,) = decoded(png(RGB, 8, 2, before=many)).notes
    assert note == "damaged tEXt, zTXt, iTXt, pHYs ignored"


def whole(rows: bytes, depth: int, *, interlaced: bool, tail: int = 0) -> bytes:
    """A file whose stream of `rows` ends properly; tail: bytes cut from its end."""
    height, width = RGB.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, interlaced)
    packed_rows = zlib.compress(rows)
    packed_rows = packed_rows[: len(packed_rows) - tail]
    return SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", packed_rows) + END


def rows_of(depth: int, *, interlaced: bool) -> bytes:
    data = png(in_depth(depth), depth, 2, interlaced=interlaced)
    at = data.index(b"IDAT")
    (length,) = struct.unpack(">I", data[at - 4 : at])
    return zlib.decompress(data[at + 4 : at + 4 + length])


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("interlaced", [False, True])
def test_missing_rows_are_refused_even_if_the_stream_ends_properly(
    depth: int, interlaced: bool
) -> None:
    rows = rows_of(depth, interlaced=interlaced)
    sound = decoded(whole(rows, depth, interlaced=interlaced))
    assert np.array_equal(np.asarray(sound.image), RGB)
    more = decoded(whole(rows + bytes(500), depth, interlaced=interlaced))
    assert np.array_equal(np.asarray(more.image), RGB)
    for missing in (1, 72 * depth // 8 + 1, len(rows) // 2):
        message = refused(whole(rows[:-missing], depth, interlaced=interlaced))
        assert "damaged or cut short" in message


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("interlaced", [False, True])
def test_a_stream_far_longer_than_its_rows_is_not_unpacked(depth: int, interlaced: bool) -> None:
    """Given 400 MB behind the rows and a wrong checksum after them, Then nobody comes that far."""
    packer = zlib.compressobj()
    head = packer.compress(rows_of(depth, interlaced=interlaced)) + packer.flush(zlib.Z_FULL_FLUSH)
    zeros = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    data = whole(b"", depth, interlaced=interlaced)
    empty = chunk(b"IDAT", zlib.compress(b""))
    data = data.replace(empty, chunk(b"IDAT", head + zeros * 400 + packer.flush()))
    assert np.array_equal(np.asarray(decoded(data).image), RGB)


def test_a_black_last_row_is_no_missing_one() -> None:
    black = RGB.copy()
    black[-1] = 0
    for interlaced in (False, True):
        result = decoded(png(black, 8, 2, interlaced=interlaced))
        assert np.array_equal(np.asarray(result.image), black)


def test_another_checksum_around_sound_pixels_does_not_matter() -> None:
    """Given pixels that unpack to what their own checksum says, Then that of the chunk is not asked."""
    for depth in (8, 16):
        data = bytearray(png(in_depth(depth), depth, 2))
        data[-13] ^= 1
        assert np.array_equal(np.asarray(decoded(bytes(data)).image), RGB)


@pytest.mark.parametrize("depth", [8, 16])
def test_pixels_with_another_checksum_are_refused(depth: int) -> None:
    data = bytearray(whole(rows_of(depth, interlaced=False), depth, interlaced=False))
    data[-17] ^= 1
    assert "damaged or cut short" in refused(bytes(data))


@pytest.mark.parametrize("kind", [b"IHDR", b"PLTE"])
def test_another_checksum_of_a_header_is_refused(kind: bytes) -> None:
    index = (GRAY % 4).astype(np.uint8)
    data = bytearray(png(index, 8, 3, before=chunk(b"PLTE", RGB[:4, 0].tobytes())))
    at = data.index(kind)
    (length,) = struct.unpack(">I", data[at - 4 : at])
    data[at + 4 + length] ^= 1
    assert f"{kind.decode()} chunk fails its checksum" in refused(bytes(data))


@pytest.mark.parametrize("cut", [1, 4, 8, 12, 13, 16])
@pytest.mark.parametrize("depth", [8, 16])
def test_a_file_that_ends_after_its_last_pixel_is_accepted_with_a_note(
    cut: int, depth: int
) -> None:
    """Given a file cut in IEND or in the checksum before it, Then all pixels are there."""
    result = decoded(png(in_depth(depth), depth, 2)[:-cut])
    assert np.array_equal(np.asarray(result.image), RGB)
    assert EARLY in result.notes


@pytest.mark.parametrize("cut", [30, 100, 200])
def test_a_file_that_ends_within_its_pixels_is_refused(cut: int) -> None:
    for depth in (8, 16):
        assert "damaged or cut short" in refused(png(in_depth(depth), depth, 2)[:-cut])


def frame(number: int, box: tuple[int, int, int, int]) -> bytes:
    left, top, wide, high = box
    return chunk(b"fcTL", struct.pack(">5I2H2B", number, wide, high, left, top, 1, 10, 0, 0))


def frame_pixels(number: int, samples: np.ndarray) -> bytes:
    rows = b"".join(b"\0" + row for row in packed(samples, 8))
    return chunk(b"fdAT", struct.pack(">I", number) + zlib.compress(rows))


def hidden(box: tuple[int, int, int, int], samples: np.ndarray) -> bytes:
    """An animation of one frame, whose default image is none of it."""
    control = chunk(b"acTL", struct.pack(">II", 1, 0))
    animation = frame(0, box) + frame_pixels(1, samples)
    return png(255 - RGB, 8, 2, before=control, after=animation)


def test_a_default_image_that_is_no_frame_is_not_shown() -> None:
    height, width = RGB.shape[:2]
    result = decoded(hidden((0, 0, width, height), RGB))
    assert np.array_equal(np.asarray(result.image), RGB)
    assert result.notes == ()


def test_a_first_frame_smaller_than_its_canvas_lies_on_white() -> None:
    result = decoded(hidden((3, 2, 10, 8), RGB[:8, :10]))
    expected = np.full_like(RGB, 255)
    expected[2:10, 3:13] = RGB[:8, :10]
    assert np.array_equal(np.asarray(result.image), expected)
    assert result.notes == ("transparency laid on white",)


@pytest.mark.parametrize("box", [(20, 0, 10, 8), (0, 0, 0, 8), (0, 0, 2**31, 2**31), (0, 15, 1, 2)])
def test_a_first_frame_outside_its_canvas_is_refused(box: tuple[int, int, int, int]) -> None:
    assert "first frame lies outside" in refused(hidden(box, RGB[:8, :10]))


def test_frames_are_those_that_are_there() -> None:
    data = saved(
        picture(), "PNG", save_all=True, append_images=[picture(RGB[::-1])] * 2, disposal=1
    )
    lying = data.replace(b"acTL" + struct.pack(">I", 3), b"acTL" + struct.pack(">I", 9))
    at = lying.index(b"acTL")
    lying = lying[:at] + chunk(b"acTL", lying[at + 4 : at + 12])[4:] + lying[at + 16 :]
    assert decoded(lying).notes == ("first of 3 frames",)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(("channels", "colour_type"), [(1, 0), (2, 4), (3, 2), (4, 6)])
def test_samples_of_16_bits_are_rounded_and_not_cut(
    channels: int, colour_type: int, interlaced: bool
) -> None:
    """Given levels a little off those of 8 bits, Then each becomes the nearest one."""
    uneven = np.arange(RGB.size).reshape(RGB.shape) * 37 % 100
    deep = RGB.astype(int) * 257 + np.where(RGB < 128, uneven, -uneven)
    fade = np.broadcast_to(np.arange(24)[None, :, None] * 255 // 23, GRAY.shape)
    samples = deep[..., :1] if channels < 3 else deep
    expected = as_gray(RGB[..., :1]) if channels < 3 else RGB
    if channels in (2, 4):
        samples, expected = np.dstack([samples, fade * 257]), on_white(expected, fade)
    result = decoded(png(samples, 16, colour_type, interlaced=interlaced))
    assert np.abs(np.asarray(result.image).astype(int) - expected).max() <= (channels in (2, 4))
    assert SCALED in result.notes
