"""What lies behind the ground: sky with clouds, mountains in haze, a far line of trees."""

from __future__ import annotations

import numpy as np

from demo_scenes.canvas import MOUNTAIN, SKY, TREE, Canvas, grid
from demo_scenes.textures import Field, hsv, noise, skyline
from demo_scenes.weather import Weather


def sky(canvas: Canvas, rng: np.random.Generator, weather: Weather, horizon: float) -> None:
    """Fills the canvas down to `horizon` (px): gradient, sun and its glow, stretched clouds."""
    rows = int(horizon) + 2
    box = (0, min(rows, canvas.height), 0, canvas.width)
    y, x = grid(box)
    depth = np.clip(y / horizon, 0, 1)[..., None] ** 1.25
    colour = weather.zenith + (weather.horizon - weather.zenith) * depth
    colour = np.broadcast_to(colour, (box[1], canvas.width, 3)).copy()
    sun_x, sun_y = weather.sun[0] * canvas.width, weather.sun[1] * canvas.height
    away = np.hypot(x - sun_x, y - sun_y) / canvas.height
    halo = weather.glow * np.exp(-away / 0.13)
    colour += halo[..., None] * (np.array([1.0, 0.9, 0.7], np.float32) - colour) * 0.8
    if weather.glow > 0.15:
        disc = np.clip((0.032 - away) * canvas.height + 0.5, 0, 1)
        colour += disc[..., None] * (np.array([1.0, 0.97, 0.88], np.float32) - colour)
    billow = noise(rng, (box[1], canvas.width), (rng.uniform(110, 180), rng.uniform(90, 150)), 1.7)
    cover = np.clip((billow + weather.cloudiness - 0.3) * 0.75, 0, 1)
    cover = cover * cover * (3 - 2 * cover) * np.clip(1.25 - 0.6 * y / horizon, 0, 1)
    relief = np.clip(0.93 + 0.09 * billow, 0.75, 1.1)[..., None]
    colour += (weather.cloud * relief - colour) * (0.85 * cover)[..., None]
    canvas.paint(box, np.ones((box[1], canvas.width), np.float32), colour, SKY)


def mountains(
    canvas: Canvas, rng: np.random.Generator, weather: Weather, horizon: float, ridges: int
) -> None:
    """Ridges from far to near, each less hazy; lit and shaded flanks, snow on the highest."""
    base = hsv(rng.choice([0.07, 0.58, 0.62, 0.66, 0.7, 0.75]), rng.uniform(0.12, 0.4), 1.0)
    height = rng.uniform(0.16, 0.3)
    snowy = rng.uniform() < 0.45
    for index in range(ridges):
        near = (index + 1) / ridges
        top = height * (1.0 - 0.52 * index / max(ridges, 1))
        _ridge(canvas, rng, weather, horizon, top, near, base, snowy and index == 0)


def _ridge(
    canvas: Canvas,
    rng: np.random.Generator,
    weather: Weather,
    horizon: float,
    height: float,
    near: float,
    base: Field,
    snowy: bool,
) -> None:
    """One ridge of `height` (share of the picture); `near` 0..1 takes away its haze."""
    columns = np.arange(canvas.width, dtype=np.float32) / canvas.height
    line = skyline(rng, columns * rng.uniform(1.6, 2.8) + rng.uniform(0, 50), 7, 0.48)
    crest = horizon - canvas.height * height * np.clip(0.62 + 0.42 * line, 0.12, 1.3)
    box = (max(int(crest.min()) - 1, 0), min(int(horizon) + 2, canvas.height), 0, canvas.width)
    y, _ = grid(box)
    shape = (box[1] - box[0], canvas.width)
    below = (y - crest) / canvas.height
    # Folds that run down the flanks: noise stretched along the slope reads as rock.
    span = (shape[0] / canvas.height * 150, canvas.width / canvas.height * 260)
    folds = noise(rng, shape, span, 1.5)
    lit = np.clip(0.5 + 0.42 * _flanks(crest, below, canvas.height) * weather.from_left, 0, 1)
    lit = np.clip(lit + 0.24 * folds, 0, 1)
    lit = lit[..., None]
    colour = base * 0.62 * (weather.shade * 0.62 + (weather.light - weather.shade * 0.62) * lit)
    if snowy:
        snow = np.clip((0.075 + 0.022 * folds - below) * 60, 0, 1)[..., None]
        colour += (
            np.float32(0.95) * (weather.shade + (weather.light - weather.shade) * lit) - colour
        ) * snow
    haze = (0.55 - 0.4 * near) + 0.25 * np.clip(below / max(height, 0.05), 0, 1)
    mist = weather.horizon * 0.6 + weather.zenith * 0.4
    colour += (mist - colour) * haze[..., None]
    canvas.paint(box, np.clip(y - crest + 0.5, 0, 1), colour, MOUNTAIN)


def _flanks(crest: Field, below: Field, height: int) -> Field:
    """Which way the ground faces, -1..1 (h, w): the crest's slope, carried down aslant.

    Reading it aside by the depth below the crest turns what would be vertical bars into spurs.
    """
    width = max(height // 60, 1)
    kernel = np.ones(2 * width + 1, dtype=np.float32) / (2 * width + 1)
    smooth = np.convolve(np.pad(crest, width, mode="edge"), kernel, mode="valid")
    slope = np.tanh(-2.2 * np.gradient(smooth)).astype(np.float32)
    spur = np.sign(slope) * 0.35 * np.maximum(below, 0) * height
    column = np.clip(np.arange(crest.size) + spur, 0, crest.size - 1).astype(np.int32)
    return slope[column]


def treeline(
    canvas: Canvas, rng: np.random.Generator, weather: Weather, horizon: float, hue: float
) -> None:
    """A far wood along the horizon: bumpy crowns of one hue."""
    columns = np.arange(canvas.width, dtype=np.float32) / canvas.height
    broad = skyline(rng, columns * 1.5 + rng.uniform(0, 50), 3, 0.5)
    crowns = np.abs(skyline(rng, columns * 13 + rng.uniform(0, 50), 2, 0.6))
    height = rng.uniform(0.05, 0.085) * (1 + 0.35 * broad) + 0.03 * crowns
    crest = horizon - canvas.height * np.maximum(height, 0.03)
    bottom = min(int(horizon + 0.012 * canvas.height) + 1, canvas.height)
    box = (max(int(crest.min()) - 1, 0), bottom, 0, canvas.width)
    y, _ = grid(box)
    shape = (box[1] - box[0], canvas.width)
    span = (shape[0] / canvas.height * 300, canvas.width / canvas.height * 300)
    leaves = noise(rng, shape, span, 1.0)
    depth = np.clip((y - crest) / canvas.height / 0.09, 0, 1)
    lit = np.clip(0.75 - 0.75 * depth + 0.28 * leaves, 0, 1)[..., None]
    albedo = hsv(hue, rng.uniform(0.35, 0.6), rng.uniform(0.36, 0.52))
    colour = albedo * (weather.shade * 0.5 + (weather.light - weather.shade * 0.5) * lit)
    colour += (weather.horizon - colour) * 0.16
    canvas.paint(box, np.clip(y - crest + 0.5, 0, 1), colour, TREE)
