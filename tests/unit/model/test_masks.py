"""The mask at the image's own size equals interpolate + argmax, but for ties."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from maskq_worker.model.masks import bounded as masks
from maskq_worker.model.masks import compared
from maskq_worker.model.masks.bounded import mask_with_confidence, upsampled_argmax
from maskq_worker.model.masks.comparison import TIE, untied_differences
from maskq_worker.model.masks.interpolation import Interpolation
from maskq_worker.model.masks.scores import all_finite


@pytest.fixture(autouse=True)
def _by_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    """Masks of few classes, as most of these tests have, would all be made another way."""
    monkeypatch.setattr(masks, "_FEW_CLASSES", 0)


def reference(logits: torch.Tensor, size: tuple[int, int]) -> np.ndarray:
    scores = interpolate(logits[None], size=size, mode="bilinear", align_corners=False)[0]
    return scores.argmax(dim=0).numpy()


def assert_same_but_for_ties(logits: torch.Tensor, mask: np.ndarray, size: tuple[int, int]) -> None:
    """Wherever the masks differ, the two classes are within 1e-5 of the largest score."""
    expected = reference(logits, size)
    y, x = np.nonzero(mask != expected)
    exact = interpolate(logits[None].double(), size=size, mode="bilinear", align_corners=False)[0]
    gaps = (exact[mask[y, x].astype(int), y, x] - exact[expected[y, x], y, x]).abs()
    assert len(y) < 1e-3 * mask.size
    assert (gaps < 1e-5 * logits.abs().max()).all()


def noise(classes: int, height: int, width: int, scale: float = 10.0) -> torch.Tensor:
    """Every cell is a border between regions: the hardest case."""
    generator = torch.Generator().manual_seed(classes * 1000 + height + width)
    return torch.randn(classes, height, width, generator=generator) * scale


def regions(classes: int, side: int) -> torch.Tensor:
    """Large areas of one class, as in photographs."""
    return interpolate(noise(classes, 5, 5)[None], size=(side, side), mode="bicubic")[0]


@pytest.mark.parametrize(
    ("classes", "source", "target"),
    [
        (150, (24, 24), (101, 67)),  # up, by no whole number
        (150, (24, 24), (24, 24)),  # as it is
        (150, (48, 48), (17, 31)),  # down
        (7, (20, 20), (90, 9)),  # up and down
        (7, (480, 480), (1999, 3)),  # far enough for float32 coordinates to be rounded
        (7, (480, 480), (3, 2003)),
        (2, (33, 17), (250, 350)),
        (5, (1, 1), (9, 7)),  # a single score
        (5, (1, 8), (40, 1)),  # one row, one column
        (5, (8, 1), (1, 40)),
        (5, (2, 3), (1, 1)),
        (1, (4, 4), (8, 8)),  # a single class
        (256, (6, 6), (19, 23)),
    ],
)
def test_the_mask_is_the_references(
    classes: int, source: tuple[int, int], target: tuple[int, int]
) -> None:
    logits = noise(classes, *source)
    mask = upsampled_argmax(logits, target)
    assert (mask.dtype, mask.shape) == (np.uint8, target)
    assert_same_but_for_ties(logits, mask, target)


@pytest.mark.parametrize(
    ("source", "target"),
    # From 33 the coordinate falls on whole positions, where rounding decides which is the first.
    [(33, 13), (33, 209), (33, 33), (480, 4000), (480, 7), (1, 5), (2, 5), (3, 1)],
)
def test_the_weights_are_interpolates_own(source: int, target: int) -> None:
    signal = noise(1, 1, source)[0]
    interpolation = Interpolation.of(source, target, torch.device("cpu"))
    ours = (
        interpolation.first_weight * signal[0, interpolation.first]
        + interpolation.second_weight * signal[0, interpolation.second]
    )
    expected = interpolate(signal[None], size=target, mode="linear", align_corners=False)[0, 0]
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)
    whole = interpolation.first_weight + interpolation.second_weight
    torch.testing.assert_close(whole, torch.ones(target), rtol=0, atol=1e-7)


@pytest.mark.parametrize("target", [(40, 60), (167, 231), (640, 427)])
def test_large_regions_too(target: tuple[int, int]) -> None:
    logits = regions(150, 60)
    mask = upsampled_argmax(logits, target)
    assert len(np.unique(mask)) > 5
    assert_same_but_for_ties(logits, mask, target)


@pytest.mark.parametrize("classes", [3, 5, 6, 40])
def test_more_classes_can_win_in_a_cell_than_are_looked_at_alone(classes: int) -> None:
    """Borders here and there only, so that no band is taken whole."""
    logits = regions(classes, 60)
    logits[:, 20:24, 20:24] = noise(classes, 4, 4)
    target = (400, 300)
    assert_same_but_for_ties(logits, upsampled_argmax(logits, target), target)


def test_a_class_that_is_best_at_no_corner_can_win_between_them() -> None:
    logits = torch.tensor([[10.0, 0.0], [0.0, 10.0], [9.0, 9.0]])[:, None, :]  # (3, 1, 2)
    mask = upsampled_argmax(logits, (1, 9))
    assert set(mask[0]) == {0, 1, 2}
    assert_same_but_for_ties(logits, mask, (1, 9))


@pytest.mark.parametrize(
    ("logits", "target"),
    [
        pytest.param(noise(9, 12, 12), (50, 41), id="noise"),
        pytest.param(regions(150, 40), (167, 231), id="regions", marks=pytest.mark.slow),
        pytest.param(noise(300, 6, 6), (13, 29), id="300 classes"),
    ],
)
def test_confidence_is_the_winner_s_softmax(logits: torch.Tensor, target: tuple[int, int]) -> None:
    mask, confidence = mask_with_confidence(logits, target, budget_bytes=100_000)
    exact = interpolate(logits[None].double(), size=target, mode="bilinear", align_corners=False)
    expected = exact[0].softmax(dim=0).max(dim=0).values.numpy() * 255
    assert confidence.dtype == np.uint8
    assert np.abs(confidence - expected).max() <= 0.51
    assert_same_but_for_ties(logits, mask, target)


@pytest.mark.parametrize("budget_bytes", [1, 4096, 100_000])
def test_bands_and_portions_leave_no_seams(budget_bytes: int) -> None:
    logits, target = noise(9, 12, 12), (50, 41)
    mask = upsampled_argmax(logits, target, budget_bytes=budget_bytes)
    assert np.array_equal(mask, upsampled_argmax(logits, target))


@pytest.mark.parametrize("target", [(64, 64), (40, 7), (1, 1)])
@pytest.mark.parametrize("band", [1, 2000, 1 << 17])
def test_a_small_mask_of_few_classes_is_the_reference_s_own(
    monkeypatch: pytest.MonkeyPatch, target: tuple[int, int], band: int
) -> None:
    monkeypatch.setattr(masks, "_FEW_CLASSES", 8)
    monkeypatch.setattr(compared, "_BAND", band)
    monkeypatch.setattr(masks, "parts", None)  # nothing else is asked
    mask = upsampled_argmax(noise(8, 32, 32).movedim(0, -1).contiguous().movedim(-1, 0), target)
    assert mask.dtype == np.uint8
    assert np.array_equal(mask, reference(noise(8, 32, 32), target))
    with pytest.raises(TypeError, match="NoneType"):  # more classes, or more than the budget holds
        upsampled_argmax(noise(9, 32, 32), target)
    with pytest.raises(TypeError, match="NoneType"):
        upsampled_argmax(noise(8, 32, 32), target, budget_bytes=31)
    with pytest.raises(TypeError, match="NoneType"):  # few pixels, but between 32 rows of scores
        upsampled_argmax(noise(8, 32, 32), (1, 20_000))


def test_of_few_classes_that_are_equal_the_first_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masks, "_FEW_CLASSES", 8)
    logits = noise(3, 4, 4)
    mask = upsampled_argmax(torch.cat([logits, logits]), (9, 9))
    assert np.array_equal(mask, reference(logits, (9, 9)))


def test_more_than_256_classes_need_16_bits() -> None:
    logits = noise(300, 8, 8)
    mask = upsampled_argmax(logits, (30, 21))
    assert mask.dtype == np.uint16
    assert mask.max() > 255
    assert_same_but_for_ties(logits, mask, (30, 21))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_types_are_taken_as_float32(dtype: torch.dtype) -> None:
    logits = noise(9, 12, 12).to(dtype)
    assert np.array_equal(
        upsampled_argmax(logits, (50, 41)), upsampled_argmax(logits.float(), (50, 41))
    )


@pytest.mark.slow
def test_memory_stays_near_the_budget() -> None:
    """150 classes at 600x800 would be 288 MB at once; no tensor may come near that."""
    logits, largest = regions(150, 24), 0

    class Sizes(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            nonlocal largest
            result = func(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor):
                largest = max(largest, result.nbytes)
            return result

    with Sizes():
        upsampled_argmax(logits, (600, 800), budget_bytes=2**20)
    assert largest <= 2**20


def test_differences_are_counted_unless_tied() -> None:
    logits = torch.zeros(3, 1, 4)
    logits[0] = 1.0
    logits[1] = torch.tensor([1.0, 1.0 - TIE / 2, 1.0 - 2 * TIE, 0.0])
    ours, other = np.zeros((1, 4), np.uint8), np.ones((1, 4), np.uint8)
    assert untied_differences(logits, ours, ours) == 0
    assert untied_differences(logits, ours, other) == 2
    assert untied_differences(logits, ours, other.T) == 4  # of another shape: all differ


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_one_score_that_is_not_finite_is_found_wherever_it_is(value: float) -> None:
    for place in ((0, 0, 0), (2, 1, 3), (4, 6, 8)):
        scores = noise(5, 7, 9)
        assert all_finite(scores)
        scores[place] = value
        assert not all_finite(scores)


def test_infinities_of_both_signs_do_not_cancel() -> None:
    scores = noise(5, 7, 9)
    scores[0, 0, 0], scores[1, 0, 0] = torch.inf, -torch.inf
    assert not all_finite(scores)


def test_finite_scores_whose_sum_is_too_large_are_finite() -> None:
    scores = torch.full((3, 4, 4), 3e38)
    assert not scores.sum().isfinite()
    assert all_finite(scores)


def test_scores_that_are_not_finite_give_a_mask_of_the_models_classes() -> None:
    """Callers may ask for it; no index may lie outside the scores."""
    scores = noise(40, 6, 6)
    scores[:, 2:4, 2:4] = torch.nan
    mask = upsampled_argmax(scores, (40, 40))
    assert mask.shape == (40, 40)
    assert mask.max() < 40


def test_every_number_of_classes_that_can_win_in_a_cell_gives_the_same_mask() -> None:
    """One to six classes within reach of one another: a few are compared alone, more with all."""
    for reachable in range(1, 7):
        scores = noise(40, 9, 9, scale=0.1)
        scores[10 : 10 + reachable] += 5.0
        assert_same_but_for_ties(scores, upsampled_argmax(scores, (50, 61)), (50, 61))
