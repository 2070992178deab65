"""The ground plane in perspective: road, sidewalks and the covers beside them.

World units are metres: X to the right, Z away from the viewer, the eye at `eye` above Z = 0.
A point at depth Z on the ground is drawn `eye / Z` picture heights below the horizon.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from demo_scenes.canvas import EARTH, GRASS, ROAD, SIDEWALK, WATER, Box, Canvas, grid
from demo_scenes.textures import Field, hsv, sample
from demo_scenes.weather import Weather


@dataclass(frozen=True)
class View:
    """The camera: horizon and vanishing point in px, eye height in metres, picture size in px."""

    width: int
    height: int
    horizon: float
    vanish: float
    eye: float

    def place(self, x: float, z: float, up: float = 0.0) -> tuple[float, float]:
        """The pixel (column, row) of the world point (x, up, z)."""
        scale = self.height / z
        return self.vanish + x * scale, self.horizon + (self.eye - up) * scale

    def across(self, column: float, z: float) -> float:
        """The world X at depth z of a pixel column."""
        return (column - self.vanish) * z / self.height


@dataclass(frozen=True)
class Layout:
    """Where the covers lie.

    `angle` turns the road: 0 runs away from the viewer, pi/2 crosses the view. The road is
    `half` metres wide to each side of the line `offset` metres from the origin, bends by `bend`,
    and has sidewalks of `walk` metres. `covers` lie left/right of it (or before/behind).
    """

    angle: float
    offset: float
    half: float
    bend: float
    walk: float
    covers: tuple[int, int]
    shore: float


def draw_ground(
    canvas: Canvas, rng: np.random.Generator, weather: Weather, view: View, layout: Layout
) -> None:
    """Paints all ground below the horizon, each cover textured in world units."""
    top = int(np.ceil(view.horizon))
    box = (top, canvas.height, 0, canvas.width)
    rows, cols = grid(box)
    z = view.eye * view.height / np.maximum(rows - view.horizon, 0.35)
    x = (cols - view.vanish) * z / view.height
    z = np.broadcast_to(z, x.shape)
    turn_x, turn_z = np.cos(layout.angle), np.sin(layout.angle)
    swing = layout.bend * np.minimum(z, 60.0) ** 2 * abs(turn_x)
    side = x * turn_x + z * turn_z - layout.offset - swing
    along = z * turn_x - x * turn_z
    # One pixel's width in metres, to anti-alias edges and fade textures finer than a pixel.
    pixel = z / view.height * abs(turn_x) + z * z / (view.eye * view.height) * abs(turn_z)
    step = z * z / (view.eye * view.height)
    world = _World(x, z, side, along, pixel, step)
    _covers(canvas, rng, weather, layout, world, box)
    _sidewalk(canvas, rng, weather, layout, world, box)
    _road(canvas, rng, weather, layout, world, box)
    haze = np.clip((z - 12) / 160, 0, 0.42).astype(np.float32)
    still = canvas.mask[top:] != WATER
    mist = weather.horizon * 0.7 + weather.zenith * 0.3
    canvas.rgb[top:] += (mist - canvas.rgb[top:]) * (haze * still)[..., None]


@dataclass(frozen=True)
class _World:
    """World coordinates of the ground's pixels (h, w), metres; `pixel`, `step`: one px in metres."""

    x: Field
    z: Field
    side: Field
    along: Field
    pixel: Field
    step: Field

    def inside(self, distance: Field) -> Field:
        """Cover 0..1 of where `distance` (metres, across the road) is positive."""
        return np.clip(distance / self.pixel + 0.5, 0, 1)

    def grain(self, rng: np.random.Generator, texel: float, roughness: float = 0.6) -> Field:
        """Noise fixed to the ground, `texel` metres a texel, faded where finer than a pixel."""
        row, col = rng.integers(0, 1024, 2)
        read = sample(self.z / texel + row, self.x / texel + col, roughness)
        return read * np.clip(texel * 5 / (self.step + texel), 0, 1)


