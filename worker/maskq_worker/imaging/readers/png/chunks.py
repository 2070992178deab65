"""The chunks of a PNG file: which of them are sound, and the rows that they hold."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from maskq_worker.imaging.checks import invalid

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
PIXELS: Final = (b"IHDR", b"PLTE", b"IDAT")
ANIMATION: Final = (b"acTL", b"fcTL", b"fdAT")
CHANNELS: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
_LENGTHS: Final = {b"pHYs": 9, b"tIME": 7, b"gAMA": 4, b"cHRM": 32, b"sRGB": 1, b"cICP": 4}
_BEFORE_PIXELS: Final = (b"PLTE", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"cICP", b"iCCP")
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
        animated = any(kind in ANIMATION for kind, _ in self.kept)
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
        if kind in PIXELS and not is_sound:
            raise invalid(f"the PNG image is damaged: its {kind.decode()} chunk fails its checksum")
        is_late = has_pixels and kind in _BEFORE_PIXELS
        if is_sound and not is_late:
            chunks.kept.append((kind, body))
        elif position <= len(data):
            chunks.damaged.append(kind.decode())
    return chunks


def drop_malformed_transparency(chunks: Chunks, colour_type: int) -> None:
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


def first_frame(chunks: Chunks, width: int, height: int) -> tuple[int, int, int, int] | None:
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
    others = [(k, b) for k, b in chunks.kept[1:] if k not in (b"IDAT", *ANIMATION)]
    controls = [(k, b) for k, b in chunks.kept if k in (b"acTL", b"fcTL")]
    chunks.kept = [
        (b"IHDR", memoryview(header)), *others, *((b"IDAT", body) for body in frame), *controls,
    ]  # fmt: skip
    return left, top, left + wide, top + high


def has_all_rows(chunks: Chunks) -> bool:
    """Whether as many bytes unpack as the header says."""
    expected = sum(part.size for part in passes(chunks))
    found = 0
    for piece in unpacked(chunks):
        found += len(piece)
        if found >= expected:
            break
    return found >= expected


@dataclass(frozen=True, slots=True)
class Pass:
    """One of the smaller images that an interlaced one is made of, or the image itself."""

    rows: slice
    columns: slice
    height: int
    width: int
    size: int  # bytes, with the filter of each row


def passes(chunks: Chunks) -> Iterator[Pass]:
    width, height, depth, colour_type, _, _, interlaced = struct.unpack(
        ">IIBBBBB", chunks.kept[0][1]
    )
    bits = depth * CHANNELS[colour_type]
    for left, top, right, down in _PASSES if interlaced else ((0, 0, 1, 1),):
        wide, high = -(-(width - left) // right), -(-(height - top) // down)
        if wide > 0 and high > 0:
            size = high * (1 + -(-wide * bits // 8))
            yield Pass(slice(top, None, down), slice(left, None, right), high, wide, size)


def unpacked(chunks: Chunks) -> Iterator[bytes]:
    """The stream of filtered rows, a part at a time."""
    unpacker = zlib.decompressobj()
    for kind, body in chunks.kept:
        rest: bytes | memoryview = body if kind == b"IDAT" else b""
        while len(rest) and not unpacker.eof:
            yield unpacker.decompress(rest, _UNPACKED)
            rest = unpacker.unconsumed_tail


def rows_of(chunks: Chunks) -> bytearray:
    """As many bytes as the header says, or fewer."""
    most = sum(part.size for part in passes(chunks))
    rows, behind = bytearray(), 0
    for piece in unpacked(chunks):  # to its end, where its checksum is, unless that is far
        behind += max(0, len(rows) + len(piece) - most)
        rows += piece[: most - len(rows)]
        if behind > _UNPACKED:
            break
    return rows


def written(chunks: Iterable[tuple[bytes, bytes | memoryview]]) -> bytes:
    out = io.BytesIO()
    out.write(SIGNATURE)
    for kind, body in (*chunks, (b"IEND", b"")):
        out.write(struct.pack(">I4s", len(body), kind))
        out.write(body)
        out.write(struct.pack(">I", zlib.crc32(body, zlib.crc32(kind))))
    return out.getvalue()
