"""Mean intersection over union, as semantic segmentation is scored."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

CLASSES = 256


def confusion(pairs: Iterable[tuple[NDArray[Any], NDArray[Any]]]) -> NDArray[np.int64]:
    """(CLASSES, CLASSES) pixel counts over all (truth, prediction) pairs, rows by truth."""
    total = np.zeros(CLASSES * CLASSES, dtype=np.int64)
    for truth, prediction in pairs:
        if truth.shape != prediction.shape:
            raise ValueError(f"truth is {truth.shape}, the prediction {prediction.shape}")
        both = truth.astype(np.int64) * CLASSES + prediction
        total += np.bincount(both.ravel(), minlength=CLASSES * CLASSES)
    return total.reshape(CLASSES, CLASSES)


def class_iou(counts: NDArray[np.int64]) -> dict[int, float]:
    """Class id → intersection over union, of the classes in the truth."""
    present = np.flatnonzero(counts.sum(axis=1))
    union = counts.sum(axis=0) + counts.sum(axis=1) - counts.diagonal()
    return {int(i): float(counts[i, i] / union[i]) for i in present}


def mean_iou(pairs: Iterable[tuple[NDArray[Any], NDArray[Any]]]) -> float:
    """The mean over the classes in the truth, all pairs counted together."""
    return float(np.mean(list(class_iou(confusion(pairs)).values())))


def colour_baseline(
    fit: Iterable[tuple[NDArray[np.uint8], NDArray[np.uint8]]],
    score: Iterable[tuple[NDArray[np.uint8], NDArray[np.uint8]]],
) -> float:
    """The mean IoU of the best guess by a pixel's colour alone, over (image, truth) pairs.

    Colours fall in 32 bins a channel; each bin guesses the class it held most often in `fit`.
    """
    votes = np.zeros((32**3, CLASSES), dtype=np.int64)
    for image, truth in fit:
        np.add.at(votes, (_bins(image), truth.ravel()), 1)
    guess = votes.argmax(axis=1)
    return mean_iou((truth, guess[_bins(image)].reshape(truth.shape)) for image, truth in score)


def _bins(image: NDArray[np.uint8]) -> NDArray[np.int64]:
    red, green, blue = (image.reshape(-1, 3) >> 3).astype(np.int64).T
    return (red * 32 + green) * 32 + blue
