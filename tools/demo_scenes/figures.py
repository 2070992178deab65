"""People and cars: sprites drawn large, shaded and reduced, so that their edges are smooth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from demo_scenes.canvas import CAR, PERSON, Canvas
from demo_scenes.ground import View
from demo_scenes.textures import Field, hsv
from demo_scenes.trees import shadow
from demo_scenes.weather import Weather

OVERSAMPLE = 3

Colour = tuple[int, int, int, int]
Points = Sequence[tuple[float, float]]


class _Pen:
    """Draws on an oversampled sprite in units of the figure, y upwards from its feet."""

    def __init__(self, width: float, height: float, unit: float) -> None:
        self.unit = unit * OVERSAMPLE
        self.centre = width / 2
        self.top = height
        size = (max(int(width * self.unit), 3), max(int(height * self.unit), 3))
        self.image = Image.new("RGBA", size, (0, 0, 0, 0))
        self.draw = ImageDraw.Draw(self.image)

    def at(self, points: Points) -> list[tuple[float, float]]:
        """Figure units to sprite pixels."""
        return [((x + self.centre) * self.unit, (self.top - y) * self.unit) for x, y in points]

    def polygon(self, points: Points, fill: Colour) -> None:
        """A filled polygon."""
        self.draw.polygon(self.at(points), fill=fill)

    def disc(self, x: float, y: float, rx: float, ry: float, fill: Colour) -> None:
        """A filled ellipse around (x, y)."""
        (x0, y0), (x1, y1) = self.at([(x - rx, y + ry), (x + rx, y - ry)])
        self.draw.ellipse([x0, y0, x1, y1], fill=fill)

    def limb(self, points: Points, thick: float, fill: Colour) -> None:
        """A line with round ends and joints."""
        places = self.at(points)
        self.draw.line(places, fill=fill, width=max(round(thick * self.unit), 1), joint="curve")
        for x, y in points:
            self.disc(x, y, thick / 2, thick / 2, fill)

    def block(
        self, left: float, low: float, right: float, high: float, r: float, fill: Colour
    ) -> None:
        """A rectangle with rounded corners of radius r."""
        (x0, y0), (x1, y1) = self.at([(left, high), (right, low)])
        self.draw.rounded_rectangle([x0, y0, x1, y1], radius=r * self.unit, fill=fill)

    def sprite(self) -> Image.Image:
        """The sprite at picture resolution."""
        return self.image.reduce(OVERSAMPLE)


def _paint(colour: Field, factor: float = 1.0) -> Colour:
    """An opaque PIL colour from RGB in 0..1."""
    red, green, blue = (int(np.clip(c * factor, 0, 1) * 255) for c in colour)
    return red, green, blue, 255


def _sidelight(weather: Weather, width: int, height: int) -> Field:
    """Light (h, w, 3) that falls off from the sun's side and from top to bottom."""
    across = np.linspace(1, 0, width, dtype=np.float32)[None, :]
    across = across if weather.from_left > 0 else 1 - across
    down = np.linspace(1, 0.6, height, dtype=np.float32)[:, None]
    lit = np.clip(0.15 + across, 0, 1) * down
    return weather.shade + (weather.light - weather.shade) * lit[..., None]


def person(
    canvas: Canvas,
    rng: np.random.Generator,
    weather: Weather,
    view: View,
    foot: tuple[float, float],
) -> None:
    """A walking or standing person at `foot` = (X, Z) metres."""
    column, base = view.place(*foot)
    tall = rng.uniform(1.72, 2.0)
    size = tall * view.height / foot[1]
    shadow(canvas, weather, column, base, size * 0.24, size * 0.035, size * 0.17)
    pen = _Pen(0.62, 1.02, size)
    _figure(pen, rng)
    sprite = pen.sprite()
    if rng.uniform() < 0.5:
        sprite = sprite.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    light = _sidelight(weather, sprite.width, sprite.height)
    canvas.paste(sprite, column - sprite.width / 2, base - sprite.height, light, PERSON)


