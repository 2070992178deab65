"""Converts colours that a file describes by numbers instead of a profile to sRGB.

PNG describes them in gAMA, cHRM and cICP, AVIF and HEIC in an nclx box, BMP in its header. The codes
are those of ITU-T H.273.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from maskq_worker.imaging.samples import rows

Linear = Callable[[NDArray[Any]], NDArray[Any]]  # samples 0..1 to light, where 1 is white
Primaries = tuple[float, ...]  # x and y of white, red, green and blue: eight numbers

SDR_WHITE: Final = 203.0  # cd/m², the reference white of HDR (ITU-R BT.2408)
SAME: Final = 2  # levels; colours that differ by no more count as sRGB
_D65: Final = (0.3127, 0.3290)
_SRGB_PRIMARIES: Final[Primaries] = (*_D65, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
_PRIMARIES: Final[dict[int, tuple[str, Primaries]]] = {
    1: ("BT.709", _SRGB_PRIMARIES),
    4: ("BT.470 M", (0.310, 0.316, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08)),
    5: ("BT.601 (625 lines)", (*_D65, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06)),
    6: ("BT.601 (525 lines)", (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070)),
    7: ("SMPTE 240M", (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070)),
    8: ("generic film", (0.310, 0.316, 0.681, 0.319, 0.243, 0.692, 0.145, 0.049)),
    9: ("BT.2020", (*_D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046)),
    11: ("DCI-P3", (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060)),
    12: ("Display P3", (*_D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060)),
    22: ("EBU Tech 3213", (*_D65, 0.630, 0.340, 0.295, 0.605, 0.155, 0.077)),
}
ADOBE_RGB: Final[Primaries] = (*_D65, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
_UNSPECIFIED: Final = (0, 2)


def srgb_to_linear(values: NDArray[Any]) -> NDArray[Any]:
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def _pq(values: NDArray[Any]) -> NDArray[Any]:
    power = values ** (32 / 2523)
    light = np.maximum(power - 3424 / 4096, 0) / (2413 / 128 - 2392 / 128 * power)
    return light ** (8192 / 1305) * (10_000 / SDR_WHITE)


def _hlg(values: NDArray[Any]) -> NDArray[Any]:
    """Light of the scene; `_hlg_shown` makes it that of a screen."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(values <= 0.5, values**2 / 3, (np.exp((values - c) / a) + b) / 12)


def _gamma(value: float) -> Linear:
    return lambda values: values**value


_TRANSFERS: Final[dict[int, tuple[str, Linear]]] = {
    # Viewers show the camera curves of BT.709, BT.601 and BT.2020 by sRGB's.
    **dict.fromkeys((1, 6, 13, 14, 15), ("", srgb_to_linear)),
    4: (" of gamma 2.2", _gamma(2.2)),
    5: (" of gamma 2.8", _gamma(2.8)),
    8: (" of linear light", _gamma(1.0)),
    16: (" PQ", _pq),
    18: (" HLG", _hlg),
}


@dataclass(frozen=True, slots=True)
class ColourSpace:
    name: str  # as a note says it
    primaries: Primaries
    to_linear: Linear
    is_scene: bool = False  # HLG: brightness depends on all three samples

    @property
    def note(self) -> str:
        clipped = f", white at {SDR_WHITE:.0f} cd/m²" if self.is_hdr else ""
        return f"converted from {self.name} to sRGB{clipped}"

    @property
    def is_hdr(self) -> bool:
        return self.to_linear in (_pq, _hlg)

    def is_srgb(self) -> bool:
        """By what becomes of a few colours."""
        levels = np.array(np.meshgrid(*[np.arange(0, 256, 51)] * 3), dtype=np.uint8)
        probe = levels.reshape(3, 1, -1).transpose(1, 2, 0)
        return bool(np.abs(self.to_srgb(probe).astype(int) - probe).max() <= SAME)

    def to_srgb(self, samples: NDArray[Any]) -> NDArray[np.uint8]:
        """(H, W, 1 or 3) of uint8 or uint16 to (H, W, same) uint8."""
        most = np.iinfo(samples.dtype).max
        linear = self.to_linear(np.arange(most + 1) / most).astype(np.float32)
        matrix = _matrix(self.primaries).T.astype(np.float32)
        out = np.empty(samples.shape, np.uint8)
        for part in rows(samples):
            light = linear[samples[part]]
            if self.is_scene:
                light = _hlg_shown(light)
            if samples.shape[2] == 3:
                light = light @ matrix
            out[part] = _encoding()[(light.clip(0, 1) * 65535 + 0.5).astype(np.uint16)]
        return out


