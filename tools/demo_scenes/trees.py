"""Trees: broadleaved, conifers and poplars, lit from the sun's side, with their shadows."""

from __future__ import annotations

import numpy as np

from demo_scenes.canvas import TREE, Box, Canvas, convex_cover, grid
from demo_scenes.ground import View
from demo_scenes.textures import Field, hsv, noise
from demo_scenes.weather import Weather

# Green, olive, yellow, orange, red, blossom, blue-green and violet foliage.
HUES = (0.27, 0.3, 0.33, 0.36, 0.39, 0.03, 0.97, 0.3, 0.34)


def tree(
    canvas: Canvas,
    rng: np.random.Generator,
    weather: Weather,
    view: View,
    foot: tuple[float, float],
    height: float,
    hue: float,
) -> None:
    """Draws a tree of `height` metres at `foot` = (X, Z) metres."""
    column, base = view.place(foot[0], foot[1])
    size = height * view.height / foot[1]
    shadow(canvas, weather, column, base, size * 0.34, size * 0.06, size * 0.26)
    kind = rng.choice(3, p=[0.6, 0.25, 0.15])
    wide = (0.36, 0.24, 0.17)[kind] * rng.uniform(0.9, 1.15)
    _trunk(canvas, rng, weather, column, base, size)
    box = canvas.box(column - size * 0.6, base - size * 1.15, column + size * 0.6, base)
    if box is None:
        return
    y, x = grid(box)
    # Crown coordinates: u to the right, v upwards, in tree heights.
    u, v = (x - column) / size, (base - y) / size
    shape = (box[1] - box[0], box[3] - box[2])
    texels = min(shape[0] / size * 150, 1000), min(shape[1] / size * 150, 1000)
    leaves = noise(rng, shape, texels, 1.05)
    if kind == 1:
        depth, bright = _conifer(u, v, wide, leaves)
    else:
        depth, bright = _crown(rng, u, v, wide, kind == 2, weather.from_left)
    cover = np.clip((depth + 0.022 * leaves) * size + 0.5, 0, 1)
    _foliage(canvas, rng, weather, box, cover, bright + 0.2 * leaves, hue)


def _trunk(
    canvas: Canvas,
    rng: np.random.Generator,
    weather: Weather,
    column: float,
    base: float,
    size: float,
) -> None:
    """A trunk that narrows upwards."""
    foot, top = size * 0.04, size * 0.024
    corners = [
        (column - top, base - size * 0.5),
        (column + top, base - size * 0.5),
        (column + foot, base),
        (column - foot, base),
    ]
    box = canvas.box(column - foot, base - size * 0.5, column + foot, base)
    if box is None:
        return
    _, x = grid(box)
    bark = hsv(rng.uniform(0.04, 0.12), rng.uniform(0.15, 0.45), rng.uniform(0.26, 0.42))
    side = np.clip(0.5 - weather.from_left * (x - column) / foot * 0.5, 0, 1)[..., None]
    colour = bark * (weather.shade * 0.6 + (weather.light - weather.shade * 0.6) * side)
    canvas.paint(box, convex_cover(corners, box), colour, TREE)


def _crown(
    rng: np.random.Generator, u: Field, v: Field, wide: float, tall: bool, from_left: float
) -> tuple[Field, Field]:
    """A union of round clumps: (signed depth inside in tree heights, brightness 0..1)."""
    depth = np.full(np.broadcast_shapes(u.shape, v.shape), -1.0, dtype=np.float32)
    bright = np.zeros_like(depth)
    low, high = (0.3, 0.95) if not tall else (0.2, 0.98)
    for _ in range(9):
        turn, reach = rng.uniform(0, 2 * np.pi), rng.uniform(0.35, 0.75)
        cu = wide * reach * np.cos(turn) * (0.75 if tall else 1)
        cv = (low + high) / 2 + (high - low) / 2 * reach * np.sin(turn)
        radius = wide * rng.uniform(0.45, 0.62) * (1.05 if tall else 1.0)
        distance = np.hypot(u - cu, (v - cv) * 1.1)
        inside = radius - distance
        glow = 0.5 + 0.42 * ((v - cv) - from_left * (u - cu)) / radius
        front = inside > depth
        bright = np.where(front, glow, bright)
        depth = np.maximum(depth, inside)
    core = np.float32(wide * 0.62) - np.hypot(u, (v - (low + high) / 2) * (0.5 if tall else 0.95))
    bright = np.where(core > depth, 0.35, bright)
    return np.maximum(depth, core).astype(np.float32), np.asarray(bright, np.float32)


def _conifer(u: Field, v: Field, wide: float, leaves: Field) -> tuple[Field, Field]:
    """A cone of drooping tiers: (signed depth, brightness)."""
    tier = (v * 6.5 + 0.06 * leaves) % 1.0
    half = wide * np.clip(1.02 - v, 0, 1) * (0.78 + 0.4 * (1 - tier))
    depth = np.where(v > 0.13, half - np.abs(u), -1.0)
    depth = np.minimum(depth, (1.0 - v) * 0.5)
    return depth.astype(np.float32), (0.2 + 0.55 * tier + 0.3 * np.abs(u) / wide).astype(np.float32)


def _foliage(
    canvas: Canvas,
    rng: np.random.Generator,
    weather: Weather,
    box: Box,
    cover: Field,
    bright: Field,
    hue: float,
) -> None:
    """Colours the crown: dark and cool in shade, warm where lit."""
    albedo = hsv(hue + rng.uniform(-0.025, 0.025), rng.uniform(0.5, 0.78), rng.uniform(0.34, 0.56))
    lit = np.clip(bright, 0, 1)[..., None]
    dark = albedo * weather.shade * np.float32(0.42)
    colour = dark + (albedo * weather.light * 1.1 - dark) * lit
    canvas.paint(box, cover, colour, TREE)


def shadow(
    canvas: Canvas,
    weather: Weather,
    column: float,
    base: float,
    half: float,
    flat: float,
    lean: float,
) -> None:
    """A soft ellipse on the ground, thrown away from the sun; all lengths in px."""
    centre = column + weather.from_left * lean
    box = canvas.box(centre - half * 1.4, base - flat * 1.4, centre + half * 1.4, base + flat * 1.4)
    if box is None:
        return
    y, x = grid(box)
    distance = np.hypot((x - centre) / max(half, 1), (y - base) / max(flat, 1))
    soft = np.clip((1.25 - distance) * 2, 0, 1) * 0.75
    strength = 0.45 + 0.35 * float(np.clip(weather.shade.mean() / weather.light.mean(), 0, 1))
    canvas.shade(box, soft, np.full(3, strength, dtype=np.float32))
