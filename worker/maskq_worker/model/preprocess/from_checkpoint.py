"""Make the preprocessor of a checkpoint from the settings of its image processor.

Settings of a DPT that ask for a resize to one square are read here. For all others transformers' own
processor is loaded, and three small images show whether the preprocessor does the same.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from PIL import Image

from maskq_worker.model.checkpoint.files import read_preprocessor
from maskq_worker.model.errors import ModelError
from maskq_worker.model.preprocess.frame import Frame
from maskq_worker.model.preprocess.preprocessor import Preprocessor
from maskq_worker.model.preprocess.settings import PlainSettings
from maskq_worker.model.preprocess.transformers_processor import (
    frame_of,
    levels_of,
    load_auto_processor,
    make_dpt_processor,
    processed,
)

_PROBES: Final = ((64, 48), (48, 64), (150, 40))  # (width, height) px; none is square


def load_preprocessor(
    directory: Path, *, squares: bool = True, default_processor: str = "DPTImageProcessor"
) -> Preprocessor:
    """Make the preprocessor of a checkpoint.

    Args:
        directory: the checkpoint, in the hub's layout.
        squares: whether the network takes only square inputs.
        default_processor: the image processor of settings that name none ("": transformers finds it by
            config.json).

    Raises:
        ModelError: for settings that maskq cannot reproduce.
    """
    path, settings = read_preprocessor(directory)
    # Checkpoints of 2022 name only the class of that time, DPTFeatureExtractor.
    kind = settings.get("image_processor_type") or settings.get("feature_extractor_type")
    if not str(kind or default_processor).startswith("DPT"):
        return _checked(path, load_auto_processor(path, directory), squares)
    plain = PlainSettings.read(settings)
    if plain is None:
        return _checked(path, make_dpt_processor(path, settings), squares)
    return Preprocessor(
        Frame((plain.side, plain.side)),
        plain.resample,
        plain.levels(),
        partial(make_dpt_processor, path, settings),
        reduces_labels=settings.get("do_reduce_labels") is True,
    )


def _checked(path: Path, processor: Any, squares: bool) -> Preprocessor:
    """The preprocessor that does what transformers' `processor` does, checked on small images."""
    images = [_probe(size) for size in _PROBES]
    try:
        expected = [processed(processor, image) for image in images]
    except Exception as error:  # contradictory settings raise many types
        raise ModelError(f"{path} is not usable: {error}") from error
    shapes = {pixels.shape for pixels in expected}
    side = min(shape[-1] for shape in shapes)
    if squares and shapes != {(3, side, side)}:
        raise ModelError(
            f"{path} resizes images to {_sizes(shapes)}, but DPT's segmentation head takes squares of "
            "one size only: set do_resize, a square size and keep_aspect_ratio false"
        )
    frame = frame_of(processor)
    preprocessor = None if frame is None else _made(frame, processor)
    if preprocessor is None or not all(
        np.array_equal(_ours(preprocessor, image), theirs)
        for image, theirs in zip(images, expected, strict=True)
    ):
        raise ModelError(
            f"{path} asks for more than resize, crop, rescale and normalise (padding? no resize?), "
            "which maskq does not do"
        )
    return preprocessor


def _made(frame: Frame, processor: Any) -> Preprocessor:
    return Preprocessor(
        frame,
        processor.resample,
        levels_of(processor),
        lambda: processor,
        uses_transformers=True,
        bgr=bool(getattr(processor, "do_flip_channel_order", None)),
        reduces_labels=bool(getattr(processor, "do_reduce_labels", None)),
    )


def _ours(preprocessor: Preprocessor, image: Image.Image) -> Any:
    """(3, h, w) float32."""
    return preprocessor.normalised(torch.from_numpy(preprocessor.whole(image)[0])).numpy()


def _probe(size: tuple[int, int]) -> Image.Image:
    """A small image in which every pixel differs; size: (width, height) px."""
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    return Image.fromarray(np.stack([x, y, x ^ y], axis=2).astype(np.uint8))


def _sizes(shapes: set[tuple[int, ...]]) -> str:
    return " or ".join(sorted(f"{width}x{height}" for _, height, width in shapes))
