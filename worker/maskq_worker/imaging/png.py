"""PNG: only sound chunks reach a decoder; colours that chunks describe; the frame that viewers show.

What is damaged decides: pixels (IHDR, PLTE, IDAT) refuse the file, all else is left out with a note.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from maskq_worker.errors import JobError
from maskq_worker.imaging import colour_spaces, pillow_reader, samples
from maskq_worker.imaging.colour_spaces import ColourSpace
from maskq_worker.imaging.formats import check_size, frames_note, invalid
from maskq_worker.imaging.picture import Picture

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_PIXELS: Final = (b"IHDR", b"PLTE", b"IDAT")
_LENGTHS: Final = {b"pHYs": 9, b"tIME": 7, b"gAMA": 4, b"cHRM": 32, b"sRGB": 1, b"cICP": 4}
_ANIMATION: Final = (b"acTL", b"fcTL", b"fdAT")
_BEFORE_PIXELS: Final = (b"PLTE", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"cICP", b"iCCP")
_CHANNELS: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
_GRAY, _RGB, _PALETTE = 0, 2, 3  # colour types
# Of an interlaced image: first column and row, and the steps to the next ones.
_PASSES: Final = (
    (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2),
)  # fmt: skip
_UNPACKED: Final = 2**20  # bytes at a time
_LONGEST_NOTE: Final = 4  # kinds of damaged chunks that a note names


@dataclass(slots=True)
class Chunks:
    """The chunks of a file; of damaged ones only those of pixels are kept."""

    kept: list[tuple[bytes, memoryview]] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)  # kinds left out
    is_cut: bool = False  # the file ends before IEND

    def first(self, kind: bytes) -> bytes | None:
        return next((bytes(body) for name, body in self.kept if name == kind), None)

    @property
    def is_whole(self) -> bool:
        """Whether a decoder may have the file as it is."""
        animated = any(kind in _ANIMATION for kind, _ in self.kept)
        return not (self.damaged or self.is_cut or animated)

    @property
    def notes(self) -> list[str]:
        notes = []
        if self.damaged:
            kinds = ", ".join(dict.fromkeys(self.damaged[:_LONGEST_NOTE]))
            notes.append(f"damaged {kinds} ignored")
        if self.is_cut:
            notes.append("ends too early, after its last pixel")
        return notes

    @property
    def frames(self) -> int:
        """Of the animation; 0 if there is none."""
        return sum(kind == b"fcTL" for kind, _ in self.kept) if self.first(b"acTL") else 0


def read(data: bytes) -> Chunks:
    """Raises PermanentError for damage in the chunks that hold the pixels."""
    chunks, view = Chunks(is_cut=True), memoryview(data)
    position, has_pixels = len(SIGNATURE), False
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        start, end = position + 8, position + 8 + length
        position = end + 4
        if not kind.isalpha():
            raise invalid("the PNG image is damaged: it has a chunk without a name")
        body = view[start:end]
        if kind == b"IEND":
            chunks.is_cut = position > len(data)
            break
        if kind == b"IDAT":
            # Its decoder sees whether pixels are missing, and compares a checksum of all of them.
            chunks.kept.append((kind, body))
            has_pixels = True
            continue
        checksum = zlib.crc32(body, zlib.crc32(kind)).to_bytes(4, "big")
        is_sound = checksum == data[end:position] and length == _LENGTHS.get(kind, length)
        if kind in _PIXELS and not is_sound:
            raise invalid(f"the PNG image is damaged: its {kind.decode()} chunk fails its checksum")
        is_late = has_pixels and kind in _BEFORE_PIXELS
        if is_sound and not is_late:
            chunks.kept.append((kind, body))
        elif position <= len(data):
            chunks.damaged.append(kind.decode())
    return chunks


def picture(data: bytes, max_pixels: int, on_pixels: Callable[[int, int], object]) -> Picture:
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
    _drop_malformed_transparency(chunks, colour_type)
    place = _first_frame(chunks, width, height)
    space = _space(chunks)
    if depth == 16:
        result = _sixteen_bits(chunks, colour_type, space)
    else:
        result = _up_to_eight_bits(data if chunks.is_whole else b"", chunks)
        if isinstance(space, ColourSpace) and result.icc is None:
            result.space = space
    if isinstance(space, str) and result.icc is None:
        result.notes.append(space)
    if place:
        result = _on_canvas(result, (width, height), place)
    result.notes += chunks.notes
    result.frames = frames_note(chunks.frames)
    return result


def _drop_malformed_transparency(chunks: Chunks, colour_type: int) -> None:
    """A tRNS chunk of a length that the colours do not have."""
    key, palette = chunks.first(b"tRNS"), chunks.first(b"PLTE") or b""
    if key is None:
        return
    fits = {
        _GRAY: len(key) == 2, _RGB: len(key) == 6, _PALETTE: 0 < len(key) <= len(palette) // 3,
    }  # fmt: skip
    if not fits.get(colour_type):
        chunks.kept = [(k, b) for k, b in chunks.kept if k != b"tRNS"]
        chunks.damaged.append("tRNS")


def _first_frame(chunks: Chunks, width: int, height: int) -> tuple[int, int, int, int] | None:
    """Where an animation's first frame lies, if it is not the image that other readers show.

    The chunks are changed so that they are those of this frame.
    """
    kinds = [kind for kind, _ in chunks.kept]
    if not chunks.frames or b"IDAT" not in kinds or kinds.index(b"fcTL") < kinds.index(b"IDAT"):
        return None
    start = kinds.index(b"fcTL")
    control = bytes(chunks.kept[start][1])
    if len(control) != 26:
        raise invalid("the PNG animation is damaged: the size of its first frame cannot be read")
    wide, high, left, top = struct.unpack(">4I", control[4:20])
    if wide < 1 or high < 1 or left + wide > width or top + high > height:
        raise invalid("the PNG animation is damaged: its first frame lies outside the image")
    rest = kinds[start + 1 :]
    stop = start + 1 + rest.index(b"fcTL") if b"fcTL" in rest else len(kinds)
    frame = [body[4:] for kind, body in chunks.kept[start:stop] if kind == b"fdAT"]
    header = struct.pack(">II", wide, high) + bytes(chunks.kept[0][1])[8:]
    others = [(k, b) for k, b in chunks.kept[1:] if k not in (b"IDAT", *_ANIMATION)]
    controls = [(k, b) for k, b in chunks.kept if k in (b"acTL", b"fcTL")]
    chunks.kept = [
        (b"IHDR", memoryview(header)), *others, *((b"IDAT", body) for body in frame), *controls,
    ]  # fmt: skip
    return left, top, left + wide, top + high


def _on_canvas(frame: Picture, size: tuple[int, int], place: tuple[int, int, int, int]) -> Picture:
    """A frame that covers a part of its animation's canvas; around it nothing is drawn."""
    if frame.image.size == size:
        return frame
    canvas = Image.new(frame.image.mode, size)
    canvas.paste(frame.image, place[:2])
    frame.image, frame.drawn = canvas, place
    return frame


