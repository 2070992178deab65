"""Compare a network's masks with float32's: how many pixels agree, and where the others lie.

A pixel whose best score exceeds the second by little may get another class. The bound of uncertain
pixels is measured on some images and checked on others.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from maskq_worker.model.errors import ModelError
from maskq_worker.model.masks.bounded import margins_at, mask_with_uncertain, upsampled_argmax
from maskq_worker.model.masks.scores import all_finite

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from PIL import Image

    from maskq_worker.model.preprocess.preprocessor import Preprocessor

CLASSES: Final = 2**16  # of a mask at most
EVERY: Final = 3  # one of so many images is held out
FEWEST: Final = 12  # images
_FACTOR: Final = 2.0  # of the bound, times the worst margin and the largest error

# From pixels (N, H, W, 3) uint8 to scores (N, C, h, w) float32.
Forward = Callable[["NDArray[np.uint8]"], "torch.Tensor"]


@dataclass(frozen=True, slots=True)
class Sample:
    """An image as the network takes it."""

    pixels: NDArray[np.uint8]  # (h, w, 3)
    size: tuple[int, int]  # (H, W) px of its mask


@dataclass(frozen=True, slots=True)
class Measured:
    """How a network's masks differ from float32's, at the images' own sizes.

    A margin is a pixel's best score minus its second.
    """

    images: int  # all
    agreement: float  # share of their pixels with float32's class, 0..1
    miou: float  # mean intersection over union of float32's classes, 0..1
    worst_margin: float  # of a pixel that differs, in the two thirds that the bound is measured on
    largest_error: float  # of a score, in these images
    uncertain_below: float  # the bound: pixels with a smaller margin are uncertain
    uncertain_share: float  # of the pixels of the other third, 0..1
    missed_pixels: int  # of the other third: they differ, and are not uncertain


def samples(preprocessor: Preprocessor, images: Iterable[Image.Image]) -> list[Sample]:
    """As mode `whole` gives images to the network. images: RGB, upright, any size."""
    made = []
    for image in images:
        pixels, area = preprocessor.whole(image)
        made.append(
            Sample(pixels, (area.height, area.width) if area else (image.height, image.width))
        )
    return made


def refuse_too_few(samples: Sequence[object], what: str) -> None:
    """Raise ModelError for too few images. what: they are for, as `calibrate 8 bits`."""
    if len(samples) < FEWEST:
        raise ModelError(
            f"{len(samples)} images are too few to {what} and check them: give at least {FEWEST}, some "
            "dozens like those of your jobs"
        )


def measure(
    exact: Forward,
    other: Forward,
    samples: Sequence[Sample],
    on_image: Callable[[int], object] = lambda _: None,
) -> Measured:
    """Compare two networks on images. The bound is measured on two thirds and checked on the others.

    It is twice the worst margin of a pixel that differs, and at least twice the largest error of a
    score: two errors together close a margin, and of a few images the largest error says more than the
    few pixels that differ.

    Args:
        exact, other: the networks; `exact` computes in float32.
        on_image: is called with the number of images done.

    Raises:
        ModelError: if scores are NaN or infinite.
    """
    overlap = Overlap()
    worst = error = 0.0
    others = [one for index, one in enumerate(samples) if index % EVERY]
    checked = samples[::EVERY]
    for done, sample in enumerate(others, 1):
        scores, expected = _scores(other, sample), _scores(exact, sample)
        error = max(error, (scores - expected).abs().max().item())
        masks = [upsampled_argmax(one, sample.size) for one in (expected, scores)]
        overlap.add(*masks)
        worst = max(worst, _worst_margin(scores, *masks))
        on_image(done)
    below = _FACTOR * max(worst, error)
    missed = uncertain = 0
    for done, sample in enumerate(checked, 1 + len(others)):
        expected_mask = upsampled_argmax(_scores(exact, sample), sample.size)
        mask, doubtful = mask_with_uncertain(_scores(other, sample), sample.size, below)
        overlap.add(expected_mask, mask)
        missed += int(((mask != expected_mask) & ~doubtful).sum())
        uncertain += int(doubtful.sum())
        on_image(done)
    total = sum(math.prod(sample.size) for sample in checked)
    return Measured(
        images=len(samples),
        agreement=overlap.agreement,
        miou=overlap.miou,
        worst_margin=worst,
        largest_error=error,
        uncertain_below=below,
        uncertain_share=uncertain / total,
        missed_pixels=missed,
    )


class Overlap:
    """Counts how masks agree with float32's, over all pixels of all images together."""

    def __init__(self) -> None:
        self._pairs: Counter[tuple[int, int]] = Counter()  # (float32's class, the other) → pixels

    def add(self, exact: NDArray[Any], other: NDArray[Any]) -> None:
        """Masks (H, W) of one image."""
        found, counts = np.unique(exact.astype(np.int64) * CLASSES + other, return_counts=True)
        for place, count in zip(found.tolist(), counts.tolist(), strict=True):
            self._pairs[divmod(place, CLASSES)] += count

    @property
    def agreement(self) -> float:
        """The share of pixels with the same class, 0..1."""
        return sum(n for (a, b), n in self._pairs.items() if a == b) / self._pairs.total()

    @property
    def miou(self) -> float:
        """The mean intersection over union of float32's classes, 0..1."""
        rows, columns = Counter[int](), Counter[int]()
        for (a, b), count in self._pairs.items():
            rows[a] += count
            columns[b] += count
        same = {one: self._pairs[one, one] for one in rows}
        return fmean(same[one] / (rows[one] + columns[one] - same[one]) for one in rows)


def _worst_margin(scores: torch.Tensor, exact: NDArray[Any], mask: NDArray[Any]) -> float:
    """The largest margin of a pixel whose class is not float32's; 0 if there is none."""
    rows, columns = np.nonzero(mask != exact)
    if not len(rows):
        return 0.0
    return margins_at(scores, mask.shape, rows, columns).max().item()


def _scores(forward: Forward, sample: Sample) -> torch.Tensor:
    scores = forward(sample.pixels[None])[0].cpu()
    if not all_finite(scores):
        raise ModelError("some scores are NaN or infinite")
    return scores
