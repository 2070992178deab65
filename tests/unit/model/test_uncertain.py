"""A pixel is uncertain if its margin, at the image's own size, is below the limit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from maskq_worker.model.masks import bounded as masks
from maskq_worker.model.masks.bounded import mask_with_uncertain, upsampled_argmax

ROUNDING = 1e-5  # margins so close to the limit may fall on either side


def scores(classes: int, height: int, width: int, *, knots: int) -> torch.Tensor:
    """Regions of one class each: smaller ones with more knots. Margins reach down to 0 between them."""
    generator = torch.Generator().manual_seed(classes + 7 * knots)
    knots_of = torch.randn(1, classes, knots, knots, generator=generator)
    return interpolate(knots_of, size=(height, width), mode="bilinear")[0]


def margins(logits: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    large = interpolate(logits[None], size=size, mode="bilinear", align_corners=False)[0]
    best = large.topk(2, dim=0).values
    return best[0] - best[1]


def assert_right(
    logits: torch.Tensor, size: tuple[int, int], below: float, uncertain: np.ndarray
) -> None:
    margin = margins(logits, size)
    expected = (margin < below).numpy()
    settled = ((margin - below).abs() > ROUNDING).numpy()
    assert uncertain.dtype == np.bool_
    assert (uncertain == expected)[settled].all()


@pytest.mark.parametrize("few", [0, 32])
@pytest.mark.parametrize("below", [0.02, 0.3])
@pytest.mark.parametrize(
    ("classes", "source", "target", "knots"),
    [
        (40, (16, 16), (120, 90), 3),  # by cells: pixels are many times the places
        (40, (16, 16), (120, 90), 12),  # more than the few candidates matter in many cells
        (40, (24, 24), (30, 28), 4),  # pixel by pixel
        (40, (24, 24), (9, 50), 4),  # down and up
        (6, (16, 16), (120, 90), 3),
        (2, (9, 9), (64, 64), 3),
        (6, (1, 8), (40, 8), 3),
    ],
)
def test_uncertain_pixels_are_those_with_a_small_margin(
    few: int,
    below: float,
    classes: int,
    source: tuple[int, int],
    target: tuple[int, int],
    knots: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(masks, "_FEW_CLASSES", few)
    logits = scores(classes, *source, knots=knots)
    for budget in (masks.BUDGET_BYTES, 2**16):
        mask, uncertain = mask_with_uncertain(logits, target, below, budget_bytes=budget)
        assert np.array_equal(mask, upsampled_argmax(logits, target, budget_bytes=budget))
        assert_right(logits, target, below, uncertain)


def test_a_dense_mask_s_uncertain_pixels_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masks, "_DENSE", 0.0)
    logits = scores(40, 16, 16, knots=12)
    mask, uncertain = mask_with_uncertain(logits, (120, 90), 0.3)
    assert np.array_equal(mask, upsampled_argmax(logits, (120, 90)))
    assert_right(logits, (120, 90), 0.3, uncertain)


@pytest.mark.parametrize("few", [0, 32])
def test_one_class_is_never_uncertain(few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masks, "_FEW_CLASSES", few)
    for size in ((40, 40), (3, 3)):
        _, uncertain = mask_with_uncertain(torch.zeros(1, 4, 4), size, 1e9)
        assert not uncertain.any()


def test_a_second_class_that_never_wins_makes_pixels_uncertain() -> None:
    """No cell is a border: only the corners' margins say it."""
    logits = torch.zeros(40, 16, 16)
    logits[3], logits[7] = 1.0, 0.9
    logits[7, :, 8:] = 0.5
    _, uncertain = mask_with_uncertain(logits, (120, 90), 0.3)
    assert_right(logits, (120, 90), 0.3, uncertain)
    assert 0.4 < uncertain.mean() < 0.6


def test_a_steep_border_has_uncertain_pixels() -> None:
    """No corner is close: the margin is small between them."""
    logits = torch.zeros(40, 16, 16)
    logits[3, :, :8], logits[7, :, 8:] = 9.0, 9.0
    _, uncertain = mask_with_uncertain(logits, (120, 900), 0.3)
    assert_right(logits, (120, 900), 0.3, uncertain)
    assert uncertain.any()
