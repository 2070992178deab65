"""From an image to what the network takes, by the checkpoint's own preprocessor_config.json.

In two steps, which together are transformers' PIL processor bit for bit: a resize, in the threads of
the jobs, and from 8 bits to normalised floats, on the model's device. In between an image takes a
quarter of the memory.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from maskq_worker.model.errors import ModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PROBES = ((64, 48), (48, 64), (150, 40))  # px: none is square, as photographs are not
_LEVELS = 256


class Preprocessor:
    """Holds no state between calls: any number of threads may share one."""

    def __init__(self, processor: Any, side: int) -> None:
        self.processor = processor  # transformers' own
        self.side = side  # px: the network was trained on (3, side, side)
        self._levels = _levels(processor)

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
        ours = [preprocessor.normalised(torch.from_numpy(preprocessor(image))) for image in images]
        if not all(np.array_equal(*pair) for pair in zip(ours, expected, strict=True)):
            raise ModelError(
                f"{path} asks for more than resize, rescale and normalise (padding?), which maskq "
                "does not do"
            )
        return preprocessor

    def __call__(
        self, image: Image.Image, size: tuple[int, int] | None = None
    ) -> NDArray[np.uint8]:
        """image: RGB, any size. Returns (height, width, 3); size: (width, height) px, left out: the
        network's square.

        Pillow resizes the image itself; transformers would first copy it to an array, move its
        axes and build an image again, at five times the cost for 12 megapixels.
        """
        return np.array(image.resize(size or (self.side, self.side), self.processor.resample))

    def normalised(self, pixels: torch.Tensor) -> torch.Tensor:
        """pixels: (…, H, W, 3) uint8. Returns (…, 3, H, W) float32 on the same device, in memory still
        by place (`channels_last`).

        Each level of each channel has one value, which transformers itself computed: so it is exact.
        """
        levels = self._levels.to(pixels.device)
        offsets = torch.arange(0, 3 * _LEVELS, _LEVELS, dtype=torch.int32, device=pixels.device)
        values = levels.index_select(0, (pixels.int() + offsets).flatten())
        return values.view(pixels.shape).movedim(-1, -3)


def _reference(processor: Any, image: Image.Image, **options: bool) -> NDArray[np.float32]:
    """transformers' own answer."""
    pixels = processor(images=image, return_tensors="np", **options)["pixel_values"][0]
    return np.ascontiguousarray(pixels, dtype=np.float32)


def _levels(processor: Any) -> torch.Tensor:
    """(768,): what transformers makes of each level of red, then of green, then of blue."""
    ramp = np.arange(_LEVELS, dtype=np.uint8)[None, :, None].repeat(3, axis=2)
    return torch.from_numpy(_reference(processor, Image.fromarray(ramp), do_resize=False).ravel())


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
