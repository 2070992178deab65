"""A model whose forward costs nothing: what is left is the service's own work."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from maskq_worker.model.self_test import golden_image

if TYPE_CHECKING:
    from maskq_worker.model import Segmenter


def without_forward(segmenter: Segmenter) -> None:
    """From now on every image gets the scores of one drawn image, which were computed once.

    All else stays: resize, merging of views, the check of the scores, the mask at the image's own
    size. Normalisation is part of a forward, so it is left out too. Raises RuntimeError if the
    segmenter does not come to the replacement.
    """
    _replace_forward(segmenter, 0.0)


def on_another_device(segmenter: Segmenter, forward_s: float) -> None:
    """As `without_forward`; an image takes `forward_s`, in which a GPU would compute scores and mask.

    The mask of each size is computed once.
    """
    compute, masks = segmenter.backend.mask, dict[tuple[int, int], Any]()

    def stored(scores: Any, size: tuple[int, int]) -> Any:
        if size not in masks:
            masks[size] = compute(scores, size)
        return masks[size].copy()

    segmenter.backend.mask = stored  # type: ignore[method-assign]
    _replace_forward(segmenter, forward_s)


def _replace_forward(segmenter: Segmenter, forward_s: float) -> None:
    item = segmenter.prepare(golden_image())
    scores = segmenter.backend.forward(item.views.each[0].pixels[None])[0]
    asked: list[int] = []

    def stored(pixels: Any) -> list[Any]:
        if not asked:
            asked.append(len(pixels))
        if forward_s:
            time.sleep(forward_s * len(pixels))
        return [scores] * len(pixels)

    segmenter.backend.forward = stored  # type: ignore[assignment,method-assign]
    segmenter.run([item])
    if not asked:
        raise RuntimeError(
            "Segmenter.run no longer calls Backend.forward: bench/null_model.py must follow it"
        )