def by_codes(primaries: int, transfer: int) -> ColourSpace | str:
    """What H.273's codes mean, or the note that they are not known.

    Raises nothing; codes that say 'unspecified' mean sRGB.
    """
    primaries = 1 if primaries in _UNSPECIFIED else primaries
    transfer = 13 if transfer in _UNSPECIFIED else transfer
    if primaries not in _PRIMARIES or transfer not in _TRANSFERS:
        return f"colours taken as sRGB: code {primaries}/{transfer} of H.273 is not supported"
    name, points = _PRIMARIES[primaries]
    curve, linear = _TRANSFERS[transfer]
    return ColourSpace(name + curve, points, linear, is_scene=linear is _hlg)


def by_numbers(gamma: float | None, primaries: Primaries | None) -> ColourSpace | str:
    """Of a PNG's gAMA (the exponent of the encoding, 0.45455 as usual) and cHRM, or why it is left.

    An exponent within 5 % of sRGB's counts as sRGB's own curve, as in libpng.
    """
    linear: Linear = srgb_to_linear
    said = []
    if gamma is not None:
        if not 0.05 <= gamma <= 10:
            return "colour information ignored: its gamma is out of range"
        if abs(gamma * 2.2 - 1) > 0.05:
            linear = _gamma(1 / gamma)
            said.append("linear light" if gamma == 1 else f"gamma {1 / gamma:.3g}")
    if primaries is not None:
        try:
            matrix = _matrix(primaries)
        except (np.linalg.LinAlgError, ZeroDivisionError):
            return "colour information ignored: its primaries are no colours"
        if not np.isfinite(matrix).all() or np.abs(matrix).max() > 100:
            return "colour information ignored: its primaries are no colours"
        if np.abs(matrix - np.eye(3)).max() > 0.01:
            said.append("other primaries")
    name = " and ".join(said) or "sRGB"
    return ColourSpace(name, primaries or _SRGB_PRIMARIES, linear)


def adobe_rgb() -> ColourSpace:
    """Of cameras that say it by EXIF and embed no profile."""
    return ColourSpace("Adobe RGB", ADOBE_RGB, _gamma(563 / 256))


def _hlg_shown(scene: NDArray[Any]) -> NDArray[Any]:
    """The system gamma of a screen of 1000 cd/m² (ITU-R BT.2100), then relative to SDR's white."""
    if scene.shape[2] == 3:
        luminance = scene @ np.array([0.2627, 0.6780, 0.0593], np.float32)
    else:
        luminance = scene[..., 0]
    return scene * (np.maximum(luminance, 1e-6) ** 0.2)[..., np.newaxis] * (1000 / SDR_WHITE)


@cache
def _encoding() -> NDArray[np.uint8]:
    light = np.arange(65536) / 65535
    curve = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return (curve * 255).round().astype(np.uint8)


@lru_cache(maxsize=32)
def _matrix(primaries: Primaries) -> NDArray[np.float64]:
    """Linear RGB of `primaries` to linear sRGB; other whites are adapted (Bradford)."""
    ours, theirs = _to_xyz(_SRGB_PRIMARIES), _to_xyz(primaries)
    bradford = np.array(
        [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
    )
    gain = (bradford @ ours.sum(axis=1)) / (bradford @ theirs.sum(axis=1))
    adapted = np.linalg.inv(bradford) @ np.diag(gain) @ bradford @ theirs
    return np.linalg.inv(ours) @ adapted


def _to_xyz(primaries: Primaries) -> NDArray[np.float64]:
    pairs = zip(primaries[::2], primaries[1::2], strict=True)
    points = np.array([(x / y, 1.0, (1 - x - y) / y) for x, y in pairs])
    return points[1:].T * np.linalg.solve(points[1:].T, points[0])
