"""The markers of a JPEG: its size, its scans and where the image ends, without decoding it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

_SOI, _EOI, _SOS, _DHT = 0xD8, 0xD9, 0xDA, 0xC4
_FRAMES: Final = {*range(0xC0, 0xD0)} - {_DHT, 0xC8, 0xCC}
_ALONE: Final = {0x01, _SOI, *range(0xD0, 0xD8)}  # markers without a length
# In coded pixels: anything but a stuffed FF, a restart and a filling FF.
_NEXT_MARKER: Final = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_HOLE: Final = bytes(64)
_HUFFMAN: Final = (0xC0, 0xC1, 0xC2)
_COEFFICIENTS: Final = 64


@dataclass(slots=True)
class Scan:
    start: int  # of the coded pixels
    end: int
    parameters: int  # where the last three bytes of its header are
    components: tuple[int, ...]
    spectrum: tuple[int, int]  # first and last coefficient
    precision: int  # the bit down to which coefficients are given, 0: all
    has_hole: bool  # zeros that no encoder writes with these tables


@dataclass(slots=True)
class Layout:
    process: int = 0  # of SOF: 0xC0 baseline, 0xC2 progressive, …
    precision: int = 8  # bits
    width: int = 0
    height: int = 0
    components: tuple[int, ...] = ()
    step: int = 8  # rows that are coded together
    size_at: int = 0  # where the header says the height
    scans: list[Scan] = field(default_factory=list)
    segments: list[tuple[int, int, int]] = field(default_factory=list)  # marker, start, end
    end: int | None = None  # behind EOI; None if there is none

    @property
    def is_progressive(self) -> bool:
        return self.process in (0xC2, 0xC6, 0xCA, 0xCE)

    @property
    def missing_components(self) -> int:
        """Components of which not even the mean of each block is given."""
        given = {c for scan in self.scans if scan.spectrum[0] == 0 for c in scan.components}
        return len(set(self.components) - given)

    @property
    def is_coarse(self) -> bool:
        """Whether a progressive image lacks its last scans."""
        if not self.is_progressive:
            return False
        left = {(c, k): 99 for c in self.components for k in range(_COEFFICIENTS)}
        for scan in self.scans:
            for component in scan.components:
                for k in range(scan.spectrum[0], scan.spectrum[1] + 1):
                    left[component, k] = scan.precision
        return any(left.values())

    def bare(self, data: bytes) -> bytes:
        """The image without metadata and with scan headers as the standard has them.

        For a decoder that would warn of these first and of nothing after.
        """
        out = bytearray(b"\xff\xd8")
        for marker, start, end in self.segments:
            if not (0xE0 <= marker <= 0xEF or marker == 0xFE):
                at = len(out)
                out += data[start:end]
                scan = next((s for s in self.scans if start <= s.parameters < end), None)
                if scan and not self.is_progressive:
                    where = at + scan.parameters - start
                    out[where : where + 3] = b"\x00\x3f\x00"
        return bytes(out + b"\xff\xd9")


def layout_of(data: bytes) -> Layout:
    """Reads until EOI or the end of `data`. Without a JPEG the layout has no size."""
    layout, position = Layout(), 2
    zero_codes: dict[int, int] = {}  # what a code of nothing but zeros means, by table
    while (start := data.find(b"\xff", position)) >= 0:
        position = start + 1
        while data[position : position + 1] == b"\xff":
            position += 1
        if position >= len(data):
            break
        marker = data[position]
        position += 1
        if marker == _EOI:
            layout.end = position
            break
        if marker in _ALONE or marker == 0:
            continue
        length = int.from_bytes(data[position : position + 2], "big")
        if length < 2 or position + length > len(data):
            break
        body, end = data[position + 2 : position + length], position + length
        if marker in _FRAMES and not layout.process and len(body) >= 6:
            layout.process, layout.precision = marker, body[0]
            layout.height, layout.width = (int.from_bytes(body[i : i + 2], "big") for i in (1, 3))
            layout.components = tuple(body[6 : 6 + 3 * body[5] : 3])
            layout.step = 8 * max(1, *(part & 15 for part in body[7 : 6 + 3 * body[5] : 3]), 1)
            layout.size_at = position + 3
        elif marker == _DHT:
            _note_tables(body, zero_codes)
        elif marker == _SOS and len(body) >= 4:
            found = _NEXT_MARKER.search(data, end)
            scan = _scan(body, end, found.start() if found else len(data))
            if layout.process in _HUFFMAN:
                scan.has_hole = _has_hole(data, scan, body, zero_codes)
            layout.scans.append(scan)
            end = scan.end
        layout.segments.append((marker, start, end))
        position = end
    return layout


def _scan(body: bytes, start: int, end: int) -> Scan:
    count = body[0]
    return Scan(
        start, end, start - 3, tuple(body[1 : 1 + 2 * count : 2]),
        (body[-3], min(body[-2], _COEFFICIENTS - 1)),
        body[-1] & 15, has_hole=False,
    )  # fmt: skip


def _note_tables(body: bytes, zero_codes: dict[int, int]) -> None:
    while len(body) > 17:
        values = sum(body[1:17])
        if not values or 17 + values > len(body):
            return
        zero_codes[body[0]] = body[17]  # the first value of a table has the code of zeros
        body = body[17 + values :]


def _has_hole(data: bytes, scan: Scan, body: bytes, zero_codes: dict[int, int]) -> bool:
    """Zeros in the coded pixels where they do not mean 'as before, nothing else'.

    With tables made for the image a plain area may be all zeros; with the usual ones it is not. Zeros
    at the very end of a file without EOI are not looked at: without them pixels are missing, or not.
    """
    end = scan.end if scan.end < len(data) else len(data.rstrip(b"\0"))
    if data.find(_HOLE, scan.start, end) < 0 or body[-1] >> 4:  # a scan that refines has raw bits
        return False
    first, last = scan.spectrum
    tables = body[2 : 2 + 2 * body[0] : 2]
    return any(
        (first == 0 and zero_codes.get(table >> 4, 1) != 0)
        or (last > 0 and zero_codes.get(0x10 | table & 15, 1) & 15 != 0)
        for table in tables
    )
