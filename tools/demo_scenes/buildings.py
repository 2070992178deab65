"""Buildings: boxes in perspective with windows, shop fronts and roofs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from demo_scenes.canvas import BUILDING, Canvas, bounds, convex_cover, grid
from demo_scenes.ground import View
from demo_scenes.textures import Field, hsv, noise, sample
from demo_scenes.weather import Weather


@dataclass(frozen=True)
class Plot:
    """A building's place: X from `left` to `right`, Z from `front` to `back`, metres."""

    left: float
    right: float
    front: float
    back: float
    height: float
    pitched: bool


@dataclass(frozen=True)
class _Facade:
    """A wall's look: colours (3,), the windows' grid in metres and what lights them."""

    wall: Field
    trim: Field
    glass: Field
    lamp: Field
    cell: tuple[float, float]
    pane: tuple[float, float]
    seed: float
    lamps: float
    bricks: bool


def building(
    canvas: Canvas, rng: np.random.Generator, weather: Weather, view: View, plot: Plot
) -> None:
    """Draws the wall that faces us, the flank that shows, and the roof."""
    facade = _facade(rng, weather)
    haze = float(np.clip((plot.front - 14) / 110, 0, 0.35))
    mist = weather.horizon * 0.7 + weather.zenith * 0.3
    flank = plot.right if view.place(plot.right, plot.front)[0] < view.vanish else plot.left
    inner = (flank - 0) * (view.place(flank, plot.front)[0] - view.vanish) > 0
    lit_flank = (flank == plot.left) == (weather.from_left > 0)
    if inner and view.place(flank, plot.front)[0] != view.vanish:
        light = weather.light if lit_flank else weather.shade * 0.78
        _flank(canvas, view, plot, flank, facade, light, (haze, mist))
    light = weather.light * 0.62 + weather.shade * 0.38
    _front(canvas, view, plot, facade, light, (haze, mist))
    if plot.pitched:
        _roof(canvas, rng, weather, view, plot, (haze, mist))
    else:
        _parapet(canvas, view, plot, facade, light)


def _facade(rng: np.random.Generator, weather: Weather) -> _Facade:
    """A random facade."""
    wall = hsv(rng.uniform(), rng.uniform(0.04, 0.4), rng.uniform(0.5, 0.92))
    cell = (rng.uniform(2.0, 3.2), rng.uniform(2.7, 3.4))
    return _Facade(
        wall=wall,
        trim=wall * 0.4 + np.float32(rng.choice([0.08, 0.55])),
        glass=weather.zenith * 0.45 + np.float32(rng.uniform(0.0, 0.16)),
        lamp=hsv(rng.uniform(0.09, 0.14), rng.uniform(0.3, 0.6), 1.0),
        cell=cell,
        pane=(rng.uniform(0.22, 0.36), rng.uniform(0.25, 0.34)),
        seed=float(rng.uniform(0, 100)),
        lamps=weather.lamps,
        bricks=bool(rng.uniform() < 0.4),
    )


def _surface(facade: _Facade, u: Field, v: Field, height: float, light: Field) -> Field:
    """The wall's colour (h, w, 3) at u metres along and v metres up."""
    columns, rows = u / facade.cell[0], (v - 3.4) / facade.cell[1]
    iu, iv = np.floor(columns), np.floor(rows)
    du, dv = np.abs(columns - iu - 0.5), np.abs(rows - iv - 0.5)
    upper = (v > 3.4) & (v < height - 0.45)
    frame = (du < facade.pane[0] + 0.045) & (dv < facade.pane[1] + 0.05) & upper
    pane = (du < facade.pane[0]) & (dv < facade.pane[1]) & upper
    # A hash of the window's column and row decides which are lit and how they shine.
    spark = np.sin(iu * 12.9898 + iv * 78.233 + facade.seed) * 43758.547
    spark = (spark - np.floor(spark)).astype(np.float32)
    grain = sample(v * 7, u * 7, 1.2)
    wall = facade.wall * (1 + 0.035 * grain)[..., None] * light
    if facade.bricks:
        course = (np.abs((v / 0.42) % 1.0 - 0.5) > 0.4).astype(np.float32)
        wall *= (1 - 0.14 * course)[..., None]
    wall *= np.clip(0.82 + 0.045 * v, 0, 1)[..., None]
    colour = np.where(frame[..., None], facade.trim * light, wall)
    gleam = facade.glass * (0.62 + 0.35 * spark + 0.28 * (0.5 - (rows - iv)))[..., None]
    lit = (spark < facade.lamps)[..., None]
    colour = np.where(pane[..., None], np.where(lit, facade.lamp, gleam), colour)
    shop = (v < 2.7) & (v > 0.35) & (np.abs((u / (facade.cell[0] * 1.4)) % 1.0 - 0.5) < 0.38)
    front = facade.lamp * 0.9 if facade.lamps > 0.25 else facade.glass * 0.6
    colour = np.where(shop[..., None], front, colour)
    sign = (v > 2.75) & (v < 3.3)
    return np.asarray(np.where(sign[..., None], facade.trim * light * 0.9, colour), np.float32)


