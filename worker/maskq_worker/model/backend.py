"""The interface of a backend: it computes scores from pixels, and masks from scores.

- transformers_backend.py: transformers' network and masks, the reference
- native_backend.py: our own network, or transformers', with masks in bounded memory
- cuda/backend.py: our own network on a GPU
- openvino/backend.py: our own network in 8 bits on a CPU

`loader.py` chooses one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from maskq_worker.model.inputs_and_outputs import ModelOutput


class PendingMask(Protocol):
    """One image's mask, which the device computes or which is computed by `wait`."""

    def wait(self) -> ModelOutput | None:
        """Wait for the mask, in any thread. None: some scores are NaN or infinite."""


class Backend(ABC):
    """One network on one device. Its methods are for the model's own thread."""

    name: str  # transformers | cpu | cuda | openvino
    device: torch.device  # where it computes
    dtype: torch.dtype  # of the network's weights
    supports_rectangles: bool  # whether the network takes inputs that are not square
    thread_safe_masks: bool  # whether several threads may wait for masks at once, beside a forward
    thread_safe_forwards = False  # whether several threads may compute forwards at once

    def warm_up(self, max_batch_size: int) -> None:  # noqa: B027 - a default, not an oversight
        """Do what is done once, in the thread that will call `forward`. Default: nothing."""

    @abstractmethod
    def forward(self, pixels: Sequence[NDArray[np.uint8]] | NDArray[np.uint8]) -> torch.Tensor:
        """Compute the scores of a batch.

        Args:
            pixels: N times (H, W, 3) uint8.

        Returns:
            (N, C, h, w) float32 on the device. On a GPU they may be computed later: what is queued next
            sees them complete.
        """

    def start_mask(
        self,
        scores: torch.Tensor,
        size: tuple[int, int],
        *,
        confidence: bool = False,
        logits: bool = False,
        uncertain_below: float | None = None,
    ) -> PendingMask:
        """Start to compute one image's mask, and return at once. Default: `mask` computes it in the
        thread that waits for it.

        Args:
            scores: (C, h, w) float32 on the device.
            size: (H, W) px of the mask.
            confidence: whether the confidence of each pixel is wanted.
            logits: whether the scores are wanted.
            uncertain_below: pixels whose best score exceeds the second by less are wanted, too; None:
                they are not.
        """
        from maskq_worker.model.masks.lazy import LazyMask  # it imports torch

        return LazyMask(scores, size, self.mask, confidence, logits, uncertain_below)

    @abstractmethod
    def mask(self, scores: torch.Tensor, size: tuple[int, int]) -> NDArray[Any]:
        """Compute one image's mask now.

        Args:
            scores: (C, h, w) float32 on the device.
            size: (H, W) px of the mask.

        Returns:
            (H, W) class ids, uint8 up to 256 classes, else uint16.
        """


def name_of(dtype: torch.dtype) -> str:
    """`float16` for torch.float16."""
    return str(dtype).removeprefix("torch.")