def _covers(
    canvas: Canvas,
    rng: np.random.Generator,
    weather: Weather,
    layout: Layout,
    world: _World,
    box: Box,
) -> None:
    """Paints the land (and water) on both sides of the road."""
    right = world.inside(world.side)
    for cover, label in ((1 - right, layout.covers[0]), (right, layout.covers[1])):
        if float(cover.max()) <= 0:
            continue
        land = GRASS if label == WATER else label
        canvas.paint(box, cover, _SURFACES[land](rng, weather, layout, world, box, canvas), land)
        if label == WATER:
            bank = layout.half + layout.walk + layout.shore
            edge = np.abs(world.side) - bank - 0.5 * np.sin(world.along * 0.45 + rng.uniform(0, 6))
            lake = cover * world.inside(edge)
            canvas.paint(box, lake, _water(rng, weather, layout, world, box, canvas), WATER)


def _light(weather: Weather) -> Field:
    """The light on flat ground."""
    return weather.light * 0.72 + weather.shade * 0.28


def _grass(
    rng: np.random.Generator,
    weather: Weather,
    layout: Layout,
    world: _World,
    box: Box,
    canvas: Canvas,
) -> Field:
    """Meadow: mottled patches, and blades that stand upright on the screen near the viewer."""
    hue = float(rng.choice([0.17, 0.2, 0.22, 0.25, 0.28, 0.31]))
    albedo = hsv(hue + rng.uniform(-0.02, 0.02), rng.uniform(0.4, 0.66), rng.uniform(0.5, 0.66))
    patches = world.grain(rng, 0.08, 1.2)
    rows, cols = grid(box)
    near = np.clip((rows - box[0]) / canvas.height * 2.6, 0, 1)
    unit = 300.0 / canvas.height
    blades = sample(rows * unit * 0.3 + patches * 2, cols * unit * 1.2, 0.25) * near
    dry = hsv(hue - 0.06, 0.4, 0.62)
    colour = albedo * (1 + 0.13 * patches + 0.19 * blades)[..., None]
    colour += (dry * 0.8 - colour) * (0.35 * np.clip(patches - 0.4, 0, 1))[..., None]
    return colour * _light(weather)


def _earth(
    rng: np.random.Generator,
    weather: Weather,
    layout: Layout,
    world: _World,
    box: Box,
    canvas: Canvas,
) -> Field:
    """Ploughed soil: furrows a metre apart, clods between them."""
    hue = float(rng.choice([0.03, 0.05, 0.07, 0.09, 0.11]))
    albedo = hsv(hue, rng.uniform(0.35, 0.6), rng.uniform(0.34, 0.58))
    clods = world.grain(rng, 0.05, 0.5)
    spacing = rng.uniform(0.75, 1.1)
    # Furrows run away from the viewer whatever the road does: then they stay visible.
    phase = world.x / spacing + 0.12 * clods + rng.uniform(-0.25, 0.25) * world.z / spacing
    visible = np.clip(spacing * 0.45 / (world.z / canvas.height), 0, 1)
    furrow = np.sin(2 * np.pi * phase) * visible
    colour = albedo * (0.95 + 0.3 * furrow + 0.12 * clods)[..., None]
    return colour * _light(weather)


def _paving(
    rng: np.random.Generator,
    weather: Weather,
    layout: Layout,
    world: _World,
    box: Box,
    canvas: Canvas,
) -> Field:
    """Slabs with dark joints, each slab of a slightly different tone."""
    hue = float(rng.uniform(0.04, 0.14))
    albedo = hsv(hue, rng.uniform(0.02, 0.16), rng.uniform(0.66, 0.84))
    slab = rng.uniform(0.62, 0.95)
    u, v = world.side / slab, world.along / slab
    tone = np.sin(np.floor(u) * 12.9898 + np.floor(v) * 78.233) * 43758.547
    tone = tone - np.floor(tone) - 0.5
    joint_u = _joints(u, world.z / canvas.height / slab)
    joint_v = _joints(v, world.step / slab)
    fade = np.clip(slab / world.step * 0.5, 0, 1)
    colour = 1 + 0.14 * tone * fade + 0.03 * world.grain(rng, 0.02, 0.3)
    colour -= 0.42 * np.maximum(joint_u, joint_v)
    return albedo * colour[..., None] * _light(weather)