def _up_to_eight_bits(whole: bytes, chunks: Chunks) -> Picture:
    """By Pillow. whole: the file, where it can have it as it is."""
    kept = [(k, b) for k, b in chunks.kept if k not in _ANIMATION]
    try:
        return _by_pillow(whole or _written(kept), chunks)
    except JobError:
        raise
    except Exception:
        # The same without what Pillow may not understand about a sound image: its text, say.
        bare = [(k, b) for k, b in kept if k in (*_PIXELS, b"tRNS")]
        if len(bare) == len(kept):
            raise
        result = _by_pillow(_written(bare), chunks)
        result.notes.append("metadata that cannot be read ignored")
        return result


def _by_pillow(data: bytes, chunks: Chunks) -> Picture:
    with pillow_reader.opened(data, ("PNG",)) as source:
        result = pillow_reader.loaded(source, data)
        # Pillow leaves zeros where a stream that ends properly has too few rows.
        header = chunks.kept[0][1]
        last = (0, source.height - 1, source.width, source.height)
        is_interlaced = header[12] == 1
        if (is_interlaced or source.crop(last).getbbox() is None) and not _has_all_rows(chunks):
            raise invalid("the PNG image is damaged or cut short: rows are missing")
    return result


def _has_all_rows(chunks: Chunks) -> bool:
    """Whether as many bytes unpack as the header says."""
    expected = sum(part.size for part in _passes(chunks))
    found = 0
    for piece in _unpacked(chunks):
        found += len(piece)
        if found >= expected:
            break
    return found >= expected


