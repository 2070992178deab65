"""A torch network, mostly our own, with masks in bounded memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from maskq_worker.model.backend import Backend
from maskq_worker.model.masks.bounded import upsampled_argmax
from maskq_worker.model.network.batch_forward import BatchForward
from maskq_worker.model.network.dpt import Network

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from maskq_worker.model.preprocess.preprocessor import Preprocessor


class NativeBackend(Backend):
    """Our own network, or transformers' of a family without one."""

    thread_safe_masks = True

    def __init__(
        self,
        network: nn.Module,
        preprocessor: Preprocessor,
        *,
        name: str,
        device: torch.device,
        dtype: torch.dtype,
        supports_rectangles: bool = True,
    ) -> None:
        """network: on the device, from pixels (N, 3, H, W) of `dtype` to scores (N, C, h, w)."""
        self.name = name
        self.device = device
        self.dtype = dtype
        self.supports_rectangles = supports_rectangles
        self.network = network
        # transformers' modules are changed while they compute.
        self.thread_safe_forwards = device.type == "cpu" and isinstance(network, Network)
        self._forward = BatchForward(network, preprocessor, device=device, dtype=dtype)

    def forward(self, pixels: Sequence[NDArray[np.uint8]] | NDArray[np.uint8]) -> torch.Tensor:
        return self._forward(pixels)

    @torch.inference_mode()
    def mask(self, scores: torch.Tensor, size: tuple[int, int]) -> NDArray[Any]:
        return upsampled_argmax(scores, size)
