"""Which part of an image the network sees, and at which size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class ImageArea:
    """A rectangle of an image, px. It may reach beyond the image."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True, slots=True)
class Frame:
    """How an image that the network sees whole is resized and cropped."""

    size: tuple[int, int]  # (height, width) px that the network was trained on
    # (height, width) px before the crop, if the aspect ratio is not kept.
    stretched: tuple[int, int] | None = None
    shortest_edge: int | None = None  # px before the crop, if the aspect ratio is kept
    longest_edge: int | None = None  # px at most
    cropped: bool = False  # to `size`, from the middle; a smaller image gets a black border

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """The size of an image of width x height px before the crop: (width, height) px."""
        if self.shortest_edge is None:
            height, width = self.stretched or self.size
            return width, height
        from transformers.image_transforms import (
            get_resize_output_image_size,
            get_size_with_aspect_ratio,
        )

        if self.longest_edge is not None:
            high, wide = get_size_with_aspect_ratio(
                (height, width), self.shortest_edge, self.longest_edge
            )
        else:
            empty = np.broadcast_to(np.uint8(0), (3, height, width))
            high, wide = get_resize_output_image_size(
                empty,
                self.shortest_edge,
                default_to_square=False,
                input_data_format="channels_first",
            )
        return max(1, wide), max(1, high)
