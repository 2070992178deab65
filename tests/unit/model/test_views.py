"""What the network is shown of an image, and how the scores of several views become one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from torch.nn.functional import interpolate

from maskq.contract.options import Mode
from maskq_worker.model.views import (
    OVERLAP,
    SCALES,
    MergedScores,
    View,
    Views,
    aspect_size,
    canvas_size,
    make_views,
    starts,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIDE, MULTIPLE, CLASSES, BUDGET = 32, 32, 3, 2**24


class Squares:
    """A preprocessor of squares."""

    def __call__(self, image: Image.Image, size: tuple[int, int]) -> NDArray[np.uint8]:
        return np.asarray(image.resize(size, Image.Resampling.BILINEAR))

    def whole(self, image: Image.Image) -> tuple[NDArray[np.uint8], None]:
        return self(image, (SIDE, SIDE)), None


resize = Squares()


def photo(width: int, height: int) -> Image.Image:
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, 255 - x], axis=2).astype(np.uint8))


def views_of(image: Image.Image, mode: Mode, budget: int = BUDGET) -> Views:
    trained = (SIDE, SIDE)
    return make_views(
        image, mode, resize, size=trained, multiple=MULTIPLE, classes=CLASSES, budget=budget
    )


def scores_of(view: View) -> torch.Tensor:
    """A network whose scores are the colours that it sees, at its input's own size."""
    return colours(view.pixels)


def colours(pixels: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(pixels.transpose(2, 0, 1).astype(np.float32) / 255)


def merged(views: Views, network: Any = scores_of) -> torch.Tensor:
    one = MergedScores(views)
    for view in views.each:
        one.add(view, network(view))
    return one.scores()


def test_whole_is_one_square() -> None:
    (view,) = views_of(photo(100, 50), Mode.WHOLE).each
    assert view.pixels.shape == (SIDE, SIDE, 3)
    assert torch.equal(merged(Views((view,))), scores_of(view))


@pytest.mark.slow
@given(st.integers(1, 3000), st.integers(1, 3000))
def test_aspect_is_the_size_that_transformers_keeps_the_ratio_with(height: int, width: int) -> None:
    from transformers.models.dpt.image_processing_pil_dpt import get_resize_output_image_size

    if max(height, width) > 3.5 * min(height, width):
        return  # a panorama is held to the budget; below
    size = aspect_size((height, width), 480, 32, 150, 2**30)
    image = np.empty((3, height, width), dtype=np.uint8)
    expected = get_resize_output_image_size(image, (480, 480), keep_aspect_ratio=True, multiple=32)
    assert size == (max(32, expected.height), max(32, expected.width))


@given(st.integers(1, 60_000), st.integers(1, 60_000))
@example(8248, 14975)
def test_the_scores_of_a_panorama_fit_their_budget(height: int, width: int) -> None:
    high, wide = aspect_size((height, width), 480, 32, 150, 2**28)
    assert high % 32 == wide % 32 == 0
    assert 8 * 150 * high * wide <= 2**28


def test_multiscale_is_the_mean_over_scales_and_mirrors() -> None:
    views = views_of(photo(100, 50), Mode.MULTISCALE)
    assert len(views.each) == 2 * len(SCALES)
    assert {view.pixels.shape[0] % 32 for view in views.each} == {0}
    largest = max(view.pixels.shape[0] for view in views.each)
    expected = torch.zeros(3, largest, largest)
    for view in views.each:
        scores = scores_of(view).flip(2) if view.mirrored else scores_of(view)
        expected += interpolate(scores[None], size=(largest, largest), mode="bilinear")[0] / 6
    torch.testing.assert_close(merged(views), expected)


def test_a_mirrored_view_is_turned_back() -> None:
    """A network without a sense of left and right: mirrored or not, its scores are the same."""
    views = views_of(photo(64, 64), Mode.MULTISCALE)
    straight = Views(tuple(view for view in views.each if not view.mirrored))
    torch.testing.assert_close(merged(views), merged(straight), rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [(200, 131), (32, 32), (33, 500), (10, 10), (64, 20)])
def test_windows_of_what_is_seen_give_the_picture_back(size: tuple[int, int]) -> None:
    image = photo(*size)
    views = views_of(image, Mode.TILED)
    assert {view.pixels.shape for view in views.each} == {(SIDE, SIDE, 3)}
    width, height = (max(SIDE, length) for length in size)
    assert views.canvas == (height, width)
    expected = colours(resize(image, (width, height)))
    torch.testing.assert_close(merged(views), expected, rtol=0, atol=1e-5)


def test_the_window_in_whose_middle_a_pixel_lies_counts_most() -> None:
    """Windows that each score their own number: no seam, and every middle is its own."""
    views = views_of(photo(75, 32), Mode.TILED)
    assert [view.left for view in views.each] == [0, 14, 29, 43]
    row = merged(views, lambda view: torch.full((1, SIDE, SIDE), float(view.left)))[0, 16]
    assert row[0] == 0
    assert row[-1] == pytest.approx(43)
    assert (row.diff() >= 0).all()
    assert row.diff().max() < 3  # a seam would be a step of 14


def test_scores_of_half_the_size_are_taken_as_well() -> None:
    views = views_of(photo(75, 40), Mode.TILED)
    scores = merged(views, lambda view: torch.ones(CLASSES, SIDE // 2, SIDE // 2))
    torch.testing.assert_close(scores, torch.ones(CLASSES, 40, 75))


@given(st.integers(32, 4000), st.integers(32, 512))
def test_windows_cover_everything_and_overlap(length: int, side: int) -> None:
    if length < side:
        return
    begins = starts(length, side)
    assert (begins[0], begins[-1]) == (0, length - side)
    steps = np.diff(begins)
    assert (steps <= side * (1 - OVERLAP) + 1).all()
    assert (steps > 0).all()


@given(st.integers(1, 20_000), st.integers(1, 20_000), st.integers(2, 200))
def test_the_merged_scores_fit_their_budget(height: int, width: int, classes: int) -> None:
    high, wide = canvas_size((height, width), (SIDE, SIDE), classes, BUDGET)
    assert high <= max(SIDE, height)
    assert wide <= max(SIDE, width)
    assert 8 * classes * high * wide <= max(1.1 * BUDGET, 8 * classes * SIDE * SIDE)


def test_views_that_are_missing_are_no_result() -> None:
    views = views_of(photo(75, 40), Mode.TILED)
    one = MergedScores(views)
    one.add(views.each[0], scores_of(views.each[0]))
    with pytest.raises(ValueError, match="of"):
        one.scores()
