"""Drawn outdoor scenes with exact labels: `draw(seed)` returns a picture and its mask.

The scenes stand in for photographs where none may be shipped: the demo checkpoint is trained on
them and the demo shows them. Colours vary so widely (hour, foliage, soil, paint, water) that
they do not give the classes away; form, texture and place do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from demo_scenes.backdrop import mountains, sky, treeline
from demo_scenes.buildings import Plot, building
from demo_scenes.canvas import EARTH, GRASS, ROAD, SIDEWALK, WATER, Canvas
from demo_scenes.figures import car, person
from demo_scenes.ground import Layout, View, draw_ground
from demo_scenes.trees import HUES, tree
from demo_scenes.weather import Weather, weather


@dataclass(frozen=True)
class Scene:
    """A picture and `mask` (H, W) uint8 of ADE20K model class ids (0-based)."""

    image: Image.Image
    mask: NDArray[np.uint8]


Item = tuple[float, str, tuple[float, ...]]


def draw(seed: int, *, size: tuple[int, int] = (640, 480)) -> Scene:
    """Draws the scene of `seed` at `size` = (width, height) px; the same every time."""
    rng = np.random.default_rng([seed, 0x5CE4E])
    width, height = size
    canvas = Canvas(width, height)
    light = weather(rng)
    across = bool(rng.uniform() < 0.42)
    view = _view(rng, width, height, across)
    layout = _across(rng, view) if across else _away(rng)
    _backdrop(canvas, rng, light, view)
    draw_ground(canvas, rng, light, view, layout)
    hue = float(rng.choice(HUES))
    items = _town(rng, view, layout, across) + _wood(canvas, rng, view, layout, hue)
    items += _traffic(canvas, rng, view, layout, across)
    _place(canvas, rng, light, view, items)
    _film(canvas, rng)
    pixels = (np.clip(canvas.rgb, 0, 1) * 255 + 0.5).astype(np.uint8)
    return Scene(Image.fromarray(pixels), canvas.mask)


def _view(rng: np.random.Generator, width: int, height: int, across: bool) -> View:
    """A camera at 2 to 3 metres, the horizon a little above the middle."""
    return View(
        width=width,
        height=height,
        horizon=height * float(rng.uniform(0.38, 0.5)),
        vanish=width * float(rng.uniform(0.3, 0.7)),
        eye=float(rng.uniform(2.3, 3.2) if across else rng.uniform(2.0, 2.8)),
    )


def _cover(rng: np.random.Generator, water: float) -> int:
    """One of the covers beside a road; `water` is the chance of water."""
    rest = 1 - water
    weights = [0.55 * rest, 0.45 * rest, water]
    return int(rng.choice([GRASS, EARTH, WATER], p=weights))


def _away(rng: np.random.Generator) -> Layout:
    """A road that runs away from the viewer."""
    left = _cover(rng, 0.38)
    right = _cover(rng, 0.38 if left != WATER else 0.12)
    return Layout(
        angle=0.0,
        offset=float(rng.uniform(-1.8, 1.8)),
        half=float(rng.uniform(2.5, 3.4)),
        bend=float(rng.choice([0.0, 1.0]) * rng.uniform(-0.006, 0.006)),
        walk=float(rng.choice([0.0, 1.0], p=[0.2, 0.8]) * rng.uniform(1.6, 2.6)),
        covers=(left, right),
        shore=float(rng.uniform(0.4, 3.0)),
    )


def _across(rng: np.random.Generator, view: View) -> Layout:
    """A road that crosses the view, with land or water before and behind it."""
    near = view.eye * view.height / (view.height - view.horizon)
    half = float(rng.uniform(2.2, 3.0))
    behind = _cover(rng, 0.5)
    before = _cover(rng, 0.0 if behind == WATER else 0.45)
    return Layout(
        angle=float(np.pi / 2 + rng.uniform(-0.1, 0.1)),
        offset=float(near + half + rng.uniform(1.6, 3.2)),
        half=half,
        bend=0.0,
        walk=float(rng.choice([0.0, 1.0], p=[0.2, 0.8]) * rng.uniform(1.3, 2.2)),
        covers=(before, behind),
        shore=float(rng.uniform(1.2, 2.4)),
    )


def _backdrop(canvas: Canvas, rng: np.random.Generator, light: Weather, view: View) -> None:
    """Sky, most often mountains, often a far wood; something always hides the bare horizon."""
    sky(canvas, rng, light, view.horizon)
    high = rng.uniform() < 0.72
    if high:
        mountains(canvas, rng, light, view.horizon, int(rng.integers(1, 4)))
    if not high or rng.uniform() < 0.5:
        treeline(canvas, rng, light, view.horizon, float(rng.choice(HUES)))


def _town(rng: np.random.Generator, view: View, layout: Layout, across: bool) -> list[Item]:
    """Buildings along the road where there is land; (depth, kind, place) of each."""
    return _row(rng, view, layout) if across else _street(rng, layout)


def _street(rng: np.random.Generator, layout: Layout) -> list[Item]:
    """Rows of buildings down one or both sides of a road that runs away."""
    items: list[Item] = []
    for side, cover in ((-1, layout.covers[0]), (1, layout.covers[1])):
        if cover == WATER or abs(layout.bend) > 0 or rng.uniform() < 0.3:
            continue
        edge = layout.half + layout.walk + rng.uniform(0.3, 3.0)
        z = rng.uniform(8, 15)
        base = rng.uniform(6, 15)
        while z < 60:
            depth, wide = rng.uniform(7, 13), rng.uniform(7, 12)
            tall = float(np.clip(base * rng.uniform(0.7, 1.4), 5.5, 22))
            near, far = layout.offset + side * edge, layout.offset + side * (edge + wide)
            plot = (min(near, far), max(near, far), z, z + depth, tall, rng.uniform() < 0.4)
            items.append((z, "building", plot))
            z += depth + (0.05 if rng.uniform() < 0.6 else rng.uniform(2, 9))
    return items


def _row(rng: np.random.Generator, view: View, layout: Layout) -> list[Item]:
    """A row of buildings behind a road that crosses, at the far side of its land."""
    if layout.covers[1] == WATER or rng.uniform() < 0.15:
        return []
    z = layout.offset + layout.half + layout.walk + rng.uniform(4, 14)
    reach = z / view.height
    x = -view.vanish * reach - rng.uniform(0, 8)
    end = (view.width - view.vanish) * reach
    items: list[Item] = []
    base = rng.uniform(5, 11)
    while x < end:
        wide = rng.uniform(6, 13)
        front = z + rng.uniform(0, 3)
        tall = float(np.clip(base * rng.uniform(0.7, 1.4), 4.5, 15))
        if rng.uniform() < 0.78:
            plot = (x, x + wide, front, front + 9.0, tall, rng.uniform() < 0.5)
            items.append((front, "building", plot))
        x += wide + rng.uniform(0.0, 5.0) * (rng.uniform() < 0.6)
    return items


def _wood(
    canvas: Canvas, rng: np.random.Generator, view: View, layout: Layout, hue: float
) -> list[Item]:
    """Trees on open ground, some near, most of one kind of foliage."""
    items: list[Item] = []
    # Before a road that crosses, a tree would hide what drives there.
    crossing = layout.offset + layout.half * 1.2 if layout.angle > 0.5 else 0.0
    nearest = max(8.0, crossing)
    for _ in range(int(rng.integers(5, 13))):
        z = float(rng.uniform(nearest, nearest + 26))
        column = rng.uniform(-0.02, 1.02) * view.width
        tint = hue if rng.uniform() < 0.65 else float(rng.choice(HUES))
        x = view.across(column, z)
        if _ground(canvas, view, x, z) in (GRASS, EARTH, SIDEWALK):
            items.append((z, "tree", (x, z, rng.uniform(3.8, 7.8), tint)))
    return items


def _ground(canvas: Canvas, view: View, x: float, z: float) -> int:
    """The label of the ground at (x, z); points beside or below the picture take its edge."""
    column, row = view.place(x, z)
    col = int(np.clip(column, 0, view.width - 1))
    return int(canvas.mask[int(np.clip(row, 0, view.height - 1)), col])


def _traffic(
    canvas: Canvas, rng: np.random.Generator, view: View, layout: Layout, across: bool
) -> list[Item]:
    """Cars on the road and people on land, apart from one another on the screen."""
    taken: list[tuple[float, float]] = []
    items: list[Item] = []
    for _ in range(int(rng.integers(1, 4))):
        z = float(rng.uniform(5.2, 10))
        lane = float(rng.choice([-0.5, 0.5]) * layout.half)
        x = layout.offset + lane + layout.bend * z * z
        facing = 1.0 if lane < 0 else 2.0
        half = 1.05
        if across:
            z = layout.offset + lane - half * 0.3
            x = view.across(rng.uniform(0.1, 0.9) * view.width, z)
            z = (layout.offset + lane - x * np.cos(layout.angle)) / np.sin(layout.angle)
            facing, half = 0.0, 2.3
        if _claim(taken, view, x, z, half):
            items.append((z, "car", (x, z, facing)))
    near = view.eye * view.height / (view.height - view.horizon)
    for _ in range(12):
        z = max(near * 1.04, 4.0) + float(rng.uniform(0, 1.5))
        x = view.across(rng.uniform(0.06, 0.94) * view.width, z)
        dry = _ground(canvas, view, x, z) in (GRASS, EARTH, SIDEWALK, ROAD)
        if len(items) < 6 and dry and _claim(taken, view, x, z, 0.45):
            items.append((z, "person", (x, z)))
    return items


def _claim(taken: list[tuple[float, float]], view: View, x: float, z: float, half: float) -> bool:
    """Takes the columns that a thing `half` metres wide to each side covers, if they are free."""
    left, right = view.place(x - half, z)[0], view.place(x + half, z)[0]
    if right < view.width * 0.04 or left > view.width * 0.96:
        return False
    for other_left, other_right in taken:
        overlap = min(right, other_right) - max(left, other_left)
        if overlap > 0.35 * min(right - left, other_right - other_left):
            return False
    taken.append((left, right))
    return True


def _place(
    canvas: Canvas, rng: np.random.Generator, light: Weather, view: View, items: list[Item]
) -> None:
    """Draws the items from far to near."""
    for _, kind, place in sorted(items, key=lambda item: -item[0]):
        if kind == "building":
            left, right, front, back, height, pitched = place
            plot = Plot(left, right, front, back, height, bool(pitched))
            building(canvas, rng, light, view, plot)
        elif kind == "tree":
            tree(canvas, rng, light, view, (place[0], place[1]), place[2], place[3])
        elif kind == "car":
            facing = ("side", "front", "rear")[int(place[2])]
            car(canvas, rng, light, view, (place[0], place[1]), facing)
        else:
            person(canvas, rng, light, view, (place[0], place[1]))


def _film(canvas: Canvas, rng: np.random.Generator) -> None:
    """White balance, contrast, vignette and grain, as a camera adds them."""
    balance = rng.uniform(0.94, 1.06, 3).astype(np.float32)
    gamma = rng.uniform(0.85, 1.12)
    y = np.linspace(-1, 1, canvas.height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, canvas.width, dtype=np.float32)[None, :]
    vignette = 1 - rng.uniform(0.04, 0.16) * (x * x + y * y) * 0.8
    np.clip(canvas.rgb, 0, 1, out=canvas.rgb)
    np.power(canvas.rgb, np.float32(gamma), out=canvas.rgb)
    canvas.rgb *= balance * vignette[..., None]
    grain = rng.standard_normal((canvas.height, canvas.width), dtype=np.float32)
    canvas.rgb += (rng.uniform(0.006, 0.024) * grain)[..., None]
