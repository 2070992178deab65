"""The samples of one page of a TIFF, decoded strip by strip or tile by tile."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, Final

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

from maskq_worker.imaging.checks import check_size, invalid, too_large
from maskq_worker.imaging.readers import jpeg
from maskq_worker.imaging.readers.jpeg.layout import layout_of as jpeg_layout_of
from maskq_worker.imaging.readers.tiff import fax, lzw

MAX_TILE: Final = 4096 * 4096  # pixels of a tile, where its image is no larger
_MOST_CHANNELS: Final = 32
_SAMPLE_BYTES: Final = 8  # of each accepted pixel that samples may take
_NONE, _CCITT, _LZW, _JPEG, _WEBP, _LERC = 1, (2, 3, 4), 5, (7, 33007), 50001, 34887
_JPEG_2000: Final = (33005, 34712)
# The allow-list of compressions; others are refused by name.
_COMPRESSIONS: Final = {
    _NONE, *_CCITT, _LZW, *_JPEG, 8, 32946, 32773, *_JPEG_2000, _LERC, 50000, _WEBP,
}  # fmt: skip
_NAMES: Final = {
    6: "old-style JPEG", 9: "JBIG", 10: "JBIG", 22610: "JPEG XR", 32766: "NeXT", 32771: "CCITT RLE/W",
    32809: "ThunderScan", 32908: "Pixar film", 32909: "Pixar log", 33003: "Aperio JPEG 2000",
    33004: "JPEG 2000", 34661: "JBIG", 34676: "SGI Log", 34677: "SGI Log24", 34892: "lossy JPEG of DNG",
    34925: "LZMA", 34933: "PNG", 34934: "JPEG XR", 50002: "JPEG XL", 52546: "JPEG XL",
}  # fmt: skip
_WHOLE_IMAGES: Final = (*_JPEG, *_JPEG_2000, _WEBP)  # codecs with a header and a size of their own
_INTEGERS_PREDICTED, _FLOATS_PREDICTED = 2, 3
_KINDS: Final = {
    1: "unsigned",
    2: "signed",
    3: "floating",
    4: "unsigned",
    5: "complex",
    6: "complex",
}
_BITS: Final = {
    "unsigned": {*range(1, 17), 32, 64}, "signed": {8, 16, 32, 64}, "floating": {16, 32, 64},
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Layout:
    width: int
    height: int
    channels: int
    bits: int
    photometric: int
    compression: int
    dtype: np.dtype[Any]
    is_planar: bool
    offsets: tuple[int, ...]  # of strips or tiles
    counts: tuple[int, ...]  # their bytes
    memory: int  # bytes that samples and picture take


def layout_of(page: tifffile.TiffPage, data: bytes, max_pixels: int) -> Layout:
    """What the tags say, checked. Raises PermanentError for what is too large or is not read."""
    width, height = _number(page.imagewidth, "width"), _number(page.imagelength, "height")
    check_size((width, height), max_pixels)
    channels = _number(page.samplesperpixel, "number of samples")
    if not 1 <= channels <= _MOST_CHANNELS:
        raise _unsupported(f"{channels} samples a pixel")
    if page.imagedepth != 1:
        raise _unsupported("a depth (3D)")
    bits, kind = page.bitspersample, _KINDS.get(_sample_format(page), "unknown")
    if not isinstance(bits, int):
        raise _unsupported(f"channels of different depths ({bits})"[:80])
    if bits not in _BITS.get(kind, ()) or page.dtype is None:
        raise _unsupported(f"{kind} samples of {bits} bits")
    planar = _number(page.planarconfig, "planar configuration")
    if planar not in (1, 2):
        raise _damaged(f"its planar configuration is {planar}")
    is_planar = planar == 2 and channels > 1
    compression = _number(page.compression, "compression")
    if compression not in _COMPRESSIONS:
        name = _NAMES.get(compression, f"compression {compression}")
        raise _unsupported(f"{name} compression" if compression in _NAMES else name)
    if compression in _CCITT and (bits, channels) != (1, 1):
        raise _damaged("its compression is for fax and its samples are not")
    if not isinstance(page.photometric, int) or 262 not in page.tags:
        raise _unsupported("no photometric interpretation")
    if compression == _LERC and bits > 8 and page.parent.byteorder == ">":
        raise _unsupported("LERC compression in a big-endian file")  # readers disagree on its order
    _check_predictor(page, compression, kind, bits)
    item = page.dtype.itemsize
    memory = width * height * (channels * (item + 1) + 4)
    if width * height * channels * item > max_pixels * _SAMPLE_BYTES:
        raise too_large(
            f"the image is {width}x{height} px of {channels * item} bytes each; at most "
            f"{max_pixels * _SAMPLE_BYTES} bytes of samples are accepted"
        )
    expected, block = _blocks(page, width, height, channels, is_planar)
    offsets, counts = _segments(page, data, compression, expected, width * height * channels * bits)
    return Layout(
        width, height, channels, bits, int(page.photometric), compression, page.dtype, is_planar,
        offsets, counts, memory + block * item,
    )  # fmt: skip


def read(page: tifffile.TiffPage, data: bytes, layout: Layout) -> NDArray[Any]:
    """(H, W, C). Raises PermanentError for pixels that are missing or damaged."""
    out = np.empty((layout.height, layout.width, layout.channels), layout.dtype)
    tables = page.jpegtables if layout.compression in _JPEG else None
    is_turned = layout.compression == _LZW and page.fillorder == 2
    if layout.compression == _LZW:  # unpacked here, so that tifffile takes it for raw
        page.compression, page.fillorder = _NONE, 1
    for index, (start, count) in enumerate(zip(layout.offsets, layout.counts, strict=True)):
        body = data[start : start + count]
        if layout.compression in _WHOLE_IMAGES or layout.compression == _LERC:
            _check_inner(body, page, layout, tables)
        if layout.compression == _LZW:
            coded = bytes(imagecodecs.bitorder_decode(body)) if is_turned else body
            body = lzw.unpacked(coded, _packed_size(page, layout, index))
        options = {"jpegtables": tables} if layout.compression in _JPEG else {}
        block, (plane, _, top, left, _), _ = page.decode(body, index, **options)
        if block is None:
            raise _damaged("a strip or tile is missing")
        part = block[0, : layout.height - top, : layout.width - left]
        rows, columns = part.shape[:2]
        if layout.dtype == np.bool_:
            part = part != 0
        if layout.compression in _CCITT and not _is_whole_fax(body, part, page, layout):
            raise _damaged(
                "the last rows of a fax-coded strip are missing or blank, one cannot tell"
            )
        if part.dtype != layout.dtype:
            raise _damaged(f"its samples are {part.dtype} where its tags say {layout.dtype}")
        place = out[top : top + rows, left : left + columns]
        if layout.is_planar:
            place[..., plane] = part[..., 0]
        else:
            place[...] = part
    return out


def _packed_size(page: tifffile.TiffPage, layout: Layout, index: int) -> int:
    """Bytes of a strip or tile before it was compressed; the last strip may have fewer rows."""
    width, rows = layout.width, min(page.rowsperstrip, layout.height)
    if page.is_tiled:
        width, rows = page.tilewidth, page.tilelength
    else:
        top = index * rows % (-(-layout.height // rows) * rows)
        rows = min(rows, layout.height - top)
    samples = width * (1 if layout.is_planar else layout.channels)
    return rows * -(-samples * layout.bits // 8)


def _is_whole_fax(
    body: bytes, block: NDArray[Any], page: tifffile.TiffPage, layout: Layout
) -> bool:
    coded = bytes(imagecodecs.bitorder_decode(body)) if page.fillorder == 2 else body
    return fax.holds_all_rows(coded, block[..., 0], layout.compression)


def _blocks(
    page: tifffile.TiffPage, width: int, height: int, channels: int, is_planar: bool
) -> tuple[int, int]:
    """How many strips or tiles there must be, and the samples of the largest one."""
    if page.is_tiled:
        wide, high = _number(page.tilewidth, "tile width"), _number(page.tilelength, "tile length")
        if page.tiledepth != 1:
            raise _unsupported("tiles with a depth (3D)")
        if wide < 1 or high < 1:
            raise _damaged("its tiles have no size")
        if wide * high > max(2 * width * height, MAX_TILE):
            raise too_large(f"the image is {width}x{height} px, but in tiles of {wide}x{high}")
    else:
        wide, high = width, min(_number(page.rowsperstrip, "rows per strip"), height)
        if high < 1:
            raise _damaged("its strips have no rows")
    count = -(-width // wide) * -(-height // high) * (channels if is_planar else 1)
    return count, wide * high * (1 if is_planar else channels)


def _segments(
    page: tifffile.TiffPage, data: bytes, compression: int, expected: int, bits: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    offsets = page.tags.valueof(324 if page.is_tiled else 273)
    counts = page.tags.valueof(325 if page.is_tiled else 279)
    if counts is None and compression == _NONE and expected == 1:
        counts = (-(-bits // 8),)  # as some old writers leave it
    found = [
        (value,) if isinstance(value, int) else tuple(int(one) for one in value)
        for value in (offsets, counts)
        if value is not None
    ]
    if len(found) != 2 or not len(found[0]) == len(found[1]) == expected:
        numbers = "/".join(str(len(one)) for one in found) or "no"
        raise _damaged(f"it has {numbers} strips or tiles where its size needs {expected}")
    for start, count in zip(*found, strict=True):
        if start == 0 or count == 0:
            raise _unsupported("strips or tiles that are left out (a sparse file)")
        if start < 0 or count < 0 or start + count > len(data):
            raise _damaged("its pixels end behind the file")
    return found[0], found[1]


def _check_predictor(page: tifffile.TiffPage, compression: int, kind: str, bits: int) -> None:
    predictor = page.predictor
    if predictor == 1 or compression in (*_WHOLE_IMAGES, *_CCITT, _LERC):
        return
    if predictor == _INTEGERS_PREDICTED and kind != "floating" and bits in (8, 16, 32, 64):
        return
    if predictor == _FLOATS_PREDICTED and kind == "floating":
        return
    raise _unsupported(f"predictor {predictor} for {kind} samples of {bits} bits"[:80])


def _check_inner(
    body: bytes, page: tifffile.TiffPage, layout: Layout, tables: bytes | None
) -> None:
    """Raises PermanentError where a codec's own header says more than the strip or tile holds."""
    if page.is_tiled:
        most = page.tilewidth * page.tilelength
    else:
        most = layout.width * min(page.rowsperstrip, layout.height)
    if layout.compression in _JPEG:
        whole = tables[:-2] + body[2:] if tables else body
        inner = jpeg_layout_of(whole)
        jpeg.check_process(inner)
        width, height, channels = inner.width, inner.height, len(inner.components)
    elif layout.compression in _JPEG_2000:
        width, height, channels = _size_of_jpeg_2000(body)
    elif layout.compression == _WEBP:
        width, height, channels = _size_of_webp(body)
    else:
        width, height, channels = _size_of_lerc(body)
    if width * height > most or channels > layout.channels:
        raise _damaged(f"a strip or tile is {width}x{height} px by its own header")
    if layout.compression in _JPEG:
        jpeg.check_pixels(whole, inner)