def _figure(pen: _Pen, rng: np.random.Generator) -> None:
    """Draws a person one unit tall."""
    skin = hsv(rng.uniform(0.04, 0.08), rng.uniform(0.25, 0.55), rng.uniform(0.45, 0.98))
    hair = hsv(rng.uniform(0.02, 0.12), rng.uniform(0.1, 0.6), rng.uniform(0.1, 0.6))
    top = hsv(rng.uniform(), rng.uniform(0.1, 0.85), rng.uniform(0.3, 0.98))
    legs = hsv(rng.uniform(0.5, 0.75), rng.uniform(0.05, 0.5), rng.uniform(0.14, 0.6))
    stride = rng.uniform(0.03, 0.13)
    swing = stride * rng.uniform(0.8, 1.3)
    dress = rng.uniform() < 0.3
    _arm(pen, -1, swing, top, skin, 0.72)
    for side, tone in ((-1, 0.72), (1, 1.0)):
        knee = (side * stride * 0.62 + 0.025, 0.26)
        ankle = (side * stride, 0.035)
        pen.limb([(side * 0.035, 0.5), knee, ankle], 0.088, _paint(skin if dress else legs, tone))
        pen.limb([ankle, (ankle[0] + 0.05, 0.022)], 0.044, _paint(hair, 0.6))
    hem = 0.11 + 0.02 * rng.uniform()
    if dress:
        pen.polygon([(-0.09, 0.6), (0.09, 0.6), (hem + 0.05, 0.3), (-hem - 0.05, 0.3)], _paint(top))
    elif rng.uniform() < 0.35:
        pen.polygon([(-0.1, 0.6), (0.1, 0.6), (hem, 0.36), (-hem, 0.36)], _paint(top, 0.94))
    pen.polygon(
        [(-0.115, 0.79), (-0.07, 0.83), (0.07, 0.83), (0.115, 0.79), (0.095, 0.48), (-0.095, 0.48)],
        _paint(top),
    )
    if rng.uniform() < 0.3:
        bag = hsv(rng.uniform(), rng.uniform(0.2, 0.8), rng.uniform(0.3, 0.8))
        pen.block(-0.19, 0.53, -0.07, 0.78, 0.04, _paint(bag))
    _arm(pen, 1, swing, top, skin, 1.12)
    _head(pen, rng, skin, hair)


def _arm(pen: _Pen, side: int, swing: float, sleeve: Field, skin: Field, tone: float) -> None:
    """An arm that swings against the leg of its side; the nearer one is lighter."""
    shoulder = (side * 0.055, 0.78)
    elbow = (-side * swing * 0.6 + side * 0.06, 0.63)
    hand = (-side * swing * 1.3 + side * 0.05, 0.49)
    pen.limb([shoulder, elbow], 0.066, _paint(sleeve, tone))
    pen.limb([elbow, hand], 0.058, _paint(sleeve, tone))
    pen.disc(*hand, 0.03, 0.032, _paint(skin, min(tone, 1.0)))


def _head(pen: _Pen, rng: np.random.Generator, skin: Field, hair: Field) -> None:
    """Neck, face and one of three kinds of hair or a hat."""
    pen.limb([(0, 0.82), (0.005, 0.87)], 0.055, _paint(skin, 0.82))
    kind = rng.integers(3)
    if kind == 1:
        pen.block(-0.078, 0.79, 0.05, 0.985, 0.06, _paint(hair))
    pen.disc(-0.006, 0.93, 0.064, 0.074, _paint(hair))
    pen.disc(0.014, 0.915, 0.05, 0.062, _paint(skin))
    if kind == 2:
        hat = hsv(rng.uniform(), rng.uniform(0.1, 0.8), rng.uniform(0.3, 0.9))
        pen.block(-0.068, 0.945, 0.066, 1.0, 0.035, _paint(hat))
        pen.block(-0.03, 0.94, 0.12, 0.958, 0.008, _paint(hat, 0.8))


def car(
    canvas: Canvas,
    rng: np.random.Generator,
    weather: Weather,
    view: View,
    foot: tuple[float, float],
    facing: str,
) -> None:
    """A car at (X, Z) metres; `facing` is "side", "front" or "rear"."""
    column, base = view.place(*foot)
    metre = view.height / foot[1] * 1.08
    length = 4.3 if facing == "side" else 1.86
    shadow(canvas, weather, column, base - 0.02 * metre, length * 0.53 * metre, 0.12 * metre, 0)
    pen = _Pen(length + 0.2, 1.7, metre)
    body = hsv(rng.uniform(), float(rng.choice([0.05, 0.6, 0.8])), rng.uniform(0.25, 0.95))
    glass = weather.zenith * 0.4 + np.float32(0.12)
    if facing == "side":
        _profile(pen, rng, body, glass)
    else:
        _end(pen, rng, body, glass, facing == "rear")
    sprite = pen.sprite()
    if rng.uniform() < 0.5:
        sprite = sprite.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    light = _bodywork(weather, sprite.width, sprite.height)
    canvas.paste(sprite, column - sprite.width / 2, base - sprite.height, light, CAR)


