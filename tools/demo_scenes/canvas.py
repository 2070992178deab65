"""The canvas: a picture and its label map painted together, back to front."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from demo_scenes.textures import Field

BUILDING: Final = 1
SKY: Final = 2
TREE: Final = 4
ROAD: Final = 6
GRASS: Final = 9
SIDEWALK: Final = 11
PERSON: Final = 12
EARTH: Final = 13
MOUNTAIN: Final = 16
CAR: Final = 20
WATER: Final = 21

CLASSES: Final = (
    BUILDING, SKY, TREE, ROAD, GRASS, SIDEWALK, PERSON, EARTH, MOUNTAIN, CAR, WATER,
)  # fmt: skip

Box = tuple[int, int, int, int]
Point = tuple[float, float]


class Canvas:
    """`rgb` (H, W, 3) float32 in 0..1 and `mask` (H, W) uint8 of ADE20K model class ids."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.rgb = np.zeros((height, width, 3), dtype=np.float32)
        self.mask = np.full((height, width), SKY, dtype=np.uint8)

    def box(self, left: float, top: float, right: float, bottom: float) -> Box | None:
        """The pixels that a rectangle touches, as (top, bottom, left, right); None if none."""
        y0, y1 = max(int(top) - 1, 0), min(int(bottom) + 2, self.height)
        x0, x1 = max(int(left) - 1, 0), min(int(right) + 2, self.width)
        return (y0, y1, x0, x1) if y0 < y1 and x0 < x1 else None

    def paint(self, box: Box, cover: Field, colour: Field, label: int | None) -> None:
        """Lays `colour` ((3,) or (h, w, 3)) over `box` by `cover` (h, w) in 0..1.

        A pixel takes the label once more than half of it is covered, so the mask follows the
        anti-aliased edge; label None leaves the labels (shadows, light).
        """
        y0, y1, x0, x1 = box
        region = self.rgb[y0:y1, x0:x1]
        region += (colour - region) * cover[..., None]
        if label is not None:
            self.mask[y0:y1, x0:x1][cover > 0.5] = label

    def shade(self, box: Box, cover: Field, factor: Field) -> None:
        """Multiplies the picture by `factor` (3,) where covered; labels stay."""
        y0, y1, x0, x1 = box
        self.rgb[y0:y1, x0:x1] *= 1 + (factor - 1) * cover[..., None]

    def paste(self, sprite: Image.Image, left: float, top: float, light: Field, label: int) -> None:
        """Lays an RGBA sprite with its corner at (left, top) px, lit by `light` (3,) or (h,w,3)."""
        pixels = np.asarray(sprite, dtype=np.float32) / 255.0
        x, y = round(left), round(top)
        y0, x0 = max(y, 0), max(x, 0)
        y1, x1 = min(y + sprite.height, self.height), min(x + sprite.width, self.width)
        if y0 >= y1 or x0 >= x1:
            return
        cut = (slice(y0 - y, y1 - y), slice(x0 - x, x1 - x))
        lit = pixels[cut][..., :3] * (light if light.ndim == 1 else light[cut])
        self.paint((y0, y1, x0, x1), pixels[cut][..., 3], lit, label)


def grid(box: Box) -> tuple[Field, Field]:
    """Pixel centres of a box: rows (h, 1) and columns (1, w), px."""
    y0, y1, x0, x1 = box
    rows = np.arange(y0, y1, dtype=np.float32)[:, None] + 0.5
    return rows, np.arange(x0, x1, dtype=np.float32)[None, :] + 0.5


def convex_cover(points: Sequence[Point], box: Box) -> Field:
    """The anti-aliased cover (h, w) of a convex polygon, corners in px clockwise on the screen."""
    rows, cols = grid(box)
    cover = np.ones((box[1] - box[0], box[3] - box[2]), dtype=np.float32)
    for (xa, ya), (xb, yb) in zip(points, [*points[1:], points[0]], strict=True):
        length = float(np.hypot(xb - xa, yb - ya)) or 1.0
        inside = ((xb - xa) * (rows - ya) - (yb - ya) * (cols - xa)) / length
        np.minimum(cover, np.clip(inside + 0.5, 0, 1), out=cover)
    return cover


def bounds(points: Sequence[Point]) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) of some points."""
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    return min(xs), min(ys), max(xs), max(ys)


def as_array(values: Sequence[float]) -> NDArray[np.float32]:
    """A float32 vector."""
    return np.array(values, dtype=np.float32)
