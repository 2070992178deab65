"""Masks of the CUDA backend where its kernel cannot run, and what ends a card."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import torch
from support import cuda_on_cpu

from maskq_worker.model.cuda import masks
from maskq_worker.model.cuda.faults import is_fault
from maskq_worker.model.cuda.masks import DeviceMask, Masks
from maskq_worker.model.masks.bounded import mask_with_uncertain, upsampled_argmax

pytestmark = pytest.mark.slow

one_thread = cuda_on_cpu.one_thread

# Masks without the kernel.


def noise() -> torch.Tensor:
    return torch.randn(9, 12, 12, generator=torch.Generator().manual_seed(2))


class Failing:
    """A kernel that cannot run here."""

    def __init__(self, error: Exception) -> None:
        self.error, self.asked = error, 0

    def __call__(self, *_: Any, **__: Any) -> DeviceMask:
        self.asked += 1
        raise self.error


@pytest.mark.parametrize("confidence", [False, True])
def test_a_kernel_that_fails_is_replaced_for_good_and_that_is_said_once(
    caplog: pytest.LogCaptureFixture, confidence: bool
) -> None:
    failing: Any = Failing(RuntimeError("Failed to find C compiler. Please specify\nvia CC"))
    draw = Masks(failing)
    assert draw.uses_kernel
    with caplog.at_level(logging.WARNING, logger=masks.__name__):
        for _ in range(3):
            drawn = draw(noise(), (50, 41), confidence=confidence)
            assert np.array_equal(drawn.mask.numpy(), upsampled_argmax(noise(), (50, 41)))
            assert (drawn.confidence is not None) == confidence
    assert failing.asked == 1
    assert not draw.uses_kernel
    [record] = caplog.records
    assert "RuntimeError: Failed to find C compiler. Please specify)" in record.getMessage()


def test_uncertain_pixels_are_left_to_torch_and_that_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    failing: Any = Failing(RuntimeError("not asked"))
    draw = Masks(failing)
    with caplog.at_level(logging.WARNING, logger=masks.__name__):
        for _ in range(2):
            drawn = draw(noise(), (50, 41), uncertain_below=1.0)
            mask, uncertain = mask_with_uncertain(noise(), (50, 41), 1.0)
            assert np.array_equal(drawn.mask.numpy(), mask)
            assert drawn.uncertain is not None
            assert np.array_equal(drawn.uncertain.numpy(), uncertain)
    assert (failing.asked, draw.uses_kernel) == (0, True)
    [record] = caplog.records
    assert "torch computes masks and uncertain pixels more slowly" in record.getMessage()


def test_an_image_that_does_not_fit_is_no_fault_of_the_kernel() -> None:
    failing: Any = Failing(torch.OutOfMemoryError("CUDA out of memory"))
    draw = Masks(failing)
    with pytest.raises(torch.OutOfMemoryError):
        draw(noise(), (50, 41))
    assert draw.uses_kernel


def test_a_kernel_that_found_no_room_is_tried_again() -> None:
    failing: Any = Failing(RuntimeError("Triton Error [CUDA]: out of memory"))
    draw = Masks(failing)
    for _ in range(2):
        drawn = draw(noise(), (50, 41))
        assert np.array_equal(drawn.mask.numpy(), upsampled_argmax(noise(), (50, 41)))
    assert failing.asked == 2


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RuntimeError("CUDA error: an illegal memory access was encountered"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublas…"), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), False),
        (RuntimeError("CUDA error: out of memory"), False),  # beside torch's own allocator
        (RuntimeError("CUDA error: invalid configuration argument"), False),  # a launch refused
        (RuntimeError("shapes cannot be multiplied"), False),
        (ValueError("CUDA error"), False),
    ],
)
def test_what_ends_a_card(error: Exception, expected: bool) -> None:
    assert is_fault(error) == expected


def test_a_lost_card_is_no_fault_of_the_kernel_s() -> None:
    failing: Any = Failing(RuntimeError("CUDA error: an illegal memory access was encountered"))
    draw = Masks(failing)
    with pytest.raises(RuntimeError, match="illegal"):
        draw(noise(), (50, 41))
    assert draw.uses_kernel


def test_more_than_32_bits_can_count_are_drawn_in_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    failing: Any = Failing(RuntimeError("not to be asked"))
    monkeypatch.setattr(masks, "_INDEXED", 50 * 41)
    drawn = Masks(failing)(noise()[:, :2, :2], (50, 41))
    assert drawn.mask.shape == (50, 41)
    assert failing.asked == 0


def test_without_triton_masks_are_drawn_in_bands(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def missing(tile: object = None) -> None:
        raise ModuleNotFoundError("No module named 'triton'")

    monkeypatch.setattr(masks, "TritonMaskKernel", missing)
    with caplog.at_level(logging.WARNING, logger=masks.__name__):
        draw = masks.load_masks(torch.device("cuda", 0))
    assert not draw.uses_kernel
    assert "No module named 'triton'" in caplog.text
    assert draw(noise(), (5, 4)).mask.shape == (5, 4)
