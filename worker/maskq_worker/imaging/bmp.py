"""What a BMP says beside its pixels: colours, and an alpha channel that nobody filled in."""

from __future__ import annotations

import struct
from typing import Final

from maskq_worker.imaging import colour_spaces
from maskq_worker.imaging.colour_spaces import ColourSpace, Primaries
from maskq_worker.imaging.picture import Picture

_V4: Final = 108  # bytes of the header from which colours are described
_CALIBRATED, _EMBEDDED, _LINKED = 0, b"DEBM", b"KNIL"


def describe(result: Picture, data: bytes) -> None:
    """Add to a picture that Pillow has read what Pillow leaves out."""
    if result.image.mode == "RGBA" and result.image.getchannel("A").getextrema() == (0, 0):
        result.image = result.image.convert("RGB")
        result.notes.append("alpha of zero everywhere ignored")
    if len(data) < 14 + _V4 or int.from_bytes(data[14:18], "little") < _V4:
        return
    kind = data[14 + 56 : 14 + 60]
    if kind == _EMBEDDED and len(data) >= 14 + 124:
        start, size = struct.unpack_from("<II", data, 14 + 112)
        result.icc = data[14 + start : 14 + start + size]
    elif kind == _LINKED:
        result.icc = b""
    elif int.from_bytes(kind, "little") == _CALIBRATED:
        space = _calibrated(data)
        if isinstance(space, str):
            result.notes.append(space)
        else:
            result.space = space


def _calibrated(data: bytes) -> ColourSpace | str | None:
    """Three colours in XYZ (2.30 fixed point) and a gamma for each channel (16.16)."""
    endpoints = [value / 2**30 for value in struct.unpack_from("<9i", data, 14 + 60)]
    gammas = [value / 65536 for value in struct.unpack_from("<3I", data, 14 + 96)]
    if not any(endpoints) or not any(gammas):
        return None  # left empty, as most writers do
    colours = [endpoints[i : i + 3] for i in (0, 3, 6)]
    white = [sum(parts) for parts in zip(*colours, strict=True)]
    points = [
        part / sum(xyz) if sum(xyz) else 0.0 for xyz in (white, *colours) for part in xyz[:2]
    ]
    if max(gammas) - min(gammas) > 0.01 or not gammas[0]:
        return "colour information ignored: its channels have different gammas"
    primaries: Primaries = tuple(points)  # type: ignore[assignment]  # four times x and y
    return colour_spaces.by_numbers(1 / gammas[0], primaries)
