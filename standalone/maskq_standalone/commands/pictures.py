"""What the demo submits: drawn scenes with their truth, and photographs."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from maskq.errors import MaskqError

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Of various shapes, none square: masks must come back at the image's own size.
_SIZES = ((640, 480), (800, 600), (480, 640), (960, 540), (720, 480))
SHIPPED, SHIPPED_SEED = 8, 1  # the scenes that the package holds
_PHOTOGRAPHS = ("astronaut", "coffee", "chelsea")  # free licences, shipped by scikit-image


@dataclass(frozen=True, slots=True)
class Picture:
    name: str
    image: Image.Image  # RGB
    truth: NDArray[np.uint8] | None = None  # (H, W) class ids; None for a photograph


class DrawingUnavailable(MaskqError):
    """Only a checkout of the repository can draw scenes; an installed package has the shipped ones."""


def shipped_scenes(count: int) -> list[Picture]:
    """The first `count` of the drawn scenes that the package holds. Training never saw them."""
    pictures = []
    with as_file(files("maskq_standalone.demo") / "scenes") as folder:
        for path in sorted(folder.glob("*.webp"))[:count]:
            with Image.open(path, formats=("WEBP",)) as image:
                truth = np.asarray(Image.open(path.with_suffix(".png"), formats=("PNG",)))
                pictures.append(Picture(path.stem, image.convert("RGB"), truth))
    return pictures


def drawn_scenes(seed: int, count: int) -> list[Picture]:
    """Draw `count` scenes that training never saw. The same seed draws the same scenes.

    Raises:
        DrawingUnavailable: outside a checkout.
        ValueError: `seed` is out of range.
    """
    if importlib.util.find_spec("demo_scenes") is None:
        raise DrawingUnavailable(
            "drawing other scenes needs a checkout of the maskq repository, installed by `make demo` or"
            f" `pip install -e '.[standalone]'`; without --seed, the {SHIPPED} shipped scenes are used"
        )
    from demo_scenes.scenes import draw
    from demo_scenes.seeds import held_out

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
