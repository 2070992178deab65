"""From an image to what the network takes, in two steps.

The first resizes and perhaps crops, in the threads of the jobs. The second turns 8 bits into normalised
floats, on the model's device. Between them an image takes a quarter of the memory. Together they equal
transformers' PIL processor bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from PIL import Image

from maskq_worker.model.preprocess.frame import Frame, ImageArea
from maskq_worker.model.preprocess.settings import LEVELS

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MAX_RESIZED: Final = 2**24  # px; of a larger resized image only the crop is computed


class Preprocessor:
    """Resizes, crops and normalises images. Threads may share one."""

    def __init__(
        self,
        frame: Frame,
        resample: int,
        levels: torch.Tensor,
        processor: Callable[[], Any],
        *,
        uses_transformers: bool = False,
        bgr: bool = False,
        reduces_labels: bool = False,
    ) -> None:
        """
        Args:
            resample: one of Pillow's filters.
            levels: (768,) float32, as of `PlainSettings.levels`, in the network's order of channels.
            processor: makes transformers' own processor when it is first needed.
            uses_transformers: whether transformers' processor is loaded already.
            bgr: whether the network takes blue first.
            reduces_labels: whether the annotations' class 1 is the network's class 0.
        """
        self.frame = frame
        self.uses_transformers = uses_transformers
        self._resample = resample
        self._levels = levels
        self._processor = processor
        self._bgr = bgr
        self._reduces_labels = reduces_labels

    @property
    def side(self) -> int:
        """The side of the square that DPT takes, px."""
        return self.frame.size[0]

    @property
    def description(self) -> dict[str, Any]:
        """The preprocessing as results name it; mean and std are of red, green and blue in 0..1."""
        low, high = self._levels.double().view(3, LEVELS)[:, [0, -1]].T
        mean, std = (-low / (high - low)).tolist(), (1 / (high - low)).tolist()
        if self._bgr:
            mean, std = mean[::-1], std[::-1]
        height, width = self.frame.size
        description: dict[str, Any] = {
            "input_size": width if height == width else [width, height],
            "resample": Image.Resampling(self._resample).name.lower(),
            "mean": [round(value, 6) for value in mean],
            "std": [round(value, 6) for value in std],
        }
        if self.frame.shortest_edge is not None:
            description["shortest_edge"] = self.frame.shortest_edge
        if self.frame.longest_edge is not None:
            description["longest_edge"] = self.frame.longest_edge
        if self.frame.cropped:
            description["cropped"] = True
        if self._bgr:
            description["channels"] = "bgr"
        if self._reduces_labels:  # for a comparison of masks with annotations
            description["do_reduce_labels"] = True
        return description

    @cached_property
    def processor(self) -> Any:
        """transformers' own processor, which takes seconds to import."""
        return self._processor()

    def __call__(
        self, image: Image.Image, size: tuple[int, int] | None = None
    ) -> NDArray[np.uint8]:
        """Resize all of an image.

        Pillow resizes the image itself. transformers would first copy it to an array, move its axes and
        build an image again, at five times the cost for 12 megapixels.

        Args:
            image: RGB, any size.
            size: (width, height) px; default: the size that the network was trained on.

        Returns:
            (height, width, 3) uint8.
        """
        height, width = self.frame.size
        return self._array(image.resize(size or (width, height), self._resample))

    def whole(self, image: Image.Image) -> tuple[NDArray[np.uint8], ImageArea | None]:
        """Resize and crop as the checkpoint's image processor does.

        Args:
            image: RGB, any size.

        Returns:
            (height, width, 3) uint8, and the area of the image that it shows (None: all of it).
        """
        wide, high = self.frame.resized(*image.size)
        if not self.frame.cropped:
            return self(image, (wide, high)), None
        height, width = self.frame.size
        # As transformers: a smaller image lies in the middle and gets a black border.
        top = (high - height) // 2 if high >= height else -math.ceil((height - high) / 2)
        left = (wide - width) // 2 if wide >= width else -math.ceil((width - wide) / 2)
        box = (left, top, left + width, top + height)
        cropped = self._cropped(image, (wide, high), box)
        down, across = image.height / high, image.width / wide
        y, x = round(top * down), round(left * across)
        return self._array(cropped), ImageArea(
            y,
            x,
            max(1, round((top + height) * down) - y),
            max(1, round((left + width) * across) - x),
        )

    def _cropped(
        self, image: Image.Image, size: tuple[int, int], box: tuple[int, int, int, int]
    ) -> Image.Image:
        """size: (width, height) px to resize to. box: (left, top, right, bottom) px of that."""
        wide, high = size
        if wide * high <= _MAX_RESIZED:
            return image.resize(size, self._resample).crop(box)
        left, top, right, bottom = box
        down, across = image.height / high, image.width / wide
        inside = (max(0, left), max(0, top), min(wide, right), min(high, bottom))
        seen = image.resize(
            (inside[2] - inside[0], inside[3] - inside[1]),
            self._resample,
            (inside[0] * across, inside[1] * down, inside[2] * across, inside[3] * down),
        )
        cropped = Image.new("RGB", (right - left, bottom - top))
        cropped.paste(seen, (inside[0] - left, inside[1] - top))
        return cropped

    def _array(self, image: Image.Image) -> NDArray[np.uint8]:
        pixels = np.array(image)
        return np.ascontiguousarray(pixels[..., ::-1]) if self._bgr else pixels

    def normalised(self, pixels: torch.Tensor) -> torch.Tensor:
        """Turn 8-bit levels into the network's values, by a table of transformers' own values.

        Args:
            pixels: (…, H, W, 3) uint8.

        Returns:
            (…, 3, H, W) float32 on the same device, `channels_last` in memory.
        """
        levels = self._levels.to(pixels.device)
        offsets = torch.arange(0, 3 * LEVELS, LEVELS, dtype=torch.int32, device=pixels.device)
        values = levels.index_select(0, (pixels.int() + offsets).flatten())
        return values.view(pixels.shape).movedim(-1, -3)
