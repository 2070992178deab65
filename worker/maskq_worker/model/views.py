"""How an image is shown to the network: whole, at several scales, or in windows; and how scores merge.

- whole: resized to the network's square, as the checkpoint was trained.
- aspect: resized as little as makes one side the network's, the other in proportion, both rounded to
  32 px (as DPT's authors show images to it). For networks that take rectangles.
- multiscale: whole at three scales, each also mirrored; the mean of the scores (the 'multi-scale and
  flip' testing of segmentation papers). Six forwards.
- tiled: windows of the network's square, which overlap by a third, over the image at its own
  resolution, or as much of it as the budget for the merged scores allows. Where windows overlap, the
  one in whose middle a pixel lies counts most.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torch.nn import functional

from maskq.contract.jobs import Mode

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

SCALES: Final = (0.75, 1.0, 1.25)  # of the network's square
OVERLAP: Final = 1 / 3  # of a window
_MULTIPLE: Final = 32  # px: what DPT's patches and strides divide
_PER_SCORE: Final = 8  # bytes: a float32 in the sum, and one more while it is worked on

# Resizes an RGB image to (width, height) px: (height, width, 3).
Resize = Callable[["Image.Image", tuple[int, int]], "NDArray[np.uint8]"]


@dataclass(frozen=True, slots=True)
class View:
    """One thing for the network to look at."""

    pixels: NDArray[np.uint8]  # (h, w, 3); several views may be parts of one array
    top: int = 0  # of a window, px of the canvas
    left: int = 0
    mirrored: bool = False


@dataclass(frozen=True, slots=True)
class Views:
    """All that the network looks at for one image, and the grid that the scores are merged on."""

    each: tuple[View, ...]
    canvas: tuple[int, int] | None = None  # (height, width) px, of windows


def look(
    image: Image.Image, mode: Mode, resize: Resize, *, side: int, classes: int, budget: int
) -> Views:
    """image: RGB, upright. side: px of the network's square. budget: bytes for merged scores."""
    if mode is Mode.MULTISCALE:
        sides = [_rounded(side * scale) for scale in SCALES]
        arrays = [resize(image, (one, one)) for one in sides]
        mirrored = [array[:, ::-1] for array in arrays]
        return Views(
            tuple(View(array) for array in arrays)
            + tuple(View(array, mirrored=True) for array in mirrored)
        )
    if mode is Mode.TILED:
        height, width = canvas_size((image.height, image.width), side, classes, budget)
        pixels = resize(image, (width, height))
        return Views(
            tuple(
                View(pixels[top : top + side, left : left + side], top, left)
                for top in starts(height, side)
                for left in starts(width, side)
            ),
            (height, width),
        )
    if mode is Mode.ASPECT:
        height, width = aspect_size((image.height, image.width), side, classes, budget)
        return Views((View(resize(image, (width, height))),))
    return Views((View(resize(image, (side, side))),))


def aspect_size(size: tuple[int, int], side: int, classes: int, budget: int) -> tuple[int, int]:
    """(height, width) px: one of them `side`, the ratio kept, or less of both where the scores of a
    panorama would not fit the budget."""
    height, width = size
    # As little as possible, as transformers' processor keeps a ratio.
    scale = min((side / width, side / height), key=lambda one: abs(1 - one))
    fitting = _rounded(height * scale), _rounded(width * scale)
    pixels = budget / (_PER_SCORE * classes)
    if math.prod(fitting) <= pixels:
        return fitting
    # Of the exact lengths, which may be longer than the rounded ones.
    scale = min(scale, math.sqrt(pixels / (height * width)))
    return _rounded(height * scale, math.floor), _rounded(width * scale, math.floor)


def _rounded(length: float, how: Callable[[float], int] = round) -> int:
    """In multiples of what patches and strides divide, px."""
    return max(_MULTIPLE, how(length / _MULTIPLE) * _MULTIPLE)


def canvas_size(size: tuple[int, int], side: int, classes: int, budget: int) -> tuple[int, int]:
    """(height, width) px on which windows are laid: the image's own, or what the budget holds of it."""
    height, width = size
    shrink = min(1.0, math.sqrt(budget / (_PER_SCORE * classes * height * width)))
    # A strip that is narrower than a window is widened to one, and shortened instead.
    longest = max(side, budget // (_PER_SCORE * classes * side))
    return (
        min(max(side, round(height * shrink)), longest),
        min(max(side, round(width * shrink)), longest),
    )


def starts(length: int, side: int) -> list[int]:
    """Where windows of `side` begin that cover `length` evenly and overlap by OVERLAP at least."""
    count = max(1, math.ceil((length - side) / (side * (1 - OVERLAP))) + 1)
    return [round(i * (length - side) / max(1, count - 1)) for i in range(count)]


class Merged:
    """Scores of an image's views, added as they come."""

    def __init__(self, views: Views) -> None:
        self._views = views
        self._sum: torch.Tensor | None = None  # (C, h, w)
        self._weight: torch.Tensor | None = None  # (h, w), of windows
        self._count = 0

    def add(self, view: View, scores: torch.Tensor) -> None:
        """scores: (C, h, w) float32 of one view."""
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
        """(C, h, w): the mean."""
        if self._count != len(self._views.each) or self._sum is None:
            raise ValueError(f"{self._count} of {len(self._views.each)} views were added")
        if self._weight is not None:
            return self._sum.div_(self._weight)
        return self._sum if self._count == 1 else self._sum.div_(self._count)

    def _on_grid(self, scores: torch.Tensor) -> torch.Tensor:
        """At the size of the largest view: no view loses detail."""
        largest = max(view.pixels.shape[0] for view in self._views.each)
        return _resized(scores, largest, largest)

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
    """(height, width) weights, 1 in the middle, falling linearly to the edges, nowhere 0."""
    sides: list[Any] = []
    for length in (height, width):
        position = (torch.arange(length, device=device) + 0.5) / length
        sides.append(1 - (2 * position - 1).abs() + 1 / length)
    return torch.minimum(sides[0][:, None], sides[1][None, :])
