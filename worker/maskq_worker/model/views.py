"""Makes the network's inputs (views) from an image, and merges their scores.

- whole: one view, which the checkpoint's image processor makes. Most resize the image to the trained
  size. Those of some families crop its centre.
- aspect: one view that keeps the aspect ratio, as DPT's authors do. One side has the trained size. Both
  are rounded to multiples of the network's stride. Needs a network that takes rectangles.
- multiscale: the image at three scales, each also mirrored, and the mean of the scores: the
  "multi-scale and flip" testing of segmentation papers. Six forwards. Needs a network that takes other
  sizes.
- tiled: windows of the trained size that overlap by a third. They cover the image at its own
  resolution, or at the largest resolution that the budget for merged scores allows. In an overlap the
  window whose centre is nearest has the highest weight.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
import torch
from torch.nn import functional

from maskq.contract.options import Mode

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

    from maskq_worker.model.preprocess.frame import ImageArea

SCALES: Final = (0.75, 1.0, 1.25)  # of the trained size
OVERLAP: Final = 1 / 3  # of a window
_PER_SCORE: Final = 8  # bytes: a float32 in the sum, and one in a temporary array


class Preprocessing(Protocol):
    """The part of a Preprocessor that `make_views` uses."""

    def __call__(self, image: Image.Image, size: tuple[int, int]) -> NDArray[np.uint8]:
        """The whole image resized. size: (width, height) px. Returns (height, width, 3)."""
        ...

    def whole(self, image: Image.Image) -> tuple[NDArray[np.uint8], ImageArea | None]:
        """The processor's view of the image, and the part of the image it shows (None: all)."""
        ...


@dataclass(frozen=True, slots=True)
class View:
    """One input of the network."""

    pixels: NDArray[np.uint8]  # (h, w, 3); views may share one array
    top: int = 0  # px on the canvas, for a window
    left: int = 0  # px on the canvas, for a window
    mirrored: bool = False


@dataclass(frozen=True, slots=True)
class Views:
    """All inputs of the network for one image, and the grid on which their scores are merged."""

    each: tuple[View, ...]
    canvas: tuple[int, int] | None = None  # (height, width) px that windows cover; None: no windows
    area: ImageArea | None = None  # the part of the image that the network sees; None: all of it


def make_views(
    image: Image.Image,
    mode: Mode,
    preprocess: Preprocessing,
    *,
    size: tuple[int, int],
    multiple: int,
    classes: int,
    budget: int,
) -> Views:
    """Make the views of an image.

    Args:
        image: RGB, upright.
        size: (height, width) px that the network was trained on.
        multiple: px; the sides of other sizes are multiples of it.
        classes: the number of classes.
        budget: bytes for the merged scores.
    """
    high, wide = size
    if mode is Mode.MULTISCALE:
        sizes = [tuple(_scaled(side, scale, multiple) for side in (wide, high)) for scale in SCALES]
        arrays = [preprocess(image, (width, height)) for width, height in sizes]
        mirrored = [array[:, ::-1] for array in arrays]
        return Views(
            tuple(View(array) for array in arrays)
            + tuple(View(array, mirrored=True) for array in mirrored)
        )
    if mode is Mode.TILED:
        height, width = canvas_size((image.height, image.width), size, classes, budget)
        pixels = preprocess(image, (width, height))
        return Views(
            tuple(
                View(pixels[top : top + high, left : left + wide], top, left)
                for top in starts(height, high)
                for left in starts(width, wide)
            ),
            (height, width),
        )
    if mode is Mode.ASPECT:
        height, width = aspect_size(
            (image.height, image.width), min(size), multiple, classes, budget
        )
        return Views((View(preprocess(image, (width, height))),))
    pixels, area = preprocess.whole(image)
    return Views((View(pixels),), area=area)


def aspect_size(
    size: tuple[int, int], side: int, multiple: int, classes: int, budget: int
) -> tuple[int, int]:
    """The size of the aspect view, (height, width) px. One side is `side`.

    Both sides are smaller if the scores would exceed the budget, as those of a panorama do.
    """
    height, width = size
    # transformers' processor also chooses the scale that changes the size least.
    scale = min((side / width, side / height), key=lambda one: abs(1 - one))
    fitting = _rounded(height * scale, multiple), _rounded(width * scale, multiple)
    pixels = budget / (_PER_SCORE * classes)
    if math.prod(fitting) <= pixels:
        return fitting
    # This scales the exact lengths, which may be longer than the rounded ones.
    scale = min(scale, math.sqrt(pixels / (height * width)))
    high = _rounded(height * scale, multiple, math.floor)
    wide = _rounded(width * scale, multiple, math.floor)
    # A side below one multiple was rounded up, so the other side gets shorter.
    longest = max(multiple, _rounded(pixels / min(high, wide), multiple, math.floor))
    return min(high, longest), min(wide, longest)


