"""PNG: gives only sound chunks to a decoder, and reads the colours that chunks describe.

A file with damage in chunks of pixels (IHDR, PLTE, IDAT) is refused. Other damaged chunks are ignored,
with a note.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from maskq_worker.errors import JobError
from maskq_worker.imaging import colour_spaces, samples
from maskq_worker.imaging.checks import OnPixels, check_size, frames_note, invalid
from maskq_worker.imaging.colour_spaces import ColourSpace
from maskq_worker.imaging.picture import Picture
from maskq_worker.imaging.readers import pillow_reader
from maskq_worker.imaging.readers.png.chunks import (
    ANIMATION,
    CHANNELS,
    PIXELS,
    Chunks,
    drop_malformed_transparency,
    first_frame,
    has_all_rows,
    passes,
    read,
    rows_of,
    written,
)


def picture(data: bytes, max_pixels: int, on_pixels: OnPixels) -> Picture:
    """The image, or the first frame of an animation.

    Raises PermanentError, and what Pillow and imagecodecs raise for damaged pixels.
    """
    chunks = read(data)
    header = chunks.first(b"IHDR")
    if header is None or len(header) != 13 or chunks.kept[0][0] != b"IHDR":
        raise invalid("the PNG image is damaged or cut short: its header cannot be read")
    width, height, depth, colour_type = struct.unpack(">IIBB", header[:10])
    check_size((width, height), max_pixels)
    on_pixels(width * height, 32 * width * height if depth == 16 else 0)
    drop_malformed_transparency(chunks, colour_type)
    place = first_frame(chunks, width, height)
    space = _space(chunks)
    if depth == 16:
        result = _sixteen_bits(chunks, colour_type, space)
    else:
        result = _up_to_eight_bits(data if chunks.is_whole else b"", chunks)
        if isinstance(space, ColourSpace) and result.icc is None:
            result = result.with_colours(space)
    if isinstance(space, str) and result.icc is None:
        result = result.with_notes([space])
    if place:
        result = _on_canvas(result, (width, height), place)
    return replace(result.with_notes(chunks.notes), frames=frames_note(chunks.frames))


def _on_canvas(frame: Picture, size: tuple[int, int], place: tuple[int, int, int, int]) -> Picture:
    """A frame that covers a part of its animation's canvas; around it nothing is drawn."""
    if frame.image.size == size:
        return frame
    canvas = Image.new(frame.image.mode, size)
    canvas.paste(frame.image, place[:2])
    return replace(frame, image=canvas, pixel_box=place)


def _up_to_eight_bits(whole: bytes, chunks: Chunks) -> Picture:
    """By Pillow. whole: the file, where it can have it as it is."""
    kept = [(k, b) for k, b in chunks.kept if k not in ANIMATION]
    try:
        return _by_pillow(whole or written(kept), chunks)
    except JobError:
        raise
    except Exception:
        # The same without what Pillow may not understand about a sound image: its text, say.
        bare = [(k, b) for k, b in kept if k in (*PIXELS, b"tRNS")]
        if len(bare) == len(kept):
            raise
        result = _by_pillow(written(bare), chunks)
        return result.with_notes(["metadata that cannot be read ignored"])


def _by_pillow(data: bytes, chunks: Chunks) -> Picture:
    with pillow_reader.opened(data, ("PNG",)) as source:
        result = pillow_reader.loaded(source, data)
        # Pillow leaves zeros where a stream that ends properly has too few rows.
        header = chunks.kept[0][1]
        last = (0, source.height - 1, source.width, source.height)
        is_interlaced = header[12] == 1
        if (is_interlaced or source.crop(last).getbbox() is None) and not has_all_rows(chunks):
            raise invalid("the PNG image is damaged or cut short: rows are missing")
    return result


def _sixteen_bits(chunks: Chunks, colour_type: int, space: ColourSpace | str | None) -> Picture:
    """16 bits, which Pillow holds for gray alone: converted to sRGB before they become 8."""
    pixels = _bypasses(chunks)
    colours = 3 if colour_type in (2, 6) else 1
    key, icc = chunks.first(b"tRNS"), _profile(chunks)
    notes: list[str] = []
    if isinstance(space, ColourSpace) and icc is None and not space.is_srgb():
        shown = space.to_srgb(pixels[..., :colours])
        notes = ["scaled from 0..65535 to 0..255", space.note]
    else:
        shown, scaled = samples.to_eight_bits(pixels[..., :colours], bits=16)
        notes = [scaled] if scaled else []
    planes = [Image.fromarray(np.ascontiguousarray(shown[..., band])) for band in range(colours)]
    if pixels.shape[2] > colours:
        alpha, _ = samples.to_eight_bits(pixels[..., colours:], bits=16)
        planes.append(Image.fromarray(alpha[..., 0]))
    elif key is not None and len(key) == 2 * colours:
        clear = (pixels == np.frombuffer(key, ">u2")).all(axis=2)
        planes.append(Image.fromarray(np.where(clear, 0, 255).astype(np.uint8)))
    mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[len(planes)]
    image = Image.merge(mode, planes) if len(planes) > 1 else planes[0]
    return Picture(
        image, "PNG", icc=icc, orientation=_orientation(chunks.first(b"eXIf")), notes=tuple(notes)
    )


def _bypasses(chunks: Chunks) -> NDArray[Any]:
    """(H, W, C) uint16, by libpng from rows that are unpacked here.

    libpng itself unpacks whatever follows the rows, however much it is, and warns of interlacing.
    """
    import imagecodecs  # here, since it takes a while and most PNGs are of 8 bits

    header = bytes(chunks.kept[0][1])
    width, height = struct.unpack(">II", header[:8])
    rows = rows_of(chunks)
    out = np.empty((height, width, CHANNELS[header[9]]), np.uint16)
    start = 0
    for part in passes(chunks):
        body = zlib.compress(memoryview(rows)[start : start + part.size], 0)
        start += part.size
        smaller = struct.pack(">II", part.width, part.height) + header[8:12] + b"\0"
        pixels = imagecodecs.png_decode(written([(b"IHDR", smaller), (b"IDAT", body)]))
        if pixels.dtype != np.uint16:
            raise invalid("the PNG image is damaged: its samples are not what its header says")
        out[part.rows, part.columns] = pixels.reshape(part.height, part.width, -1)
    return out


def _space(chunks: Chunks) -> ColourSpace | str | None:
    """The colours that chunks describe, by the order of the PNG specification: cICP, sRGB, gAMA."""
    codes = chunks.first(b"cICP")
    if codes is not None:
        if codes[2:] != b"\0\1":
            return "colour information ignored: cICP says what PNG does not allow"
        return colour_spaces.by_codes(codes[0], codes[1])
    if chunks.first(b"sRGB") is not None:
        return None
    gamma, points = chunks.first(b"gAMA"), chunks.first(b"cHRM")
    if gamma is None and points is None:
        return None
    numbers = [value / 100_000 for value in struct.unpack(">8I", points)] if points else None
    return colour_spaces.by_numbers(
        int.from_bytes(gamma, "big") / 100_000 if gamma else None,
        tuple(numbers) if numbers else None,
    )


def _profile(chunks: Chunks) -> bytes | None:
    """The ICC profile; empty if it cannot be unpacked."""
    body = chunks.first(b"iCCP")
    if body is None:
        return None
    _, _, packed = body.partition(b"\0")
    try:
        return zlib.decompressobj().decompress(packed[1:], pillow_reader.MAX_PROFILE)
    except zlib.error:
        return b""


def _orientation(exif: bytes | None) -> int:
    return pillow_reader.orientation_of(exif) if exif else 1
