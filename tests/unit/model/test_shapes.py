"""Narrow images take no more than square ones of as many pixels: in time, and in memory."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from maskq_worker.model.masks.bounded import mask_with_confidence, upsampled_argmax
from maskq_worker.model.masks.comparison import untied_differences

pytestmark = pytest.mark.slow

GRID, BUDGET = 48, 2**18
PIXELS = 10_000


class Work(TorchDispatchMode):
    """Counts what torch's operations write: a measure of time that no other process disturbs."""

    def __init__(self) -> None:
        super().__init__()
        self.total = self.largest = 0  # bytes

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        answer = func(*args, **(kwargs or {}))
        for one in tree_leaves(answer):
            if isinstance(one, torch.Tensor) and one.is_contiguous():
                self.total += one.nbytes
                self.largest = max(self.largest, one.nbytes)
        return answer


def scores(classes: int, *, noise: bool = True) -> torch.Tensor:
    draw = torch.Generator().manual_seed(classes)
    coarse = torch.randn(classes, *((GRID, GRID) if noise else (4, 4)), generator=draw)
    return torch.nn.functional.interpolate(coarse[None], size=(GRID, GRID), mode="bilinear")[0]


def strips(pixels: int) -> list[tuple[int, int]]:
    return [
        size
        for narrow in (1, 2, 8, 33)
        for size in ((narrow, pixels // narrow), (pixels // narrow, narrow))
    ]


@pytest.mark.parametrize("noise", [True, False], ids=["noise", "regions"])
@pytest.mark.parametrize("classes", [40, 260])
@pytest.mark.parametrize("make", [upsampled_argmax, mask_with_confidence])
def test_a_strip_takes_no_more_work_than_a_square(make: Any, classes: int, noise: bool) -> None:
    given_scores = scores(classes, noise=noise)

    def work(of: torch.Tensor, size: tuple[int, int]) -> Work:
        with Work() as counted:
            make(of, size, budget_bytes=BUDGET)
        return counted

    square = work(scores(classes), (100, 100))  # of noise: of regions a strip meets more borders
    for size in strips(PIXELS):
        strip = work(given_scores, size)
        assert strip.total <= 1.5 * square.total + 4 * given_scores.nbytes, size
        assert strip.largest <= max(2 * BUDGET, 1.1 * given_scores.nbytes), size


@given(
    st.integers(1, 700), st.integers(1, 700), st.sampled_from([2, 33, 150]),
    st.sampled_from([2**12, 2**16, 2**25]), st.booleans(),
)  # fmt: skip
@settings(deadline=None, max_examples=40)
def test_the_mask_of_any_shape_is_the_reference_s(
    height: int, width: int, classes: int, budget: int, noise: bool
) -> None:
    height = min(height, max(1, 10_000 // width))
    given_scores = scores(classes, noise=noise)
    exact = torch.nn.functional.interpolate(
        given_scores[None], size=(height, width), mode="bilinear", align_corners=False
    )[0]
    mask = upsampled_argmax(given_scores, (height, width), budget_bytes=budget)
    sure_mask, sure = mask_with_confidence(given_scores, (height, width), budget_bytes=budget)
    expected = exact.argmax(dim=0).numpy()
    assert mask.shape == sure.shape == (height, width)
    assert untied_differences(given_scores, mask, expected) == 0
    assert untied_differences(given_scores, sure_mask, expected) == 0
    assert np.abs(sure - 255 * exact.softmax(dim=0).amax(dim=0).numpy()).max() <= 0.51


def test_every_output_and_mode_of_a_strip_stays_in_bounds() -> None:
    """Of the whole process, by the kernel's count: in a process of its own."""
    side, pixels, budget = 96, 20_000, 2**25
    command = [
        *(sys.executable, "-m", "bench.shapes", "--json"),
        *(f"--side={side}", f"--pixels={pixels}", f"--max-score-bytes={budget}"),
    ]
    ran = subprocess.run(command, check=True, capture_output=True, text=True, timeout=170)
    costs = [json.loads(line) for line in ran.stdout.splitlines()]
    assert len({(cost["width"], cost["height"]) for cost in costs}) == 7
    assert len({(cost["mode"], cost["output"]) for cost in costs}) == 11
    scores = 4 * 150 * side * side
    for cost in costs:
        # What is no part of it: torch's own buffers, and what an allocator keeps.
        bound = 4 * scores + 64 * pixels + (0 if cost["mode"] == "whole" else 2 * budget)
        assert cost["mib"] < 100 + bound / 2**20, cost
