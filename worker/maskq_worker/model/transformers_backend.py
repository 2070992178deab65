"""transformers as it comes: its network and its masks. It is the reference, and always selectable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import nn

from maskq_worker.model.backend import Backend
from maskq_worker.model.masks.reference import transformers_mask
from maskq_worker.model.network.batch_forward import BatchForward

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from maskq_worker.model.preprocess.preprocessor import Preprocessor

TRANSFORMERS: Final = "transformers"


class TransformersBackend(Backend):
    """transformers' network, and the masks of its image processor."""

    name = TRANSFORMERS
    thread_safe_masks = False  # a large mask takes gigabytes

    def __init__(
        self,
        network: nn.Module,
        preprocessor: Preprocessor,
        *,
        device: torch.device,
        dtype: torch.dtype,
        supports_rectangles: bool = False,
    ) -> None:
        """network: on the device, from pixels (N, 3, H, W) of `dtype` to scores (N, C, h, w)."""
        self.device = device
        self.dtype = dtype
        self.supports_rectangles = supports_rectangles
        self._preprocessor = preprocessor
        self.network = network
        self._forward = BatchForward(network, preprocessor, device=device, dtype=dtype)

    def forward(self, pixels: Sequence[NDArray[np.uint8]] | NDArray[np.uint8]) -> torch.Tensor:
        return self._forward(pixels)

    def mask(self, scores: torch.Tensor, size: tuple[int, int]) -> NDArray[Any]:
        return transformers_mask(self._preprocessor.processor, scores, size)
