"""BMP: bit fields and run-length coding that Pillow does not read, and colours that it ignores."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from maskq_worker.imaging import colour_spaces
from maskq_worker.imaging.checks import check_size, invalid
from maskq_worker.imaging.colour_spaces import ColourSpace
from maskq_worker.imaging.picture import Picture
from maskq_worker.imaging.readers import pillow_reader

_V3: Final = 40  # bytes of the header
_V4: Final = 108  # headers of this size or more describe colours
_RUNS: Final = {1: 8, 2: 4}  # compression → bits of its pixels
_BIT_FIELDS: Final = (3, 6)
_CALIBRATED, _EMBEDDED, _LINKED = 0, b"DEBM", b"KNIL"


@dataclass(frozen=True, slots=True)
class _Header:
    size: int  # bytes
    width: int
    height: int  # negative: the first row is the top one
    bits: int
    compression: int
    colours: int
    start: int  # of the pixels


def picture(data: bytes, max_pixels: int, on_pixels: Callable[[int, int], object]) -> Picture:
    """The image. Raises PermanentError, and what Pillow raises for the kinds that it reads."""
    header = _header(data)
    if header is not None:
        check_size((header.width, abs(header.height)), max_pixels)
        on_pixels(header.width * abs(header.height), 0)
        image: Image.Image | None = None
        notes: list[str] = []
        if header.compression in _BIT_FIELDS and header.bits in (16, 32):
            image = _from_fields(data, header)
        elif _RUNS.get(header.compression) == header.bits:
            image, notes = _from_runs(data, header)
        if image is not None:
            return _described(Picture(image, "BMP", notes=tuple(notes)), data)
    with pillow_reader.opened(data, ("BMP",)) as source:
        check_size(source.size, max_pixels)
        if header is None:
            on_pixels(source.width * source.height, 0)
        result = pillow_reader.loaded(source, data)
    return _described(result, data)


def _header(data: bytes) -> _Header | None:
    """The header; None for the header of OS/2, which Pillow reads."""
    if len(data) < 14 + _V3 or int.from_bytes(data[14:18], "little") < _V3:
        return None
    (start,) = struct.unpack_from("<I", data, 10)
    size, width, height, _, bits, compression = struct.unpack_from("<IiiHHI", data, 14)
    (colours,) = struct.unpack_from("<I", data, 14 + 32)
    return _Header(size, width, height, bits, compression, colours, start)


def _from_fields(data: bytes, header: _Header) -> Image.Image:
    """Pixels whose samples have positions and numbers of bits that masks define."""
    in_header = header.size >= 56 or header.compression == 6
    masks = struct.unpack_from("<4I" if in_header else "<3I", data, 14 + _V3)
    if header.size == 52:
        masks = masks[:3]
    height, size = abs(header.height), header.bits // 8
    stride = (header.width * size + 3) // 4 * 4
    if len(data) < header.start + stride * height:
        raise invalid(
            "the BMP image is damaged or cut short: it has fewer rows than its header says"
        )
    flat = np.frombuffer(data, np.uint8, stride * height, header.start).reshape(height, stride)
    pixels = flat[:, : header.width * size].copy().view(f"<u{size}")
    if header.height > 0:
        pixels = pixels[::-1]
    planes = [_field(pixels, mask) for mask in masks[:3]]
    if masks[3:] and masks[3]:
        planes.append(_field(pixels, masks[3]))
    return Image.merge("RGBA"[: len(planes)], [Image.fromarray(plane) for plane in planes])


def _field(pixels: NDArray[Any], mask: int) -> NDArray[np.uint8]:
    low = (mask & -mask).bit_length() - 1
    most = mask >> max(low, 0)
    if not mask or most & (most + 1):
        raise invalid("the BMP image is damaged: its bit fields are not contiguous")
    values = (pixels & mask) >> low
    if most == 255:
        return values.astype(np.uint8)
    return (values * (255.0 / most)).round().astype(np.uint8)


def _from_runs(data: bytes, header: _Header) -> tuple[Image.Image, list[str]]:
    """RLE8 and RLE4, rows from the bottom; pixels that no run covers have the first colour."""
    width, height = header.width, header.height
    if height < 0:
        raise invalid(
            "the BMP image is damaged: its runs go from the top, which BMP does not allow"
        )
    start = 14 + header.size
    count = header.colours or 1 << header.bits
    table = data[start : min(start + 4 * count, header.start)]
    colours = np.frombuffer(table[: len(table) // 4 * 4], np.uint8).reshape(-1, 4)[:, 2::-1]
    pixels, covered = bytearray(width * height), 0
    row = column = 0
    position, end, half = header.start, len(data), header.bits == 4
    while position + 2 <= end:
        length, value = data[position], data[position + 1]
        position += 2
        if length:
            pattern = bytes((value >> 4, value & 15) if half else (value,))
            part = pattern * (length // len(pattern) + 1)
        elif value == 0:
            row, column = row + 1, 0
            continue
        elif value == 1:
            break
        elif value == 2:
            if position + 2 > end:
                raise _cut_short()
            column, row = column + data[position], row + data[position + 1]
            position += 2
            continue
        else:
            length, size = value, (value + 1) // 2 if half else value
            part = data[position : position + size]
            if half:
                part = bytes(nibble for byte in part for nibble in (byte >> 4, byte & 15))
            position += size + size % 2
        if len(part) < length:
            raise _cut_short()
        part = part[: min(length, width - column)]
        if row < height and part:
            place = row * width + column
            pixels[place : place + len(part)] = part
            covered += len(part)
        column = min(column + length, width)
    else:
        if covered < width * height:
            raise _cut_short()
    index = np.frombuffer(pixels, np.uint8).reshape(height, width)[::-1]
    notes = [pillow_reader.NO_COLOUR] if index.max(initial=0) >= len(colours) else []
    if covered < width * height:
        notes.append(
            f"{width * height - covered} pixels left out by its runs have its first colour"
        )
    whole = np.zeros((1 << header.bits, 3), np.uint8)
    whole[: len(colours)] = colours[: len(whole)]
    return Image.fromarray(whole[index]), notes


def _cut_short() -> Exception:
    return invalid("the BMP image is damaged or cut short: its runs end too early")


def _described(result: Picture, data: bytes) -> Picture:
    """The picture with the colour information that Pillow ignores."""
    if result.image.mode == "RGBA" and result.image.getchannel("A").getextrema() == (0, 0):
        result = replace(result, image=result.image.convert("RGB"))
        result = result.with_notes(["alpha of zero everywhere ignored"])
    if len(data) < 14 + _V4 or int.from_bytes(data[14:18], "little") < _V4:
        return result
    kind = data[14 + 56 : 14 + 60]
    if kind == _EMBEDDED and len(data) >= 14 + 124:
        start, size = struct.unpack_from("<II", data, 14 + 112)
        return replace(result, icc=data[14 + start : 14 + start + size])
    if kind == _LINKED:
        return replace(result, icc=b"")
    if int.from_bytes(kind, "little") == _CALIBRATED:
        return result.with_colours(_calibrated(data))
    return result


def _calibrated(data: bytes) -> ColourSpace | str | None:
    """The colours by three points in XYZ (2.30 fixed point) and a gamma per channel (16.16)."""
    endpoints = [value / 2**30 for value in struct.unpack_from("<9i", data, 14 + 60)]
    gammas = [value / 65536 for value in struct.unpack_from("<3I", data, 14 + 96)]
    if not any(endpoints) or not any(gammas):
        return None  # empty, as most writers leave it
    colours = [endpoints[i : i + 3] for i in (0, 3, 6)]
    white = [sum(parts) for parts in zip(*colours, strict=True)]
    points = [part / sum(xyz) if sum(xyz) else 0.0 for xyz in (white, *colours) for part in xyz[:2]]
    if max(gammas) - min(gammas) > 0.01 or not gammas[0]:
        return "colour information ignored: its channels have different gammas"
    return colour_spaces.by_numbers(1 / gammas[0], tuple(points))