def _size_of_jpeg_2000(body: bytes) -> tuple[int, int, int]:
    at = body.find(b"\xff\x4f\xff\x51", 0, 4096)
    if at < 0 or len(body) < at + 42:
        raise _damaged("a JPEG 2000 strip or tile has no header")
    right, bottom, left, top = struct.unpack_from(">4I", body, at + 8)
    return right - left, bottom - top, int.from_bytes(body[at + 40 : at + 42], "big")


def _size_of_webp(body: bytes) -> tuple[int, int, int]:
    kind = body[12:16]
    if kind == b"VP8 " and len(body) >= 30:
        width, height = struct.unpack_from("<HH", body, 26)
        return width & 0x3FFF, height & 0x3FFF, 3
    if kind == b"VP8L" and len(body) >= 25:
        (bits,) = struct.unpack_from("<I", body, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, 3
    if kind == b"VP8X" and len(body) >= 30:
        sides = [int.from_bytes(body[at : at + 3], "little") + 1 for at in (24, 27)]
        return sides[0], sides[1], 3
    raise _damaged("a WebP strip or tile has no header")


def _size_of_lerc(body: bytes) -> tuple[int, int, int]:
    if not body.startswith(b"Lerc2 ") or len(body) < 30:
        raise _unsupported("LERC compression of this version, or with another one around it")
    version = int.from_bytes(body[6:10], "little")
    at = 14 if version >= 3 else 10
    rows, columns = struct.unpack_from("<ii", body, at)
    channels = struct.unpack_from("<i", body, at + 8)[0] if version >= 4 else 1
    return columns, rows, channels


def _sample_format(page: tifffile.TiffPage) -> int:
    value = page.sampleformat
    return int(value) if isinstance(value, int) else 0


def _number(value: Any, what: str) -> int:
    if not isinstance(value, int):
        raise _damaged(f"its {what} is not a whole number")
    return int(value)


def _damaged(what: str) -> Exception:
    return invalid(f"the TIFF image is damaged or cut short: {what}")


def _unsupported(what: str) -> Exception:
    return invalid(f"the TIFF image has {what}, which is not supported")
