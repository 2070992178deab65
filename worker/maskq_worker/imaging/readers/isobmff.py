"""Reads the colours of AVIF and HEIC that the primary image's nclx box describes by numbers."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from maskq_worker.imaging import colour_spaces
from maskq_worker.imaging.colour_spaces import ColourSpace

_MOST: Final = 10_000  # boxes and entries that are read


def space_of(data: bytes) -> ColourSpace | str | None:
    """The colour space of the primary item's nclx box; None without one, or for sRGB."""
    try:
        codes = _nclx(data)
    except (struct.error, IndexError, ValueError):
        return None
    if codes is None:
        return None
    found = colour_spaces.by_codes(*codes)
    return None if isinstance(found, ColourSpace) and found.is_srgb() else found


def _nclx(data: bytes) -> tuple[int, int] | None:
    meta = _child(data, 0, len(data), b"meta")
    if meta is None:
        return None
    start, end = meta[0] + 4, meta[1]
    primary = _child(data, start, end, b"pitm")
    properties = _child(data, start, end, b"iprp")
    if primary is None or properties is None:
        return None
    form = ">H" if data[primary[0]] == 0 else ">I"
    (item,) = struct.unpack_from(form, data, primary[0] + 4)
    container = _child(data, *properties, b"ipco")
    if container is None:
        return None
    boxes = list(_boxes(data, *container))
    wanted = _associated(data, properties, item)
    for index in wanted:
        kind, at, stop = boxes[index - 1] if 0 < index <= len(boxes) else (b"", 0, 0)
        if kind == b"colr" and data[at : at + 4] == b"nclx" and stop - at >= 10:
            primaries, transfer = struct.unpack_from(">HH", data, at + 4)
            return primaries, transfer
    return None


def _associated(data: bytes, properties: tuple[int, int], item: int) -> list[int]:
    """Numbers, from 1, of the properties of an item."""
    for kind, at, _ in _boxes(data, *properties):
        if kind != b"ipma":
            continue
        version, wide = data[at], data[at + 3] & 1
        (entries,) = struct.unpack_from(">I", data, at + 4)
        at += 8
        for _ in range(min(entries, _MOST)):
            (number,) = struct.unpack_from(">H" if version < 1 else ">I", data, at)
            at += 2 if version < 1 else 4
            count = data[at]
            form, mask = (">H", 0x7FFF) if wide else (">B", 0x7F)
            step = struct.calcsize(form)
            found = [struct.unpack_from(form, data, at + 1 + i * step)[0] for i in range(count)]
            if number == item:
                return [value & mask for value in found]
            at += 1 + count * step
    return []


def _child(data: bytes, start: int, end: int, kind: bytes) -> tuple[int, int] | None:
    return next(((at, stop) for name, at, stop in _boxes(data, start, end) if name == kind), None)


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """(kind, start and end of the content) of the boxes between two places."""
    for _ in range(_MOST):
        if start + 8 > end:
            return
        size, kind = struct.unpack_from(">I4s", data, start)
        content = start + 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, content)
            content += 8
        stop = start + size if size else end
        if stop <= start or stop > end:
            return
        yield kind, content, stop
        start = stop
