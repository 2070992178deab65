"""From an image to what the network takes, by the checkpoint's own preprocessor_config.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from maskq_worker.model.errors import ModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PROBES = ((64, 48), (48, 64), (150, 40))  # px: none is square, as photographs are not


class Preprocessor:
    """Resize, rescale and normalise as transformers' PIL processor does, bit for bit.

    Holds no state between calls: any number of threads may share one.
    """

    def __init__(self, processor: Any, side: int) -> None:
        self.processor = processor  # transformers' own
        self.side = side  # px: the network takes (3, side, side)

    @classmethod
    def from_checkpoint(cls, directory: Path) -> Preprocessor:
        """Raises ModelError for settings under which DPT's segmentation head gives no sound mask."""
        path = directory / "preprocessor_config.json"
        processor = _load(path)
        images = [_probe(size) for size in _PROBES]
        try:
            expected = [_reference(processor, image) for image in images]
        except Exception as error:  # whatever settings that contradict each other lead to
            raise ModelError(f"{path} is not usable: {error}") from error
        shapes = {pixels.shape for pixels in expected}
        side = min(shape[-1] for shape in shapes)
        if shapes != {(3, side, side)}:
            raise ModelError(
                f"{path} resizes images to {_sizes(shapes)}, but "
                "DPT's segmentation head takes squares of one size only: set do_resize, a square "
                "size and keep_aspect_ratio false"
            )
        preprocessor = cls(processor, side)
        ours = map(preprocessor, images)
        if not all(np.array_equal(*pair) for pair in zip(ours, expected, strict=True)):
            raise ModelError(
                f"{path} asks for more than resize, rescale and normalise (padding?), which maskq "
                "does not do"
            )
        return preprocessor

    def __call__(
        self, image: Image.Image, size: tuple[int, int] | None = None
    ) -> NDArray[np.float32]:
        """image: RGB, any size. Returns (3, height, width) float32, contiguous; size: (width, height)
        px, left out: the network's square.

        Pillow resizes the image itself; transformers would first copy it to an array, move its
        axes and build an image again, at five times the cost for 12 megapixels.
        """
        small = image.resize(size or (self.side, self.side), self.processor.resample)
        return _reference(self.processor, small, do_resize=False)


def _reference(processor: Any, image: Image.Image, **options: bool) -> NDArray[np.float32]:
    """transformers' own answer."""
    pixels = processor(images=image, return_tensors="np", **options)["pixel_values"][0]
    return np.ascontiguousarray(pixels, dtype=np.float32)


def _load(path: Path) -> Any:
    from transformers.models.dpt.image_processing_pil_dpt import DPTImageProcessorPil

    settings = json.loads(path.read_text(encoding="utf-8"))
    # Checkpoints of 2022 name only the class of then, DPTFeatureExtractor.
    kind = settings.get("image_processor_type") or settings.get("feature_extractor_type") or "DPT"
    if not kind.startswith("DPT"):
        raise ModelError(f"{path} is for {kind}; maskq serves DPT with DPT's own image processor")
    try:
        return DPTImageProcessorPil.from_dict(settings)
    except (TypeError, ValueError) as error:
        raise ModelError(f"{path} is not usable: {error}") from error


def _probe(size: tuple[int, int]) -> Image.Image:
    """A small image in which every pixel differs; size: (width, height) px."""
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    return Image.fromarray(np.stack([x, y, x ^ y], axis=2).astype(np.uint8))


def _sizes(shapes: set[tuple[int, ...]]) -> str:
    return " or ".join(sorted(f"{width}x{height}" for _, height, width in shapes))
