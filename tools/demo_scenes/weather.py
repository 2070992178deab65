"""Time of day: the sky's colours, the light on things and where the sun stands."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from demo_scenes.textures import Field, hsv, rgb


@dataclass(frozen=True)
class Weather:
    """Colours are RGB (3,) in 0..1; `sun` is the sun's place, x and y as shares of the picture."""

    zenith: Field
    horizon: Field
    light: Field
    shade: Field
    cloud: Field
    cloudiness: float
    sun: tuple[float, float]
    glow: float
    lamps: float

    @property
    def from_left(self) -> float:
        """1 when the light falls from the left, -1 from the right."""
        return 1.0 if self.sun[0] < 0.5 else -1.0


# zenith, horizon, direct light, ambient light, cloud, glow round the sun, lit windows
_HOURS = (
    ("day", (64, 124, 200), (188, 216, 238), (1.02, 1.0, 0.94), 0.52, (250, 250, 250), 0.2, 0.02),
    ("noon", (40, 104, 176), (160, 205, 226), (1.08, 1.05, 0.98), 0.5, (245, 248, 252), 0.1, 0.0),
    ("golden", (92, 118, 168), (252, 196, 128), (1.1, 0.92, 0.76), 0.5, (255, 214, 170), 0.9, 0.2),
    ("dusk", (58, 50, 110), (232, 150, 130), (0.9, 0.76, 0.76), 0.55, (240, 140, 130), 0.8, 0.5),
    ("rose", (120, 120, 170), (246, 196, 190), (0.95, 0.8, 0.82), 0.6, (252, 216, 214), 0.6, 0.3),
    ("overcast", (140, 148, 156), (206, 210, 212), (0.82, 0.84, 0.86), 0.68, (176, 182, 188), 0, 0.1),
    ("mint", (86, 156, 160), (240, 222, 188), (0.98, 0.96, 0.82), 0.52, (250, 240, 220), 0.5, 0.05),
    ("night", (20, 30, 70), (76, 96, 142), (0.6, 0.64, 0.78), 0.6, (70, 84, 122), 0.3, 0.75),
    ("sand", (150, 128, 98), (226, 200, 150), (1.0, 0.92, 0.8), 0.6, (224, 196, 150), 0.5, 0.05),
)  # fmt: skip


def weather(rng: np.random.Generator) -> Weather:
    """One of the hours, with its colours moved a little."""
    weights = np.array([3, 2, 3, 1, 1, 2, 1.5, 0.8, 0.7])
    hour = _HOURS[int(rng.choice(len(_HOURS), p=weights / weights.sum()))]
    _, zenith, horizon, light, ambient, cloud, glow, lamps = hour
    drift = hsv(rng.uniform(), rng.uniform(0, 0.08), 1.0)
    drift = drift / drift.mean()
    direct = np.array(light, dtype=np.float32) * np.float32(rng.uniform(0.88, 1.08))
    side = rng.choice([-1, 1])
    return Weather(
        zenith=rgb(*zenith) * drift,
        horizon=rgb(*horizon) * (0.5 + 0.5 * drift),
        light=direct * (0.6 + 0.4 * drift),
        shade=direct * ambient * (0.7 * rgb(*zenith) / rgb(*zenith).mean() * 0.35 + 0.755),
        cloud=rgb(*cloud) * (0.7 + 0.3 * drift),
        cloudiness=float(rng.uniform(-0.6, 1.0)),
        sun=(float(0.5 + side * rng.uniform(0.12, 0.42)), float(rng.uniform(0.08, 0.34))),
        glow=float(glow),
        lamps=float(lamps),
    )
