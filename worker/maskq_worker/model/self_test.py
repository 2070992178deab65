"""The self-test: a worker serves only a model that gives the right mask of a drawn image."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import numpy as np
from PIL import Image, ImageDraw

from maskq_worker.model.errors import ModelError

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from maskq_worker.model.backend import Backend
    from maskq_worker.model.inputs_and_outputs import ModelInfo
    from maskq_worker.model.segmenter import Segmenter


def golden_image() -> Image.Image:
    """A drawn image of 640x427 px, RGB, the same on every machine: a sky, a ground, a house, a sun."""
    y, x = np.mgrid[0:427, 0:640]
    sky = np.stack([90 + y // 4, 140 + y // 4, 230 - x // 16], axis=2)
    ground = np.stack([60 + x // 16, 110 + (x ^ y) % 16, 40 + y // 8], axis=2)
    image = Image.fromarray(np.where(y[..., None] < 240, sky, ground).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    draw.rectangle((180, 130, 380, 330), fill=(170, 90, 70))
    draw.polygon([(160, 130), (280, 50), (400, 130)], fill=(90, 40, 40))
    draw.ellipse((500, 30, 570, 100), fill=(250, 240, 150))
    return image


def run_self_test(segmenter: Segmenter) -> None:
    """Segment `golden_image` twice. Both masks must be the same, and be transformers' mask.

    Call it in the model's own thread.

    Raises:
        ModelError: if the scores are unusable, or a mask is wrong.
    """
    for backend in segmenter.backends:
        _test(segmenter, backend)


def _test(segmenter: Segmenter, backend: Backend) -> None:
    from maskq_worker.model.masks.comparison import untied_differences

    item = segmenter.prepare(golden_image())
    pixels = item.views.each[0].pixels
    first, second = (_scores(segmenter.info, backend, pixels) for _ in range(2))
    mask = backend.mask(first, item.size)
    if not np.array_equal(mask, backend.mask(second, item.size)):
        _fail(segmenter.info, "gave two masks for one image")
    wrong = untied_differences(first, mask, _expected_mask(segmenter, first, item.size))
    if wrong:
        _fail(segmenter.info, f"gave a mask that differs from transformers' own in {wrong} pixels")


def _scores(info: ModelInfo, backend: Backend, pixels: NDArray[np.uint8]) -> torch.Tensor:
    """pixels: (H, W, 3). Returns (C, h, w) float32, all finite."""
    from maskq_worker.model.backend import name_of
    from maskq_worker.model.masks.scores import all_finite

    try:
        scores = backend.forward(pixels[None])[0]
    except (RuntimeError, ValueError) as error:
        raise ModelError(f"{info.name} cannot take its own processor's images: {error}") from error
    if scores.ndim != 3 or len(scores) != len(info.labels):
        _fail(info, f"gave scores of shape {tuple(scores.shape)} for {len(info.labels)} labels")
    if not all_finite(scores):
        _fail(info, f"gave NaN or infinite scores in {name_of(backend.dtype)}")
    return scores


def _expected_mask(
    segmenter: Segmenter, scores: torch.Tensor, size: tuple[int, int]
) -> NDArray[np.unsignedinteger]:
    """transformers' own mask (H, W). A processor that is loaded already may make unusual masks."""
    from maskq_worker.model.masks.reference import plain_mask, transformers_mask

    preprocessor = segmenter.preprocessor
    if preprocessor.uses_transformers:
        return transformers_mask(preprocessor.processor, scores, size)
    return plain_mask(scores, size)


def _fail(info: ModelInfo, what: str) -> NoReturn:
    raise ModelError(f"{info.name} ({info.backend}, {info.device}) {what} in its self-test")
