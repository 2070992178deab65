"""What the demo submits: drawn scenes with their truth, and photographs."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from maskq_standalone.demo.scenes import draw
from maskq_standalone.demo.seeds import held_out

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Of various shapes, none square: masks must come back at the image's own size.
_SIZES = ((640, 480), (800, 600), (480, 640), (960, 540), (720, 480))
_PHOTOGRAPHS = ("astronaut", "coffee", "chelsea")  # free licences, shipped by scikit-image


@dataclass(frozen=True, slots=True)
class Picture:
    name: str
    image: Image.Image  # RGB
    truth: NDArray[np.uint8] | None = None  # (H, W) class ids; None for a photograph


def scenes(seed: int, count: int) -> list[Picture]:
    """`count` drawn scenes that training never saw; the same seed draws the same."""
    drawn = []
    for number in range(count):
        scene = draw(held_out(seed, number), size=_SIZES[number % len(_SIZES)])
        drawn.append(Picture(f"scene-{seed}-{number}", scene.image, scene.mask))
    return drawn


def photographs(own: list[Path]) -> list[Picture]:
    """The caller's own, or a few of a free licence. Raises OSError for what is no image."""
    if own:
        return [
            Picture(name, ImageOps.exif_transpose(Image.open(path)).convert("RGB"))
            for name, path in zip(_named_apart(path.stem for path in own), own, strict=True)
        ]
    from skimage import data

    return [
        Picture(name, Image.fromarray(getattr(data, name)()).convert("RGB"))
        for name in _PHOTOGRAPHS
    ]


def _named_apart(names: Iterable[str]) -> list[str]:
    """A number behind those that are there already."""
    apart: list[str] = []
    for name in names:
        numbered = (f"{name}-{number}" for number in itertools.count(2))
        apart.append(next(one for one in itertools.chain([name], numbered) if one not in apart))
    return apart


def beside(picture: Picture, overlay: Image.Image, caption: str) -> Image.Image:
    """The original and its overlay side by side over a caption."""
    width, height = picture.image.size
    band = max(22, height // 20)
    sheet = Image.new("RGB", (2 * width + 8, height + band), "white")
    sheet.paste(picture.image, (0, 0))
    sheet.paste(overlay, (width + 8, 0))
    draw_on = ImageDraw.Draw(sheet)
    draw_on.text((6, height + 3), caption, fill="black", font_size=int(band * 0.62))
    return sheet