def _front(
    canvas: Canvas, view: View, plot: Plot, facade: _Facade, light: Field, mist: tuple[float, Field]
) -> None:
    """The wall at Z = front."""
    left, bottom = view.place(plot.left, plot.front)
    right, top = view.place(plot.right, plot.front, plot.height)
    box = canvas.box(left, top, right, bottom)
    if box is None:
        return
    y, x = grid(box)
    scale = plot.front / view.height
    shape = (box[1] - box[0], box[3] - box[2])
    u = np.broadcast_to((x - left) * scale, shape)
    v = np.broadcast_to((bottom - y) * scale, shape)
    corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
    colour = _surface(facade, u, v, plot.height, light)
    colour += (mist[1] - colour) * mist[0]
    canvas.paint(box, convex_cover(corners, box), colour, BUILDING)


def _flank(
    canvas: Canvas,
    view: View,
    plot: Plot,
    x_side: float,
    facade: _Facade,
    light: Field,
    mist: tuple[float, Field],
) -> None:
    """The wall at X = x_side, from front to back."""
    near = view.place(x_side, plot.front)
    far = view.place(x_side, plot.back)
    near_top = view.place(x_side, plot.front, plot.height)
    far_top = view.place(x_side, plot.back, plot.height)
    corners = [near_top, far_top, far, near]
    if near[0] > far[0]:
        corners = [far_top, near_top, near, far]
    box = canvas.box(*bounds(corners))
    if box is None:
        return
    y, x = grid(box)
    reach = np.where(np.abs(x - view.vanish) < 1, 1.0, x - view.vanish)
    z = np.clip(x_side * view.height / reach, plot.front, plot.back)
    shape = (box[1] - box[0], box[3] - box[2])
    u = np.broadcast_to(z - plot.front, shape).astype(np.float32)
    v = (view.eye - (y - view.horizon) * z / view.height).astype(np.float32)
    colour = _surface(facade, u, v, plot.height, light)
    fog = np.clip(mist[0] + (z - plot.front) / 110, 0, 0.4).astype(np.float32)[..., None]
    colour = colour + (mist[1] - colour) * fog
    canvas.paint(box, convex_cover(corners, box), colour, BUILDING)


def _roof(
    canvas: Canvas,
    rng: np.random.Generator,
    weather: Weather,
    view: View,
    plot: Plot,
    mist: tuple[float, Field],
) -> None:
    """A pitched roof whose eaves face us."""
    depth = min((plot.back - plot.front) / 2, 5.0)
    rise = rng.uniform(1.8, 3.2)
    inset = rng.uniform(0.0, 1.4)
    corners = [
        view.place(plot.left + inset, plot.front + depth, plot.height + rise),
        view.place(plot.right - inset, plot.front + depth, plot.height + rise),
        view.place(plot.right + 0.35, plot.front - 0.3, plot.height - 0.1),
        view.place(plot.left - 0.35, plot.front - 0.3, plot.height - 0.1),
    ]
    box = canvas.box(*bounds(corners))
    if box is None:
        return
    y, _ = grid(box)
    shape = (box[1] - box[0], box[3] - box[2])
    down = np.broadcast_to((corners[3][1] - y) / max(corners[3][1] - corners[0][1], 1), shape)
    tiles = (np.abs((down * 7) % 1.0 - 0.5) > 0.36).astype(np.float32)
    patina = noise(rng, shape, (shape[0] / view.height * 400, shape[1] / view.height * 400), 0.8)
    albedo = hsv(rng.choice([0.01, 0.04, 0.07, 0.58, 0.6]), rng.uniform(0.2, 0.6), 0.5)
    colour = albedo * (1 - 0.2 * tiles + 0.08 * patina)[..., None] * weather.light
    colour += (mist[1] - colour) * mist[0]
    canvas.paint(box, convex_cover(corners, box), colour, BUILDING)


def _parapet(canvas: Canvas, view: View, plot: Plot, facade: _Facade, light: Field) -> None:
    """A cornice along the top of a flat roof."""
    left, top = view.place(plot.left - 0.15, plot.front, plot.height + 0.25)
    right, bottom = view.place(plot.right + 0.15, plot.front, plot.height - 0.2)
    box = canvas.box(left, top, right, bottom)
    if box is not None:
        corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
        canvas.paint(box, convex_cover(corners, box), facade.trim * light, BUILDING)
