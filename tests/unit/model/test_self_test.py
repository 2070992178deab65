"""The self-test of a loaded model, and the warm-up."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from support import model_reference
from support.model_reference import edit_weights, load

from maskq_worker.model import (
    ModelError,
    native_backend,
    run_self_test,
    warm_up,
)

pytestmark = pytest.mark.slow

checkpoint = model_reference.checkpoint
original = model_reference.original


@pytest.mark.parametrize("backend", ["transformers", "auto"])
def test_a_sound_model_passes_its_self_test(original: Path, backend: str) -> None:
    segmenter = load(original, backend=backend)
    warm_up(segmenter)
    run_self_test(segmenter)
    segmenter.close()


@pytest.mark.parametrize(("device", "batches"), [("cpu", []), ("cuda", [1, 1, 3])])
def test_a_warm_up_is_for_gpus(
    original: Path, monkeypatch: pytest.MonkeyPatch, device: str, batches: list[int]
) -> None:
    """A CPU has nothing to record or to allocate ahead, and its self-test ran the model twice."""
    segmenter, seen = load(original, max_batch_size=3), []
    forward = segmenter.backend.forward

    def count(pixels: np.ndarray) -> torch.Tensor:
        seen.append(len(pixels))
        return forward(pixels)

    backend = SimpleNamespace(
        device=torch.device(device),
        forward=count,
        start_mask=segmenter.backend.start_mask,
        thread_safe_masks=False,
        warm_up=lambda batch: seen.append(f"graphs up to {batch}"),
    )
    monkeypatch.setattr(segmenter, "backend", backend)
    warm_up(segmenter)
    assert seen == ["graphs up to 3", *batches]


def test_the_self_test_sees_a_wrong_mask(original: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = native_backend.upsampled_argmax
    monkeypatch.setattr(
        native_backend,
        "upsampled_argmax",
        lambda logits, size: np.roll(real(logits, size), 1, axis=1),  # a pixel to the right
    )
    with pytest.raises(ModelError, match=r"differs from transformers' own in \d+ pixels"):
        run_self_test(load(original))


def test_the_self_test_sees_scores_that_change(
    original: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter = load(original)
    real, calls = segmenter.backend.forward, iter(range(9))

    def forward(pixels: Any) -> torch.Tensor:
        return real(pixels).roll(next(calls), dims=1)

    monkeypatch.setattr(segmenter.backend, "forward", forward)
    with pytest.raises(ModelError, match="two masks for one image"):
        run_self_test(segmenter)


def test_the_self_test_sees_weights_that_are_no_numbers(checkpoint: Path) -> None:
    edit_weights(lambda weights: weights["head.head.4.bias"].fill_(float("nan")))(checkpoint)
    with pytest.raises(ModelError, match="NaN or infinite"):
        run_self_test(load(checkpoint))


def test_the_self_test_sees_labels_that_do_not_fit(checkpoint: Path) -> None:
    segmenter = load(checkpoint)
    object.__setattr__(segmenter.info, "labels", ("wall", "sky"))
    with pytest.raises(ModelError, match="for 2 labels"):
        run_self_test(segmenter)