def _scaled(side: int, scale: float, multiple: int) -> int:
    """A scaled side, px. The trained size itself need not be a multiple."""
    return side if scale == 1 else _rounded(side * scale, multiple)


def _rounded(length: float, multiple: int, how: Callable[[float], int] = round) -> int:
    """A length rounded to a multiple, at least one, px."""
    return max(multiple, how(length / multiple) * multiple)


def canvas_size(
    size: tuple[int, int], window: tuple[int, int], classes: int, budget: int
) -> tuple[int, int]:
    """The size that windows cover, (height, width) px: the image's size, or less for the budget."""
    height, width = size
    shrink = min(1.0, math.sqrt(budget / (_PER_SCORE * classes * height * width)))
    high, wide = (
        max(least, round(length * shrink)) for least, length in zip(window, size, strict=True)
    )
    # An image narrower than a window was widened to the window, so its other side gets shorter.
    pixels = budget // (_PER_SCORE * classes)
    if high * wide > pixels:
        if high > wide:
            high = max(window[0], min(high, pixels // wide))
        else:
            wide = max(window[1], min(wide, pixels // high))
    return high, wide


def starts(length: int, side: int) -> list[int]:
    """The starts of windows of `side` px that cover `length` px evenly and overlap by OVERLAP."""
    count = max(1, math.ceil((length - side) / (side * (1 - OVERLAP))) + 1)
    return [round(i * (length - side) / max(1, count - 1)) for i in range(count)]


class MergedScores:
    """Merges the scores of an image's views."""

    def __init__(self, views: Views) -> None:
        self._views = views
        self._sum: torch.Tensor | None = None  # (C, h, w)
        self._weight: torch.Tensor | None = None  # (h, w), only for windows
        self._count = 0

    def add(self, view: View, scores: torch.Tensor) -> None:
        """Add the scores of one view. scores: (C, h, w) float32."""
        self._count += 1
        if self._views.canvas is not None:
            self._add_window(view, scores, self._views.canvas)
            return
        if view.mirrored:
            scores = scores.flip(2)
        if self._sum is None:
            self._sum = scores if len(self._views.each) == 1 else self._on_grid(scores)
        else:
            self._sum += self._on_grid(scores)

    def scores(self) -> torch.Tensor:
        """The mean, (C, h, w). Raises ValueError if a view was not added."""
        if self._count != len(self._views.each) or self._sum is None:
            raise ValueError(f"{self._count} of {len(self._views.each)} views were added")
        if self._weight is not None:
            return self._sum.div_(self._weight)
        return self._sum if self._count == 1 else self._sum.div_(self._count)

    def _on_grid(self, scores: torch.Tensor) -> torch.Tensor:
        """The scores at the size of the largest view, so that no view loses detail."""
        height, width = max(view.pixels.shape[:2] for view in self._views.each)
        return _resized(scores, height, width)

    def _add_window(self, view: View, scores: torch.Tensor, canvas: tuple[int, int]) -> None:
        height, width = view.pixels.shape[:2]
        if self._sum is None or self._weight is None:
            self._sum = scores.new_zeros((len(scores), *canvas))
            self._weight = scores.new_zeros(canvas)
        weight = _window(height, width, scores.device)
        rows = slice(view.top, view.top + height)
        columns = slice(view.left, view.left + width)
        self._sum[:, rows, columns].addcmul_(_resized(scores, height, width), weight)
        self._weight[rows, columns] += weight


def _resized(scores: torch.Tensor, height: int, width: int) -> torch.Tensor:
    if scores.shape[1:] == (height, width):
        return scores.clone()
    resized: torch.Tensor = functional.interpolate(
        scores[None], size=(height, width), mode="bilinear", align_corners=False
    )[0]
    return resized


def _window(height: int, width: int, device: torch.device) -> torch.Tensor:
    """Weights (height, width): 1 in the centre, falling linearly towards the edges, never 0."""
    sides: list[Any] = []
    for length in (height, width):
        position = (torch.arange(length, device=device) + 0.5) / length
        sides.append(1 - (2 * position - 1).abs() + 1 / length)
    return torch.minimum(sides[0][:, None], sides[1][None, :])