@dataclass(frozen=True, slots=True)
class _Pass:
    """One of the smaller images that an interlaced one is made of, or the image itself."""

    rows: slice
    columns: slice
    height: int
    width: int
    size: int  # bytes, with the filter of each row


def _passes(chunks: Chunks) -> Iterator[_Pass]:
    width, height, depth, colour_type, _, _, interlaced = struct.unpack(
        ">IIBBBBB", chunks.kept[0][1]
    )
    bits = depth * _CHANNELS[colour_type]
    for left, top, right, down in _PASSES if interlaced else ((0, 0, 1, 1),):
        wide, high = -(-(width - left) // right), -(-(height - top) // down)
        if wide > 0 and high > 0:
            size = high * (1 + -(-wide * bits // 8))
            yield _Pass(slice(top, None, down), slice(left, None, right), high, wide, size)


def _unpacked(chunks: Chunks) -> Iterator[bytes]:
    """The stream of filtered rows, a part at a time."""
    unpacker = zlib.decompressobj()
    for kind, body in chunks.kept:
        rest: bytes | memoryview = body if kind == b"IDAT" else b""
        while len(rest) and not unpacker.eof:
            yield unpacker.decompress(rest, _UNPACKED)
            rest = unpacker.unconsumed_tail


def _sixteen_bits(chunks: Chunks, colour_type: int, space: ColourSpace | str | None) -> Picture:
    """16 bits, which Pillow holds for gray alone: converted to sRGB before they become 8."""
    pixels = _by_passes(chunks)
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
        image, "PNG", icc=icc, orientation=_orientation(chunks.first(b"eXIf")), notes=notes
    )


def _by_passes(chunks: Chunks) -> NDArray[Any]:
    """(H, W, C) uint16, by libpng from rows that are unpacked here.

    libpng itself unpacks whatever follows the rows, however much it is, and warns of interlacing.
    """
    import imagecodecs  # here, since it takes a while and most PNGs are of 8 bits

    header = bytes(chunks.kept[0][1])
    width, height = struct.unpack(">II", header[:8])
    rows = _rows(chunks)
    out = np.empty((height, width, _CHANNELS[header[9]]), np.uint16)
    start = 0
    for part in _passes(chunks):
        body = zlib.compress(memoryview(rows)[start : start + part.size], 0)
        start += part.size
        smaller = struct.pack(">II", part.width, part.height) + header[8:12] + b"\0"
        pixels = imagecodecs.png_decode(_written([(b"IHDR", smaller), (b"IDAT", body)]))
        if pixels.dtype != np.uint16:
            raise invalid("the PNG image is damaged: its samples are not what its header says")
        out[part.rows, part.columns] = pixels.reshape(part.height, part.width, -1)
    return out


def _rows(chunks: Chunks) -> bytearray:
    """As many bytes as the header says, or fewer."""
    most = sum(part.size for part in _passes(chunks))
    rows, behind = bytearray(), 0
    for piece in _unpacked(chunks):  # to its end, where its checksum is, unless that is far
        behind += max(0, len(rows) + len(piece) - most)
        rows += piece[: most - len(rows)]
        if behind > _UNPACKED:
            break
    return rows


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


def _written(chunks: Iterable[tuple[bytes, bytes | memoryview]]) -> bytes:
    out = io.BytesIO()
    out.write(SIGNATURE)
    for kind, body in (*chunks, (b"IEND", b"")):
        out.write(struct.pack(">I4s", len(body), kind))
        out.write(body)
        out.write(struct.pack(">I", zlib.crc32(body, zlib.crc32(kind))))
    return out.getvalue()