def _bodywork(weather: Weather, width: int, height: int) -> Field:
    """Light (h, w, 3) on a car: bright shoulders, dark sills, a sheen in the middle."""
    down = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    lit = np.clip(1.05 - 0.75 * down + 0.22 * np.exp(-(((down - 0.52) / 0.04) ** 2)), 0, 1.2)
    lit = np.broadcast_to(lit, (height, width))
    return weather.shade + (weather.light - weather.shade) * lit[..., None]


def _profile(pen: _Pen, rng: np.random.Generator, body: Field, glass: Field) -> None:
    """A car seen from its side, its front to the right."""
    van = rng.uniform() < 0.3
    roof = rng.uniform(1.55, 1.66) if van else rng.uniform(1.38, 1.48)
    tail = -1.95 if van else -1.35
    cabin = [(tail - 0.1, 0.86), (tail + 0.12, roof), (0.45, roof), (1.1, 0.88)]
    hull = [
        (-2.08, 0.36), (-2.13, 0.62), (-2.02, 0.9), (-1.5, 0.94), (1.15, 0.9), (1.9, 0.78),
        (2.13, 0.6), (2.13, 0.34),
    ]  # fmt: skip
    pen.polygon(cabin, _paint(body, 1.05))
    pen.polygon(hull, _paint(body))
    pen.polygon([(-2.08, 0.36), (-2.1, 0.5), (2.13, 0.48), (2.13, 0.3)], _paint(body, 0.72))
    split = -0.25
    rear = [(tail + 0.08, 0.93), (tail + 0.24, roof - 0.09), (split - 0.05, roof - 0.09)]
    pen.polygon([*rear, (split - 0.05, 0.93)], _paint(glass))
    fore = [(split + 0.05, 0.93), (split + 0.05, roof - 0.09), (0.4, roof - 0.09), (0.9, 0.93)]
    pen.polygon(fore, _paint(glass, 1.1))
    pen.limb([(split, 0.9), (split, 0.44)], 0.025, _paint(body, 0.6))
    pen.block(split - 0.4, 0.78, split - 0.16, 0.82, 0.02, _paint(body, 0.5))
    pen.block(1.93, 0.6, 2.12, 0.72, 0.04, (255, 244, 205, 255))
    pen.block(-2.11, 0.64, -1.97, 0.8, 0.04, (214, 38, 34, 255))
    for x in (-1.32, 1.34):
        pen.disc(x, 0.36, 0.42, 0.42, _paint(body, 0.35))
        pen.disc(x, 0.33, 0.35, 0.33, (26, 26, 30, 255))
        pen.disc(x, 0.33, 0.2, 0.2, (176, 178, 184, 255))
        pen.disc(x, 0.33, 0.07, 0.07, (70, 72, 78, 255))


def _end(pen: _Pen, rng: np.random.Generator, body: Field, glass: Field, rear: bool) -> None:
    """A car seen from behind or ahead."""
    roof = rng.uniform(1.42, 1.62)
    for x in (-0.72, 0.72):
        pen.block(x - 0.14, 0.0, x + 0.14, 0.5, 0.06, (24, 24, 28, 255))
    pen.polygon([(-0.84, 0.85), (-0.62, roof), (0.62, roof), (0.84, 0.85)], _paint(body, 0.95))
    pen.block(-0.92, 0.22, 0.92, 0.98, 0.16, _paint(body))
    pen.block(-0.9, 0.2, 0.9, 0.42, 0.1, _paint(body, 0.6))
    pane = [(-0.72, 0.94), (-0.55, roof - 0.1), (0.55, roof - 0.1), (0.72, 0.94)]
    pen.polygon(pane, _paint(glass))
    pen.polygon(
        [(-0.5, 0.94), (-0.3, roof - 0.1), (0.0, roof - 0.1), (-0.2, 0.94)], _paint(glass, 1.4)
    )
    lamp = (222, 36, 32, 255) if rear else (255, 246, 214, 255)
    for x in (-0.72, 0.72):
        pen.block(x - 0.15, 0.66, x + 0.15, 0.82, 0.05, lamp)
    if rear:
        pen.block(-0.26, 0.46, 0.26, 0.6, 0.02, (236, 236, 226, 255))
    else:
        pen.block(-0.48, 0.5, 0.48, 0.68, 0.05, (34, 34, 40, 255))
        pen.block(-0.26, 0.3, 0.26, 0.42, 0.02, (236, 236, 226, 255))