def _joints(position: Field, pixel: Field) -> Field:
    """Lines at whole numbers of `position`, a twelfth wide; their mean where finer than a px."""
    distance = np.abs(position - np.round(position))
    line = np.clip((0.05 - distance) / np.maximum(pixel, 0.01) + 0.5, 0, 1)
    return np.where(pixel > 0.5, np.float32(0.1), line)


def _water(
    rng: np.random.Generator,
    weather: Weather,
    layout: Layout,
    world: _World,
    box: Box,
    canvas: Canvas,
) -> Field:
    """Water: the backdrop mirrored at the horizon, broken by ripples, over a deep tone."""
    hue = float(rng.choice([0.46, 0.5, 0.54, 0.58, 0.61]))
    deep = hsv(hue, rng.uniform(0.4, 0.65), rng.uniform(0.26, 0.5))
    rows, cols = grid(box)
    unit = 300.0 / canvas.height
    down = (rows - box[0]) / canvas.height
    stretch = unit / (0.35 + 3.2 * down)
    ripple = sample(
        rows * stretch * 3.4 + rng.integers(1024), cols * stretch * 0.55 + rng.integers(1024), 0.9
    )
    shift = ripple * (0.004 + 0.045 * down) * canvas.height
    mirror = np.clip(2 * box[0] - rows + shift, 0, box[0] - 1).astype(np.int32)
    aside = np.clip(cols + 0.5 * shift, 0, canvas.width - 1).astype(np.int32)
    reflected = canvas.rgb[mirror, aside]
    clear = np.clip(0.6 - 0.7 * down, 0.25, 0.6) * (1 + 0.12 * ripple)
    tone = deep * (weather.light * 0.5 + weather.shade * 0.5)
    colour = tone + (reflected * 0.92 - tone) * clear[..., None]
    glint = np.clip(ripple - 1.1, 0, 1) * (0.25 + 0.5 * weather.glow)
    glint *= np.exp(-np.abs(cols - weather.sun[0] * canvas.width) / (0.22 * canvas.width))
    colour += (weather.light - colour) * np.clip(glint, 0, 1)[..., None]
    return np.asarray(colour * (1 + 0.09 * ripple)[..., None], dtype=np.float32)


def _sidewalk(
    canvas: Canvas,
    rng: np.random.Generator,
    weather: Weather,
    layout: Layout,
    world: _World,
    box: Box,
) -> None:
    """Both sidewalks, with a light curb towards the road."""
    if layout.walk <= 0:
        return
    reach = np.abs(world.side)
    cover = world.inside(layout.half + layout.walk - reach)
    canvas.paint(box, cover, _paving(rng, weather, layout, world, box, canvas), SIDEWALK)
    curb = world.inside(layout.half + 0.2 - reach)
    canvas.paint(box, curb, np.float32(0.82) * _light(weather), SIDEWALK)


def _road(
    canvas: Canvas,
    rng: np.random.Generator,
    weather: Weather,
    layout: Layout,
    world: _World,
    box: Box,
) -> None:
    """Asphalt with wheel tracks, a dashed middle line and edge lines."""
    albedo = hsv(rng.uniform(0.55, 0.75), rng.uniform(0.02, 0.12), rng.uniform(0.26, 0.42))
    speckle = world.grain(rng, 0.02, 0.2)
    stains = world.grain(rng, 0.06, 1.6)
    tracks = np.cos(world.side / layout.half * 4 * np.pi)
    colour = albedo * (1 + 0.07 * speckle + 0.07 * stains - 0.05 * tracks)[..., None]
    paint = np.float32(rng.uniform(0.75, 0.95)) * hsv(0.13, float(rng.choice([0.0, 0.0, 0.6])), 1.0)
    dash = ((world.along / 5.0 + rng.uniform()) % 1.0 < 0.55).astype(np.float32)
    lines = world.inside(0.11 - np.abs(world.side)) * dash
    edges = world.inside(0.08 - np.abs(np.abs(world.side) - layout.half + 0.35))
    colour += (paint - colour) * np.maximum(lines, edges)[..., None]
    cover = world.inside(layout.half - np.abs(world.side))
    canvas.paint(box, cover, colour * _light(weather), ROAD)


_SURFACES = {GRASS: _grass, EARTH: _earth, SIDEWALK: _paving}
