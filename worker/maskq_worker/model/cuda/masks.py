"""Masks on the device: by the Triton kernel, or in bands by torch where it cannot run."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import torch

from maskq_worker.model.transformers_backend import finite
from maskq_worker.model.cuda.faults import is_fault
from maskq_worker.model.masks.interpolation import Interpolation
from maskq_worker.model.masks.bounded import mask_dtype, mask_with_confidence, upsampled_argmax

_TYPES: Final = {1: torch.uint8, 2: torch.uint16}  # by bytes
_INDEXED: Final = 2**31  # scores, or pixels: the kernel counts in 32 bits

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Tile:
    """What one program of the kernel does at once; all powers of two.

    With four pairs of pixel and class a thread the compiler takes 80 to 98 registers (for a T4 and an
    H200), with eight about 160, with sixteen all there are, and spills.
    """

    height: int = 4  # px
    width: int = 8  # px
    lanes: int = 32  # classes
    warps: int = 8


@dataclass(frozen=True, slots=True)
class DeviceMask:
    """What was drawn, perhaps not yet: it is queued on the current stream."""

    mask: torch.Tensor  # (H, W) uint8 up to 256 classes, else uint16
    unsound: torch.Tensor  # (1,) int32: not 0 where a score is no number
    confidence: torch.Tensor | None  # (H, W) uint8


class TritonMaskKernel:
    """The kernel, for one device."""

    def __init__(self, tile: Tile | None = None) -> None:
        """Raises ImportError where Triton is not installed."""
        from maskq_worker.model.cuda import kernel

        self._kernel: Any = kernel
        self._tile = tile or Tile()
        # An image's size often comes again; a few hundred keep less than 20 MB.
        self._taps = lru_cache(maxsize=256)(_taps)

    def __call__(
        self, scores: torch.Tensor, size: tuple[int, int], *, confidence: bool = False
    ) -> DeviceMask:
        """scores: (C, h, w) float32, best by place in memory (`channels_last`); size: (H, W) px.

        Queued on the current stream. The mask as of `upsampled_argmax`, the confidence as of
        `mask_with_confidence`. A NaN counts as the highest score.
        """
        classes, height, width = scores.shape
        by_place = scores.permute(1, 2, 0).contiguous()
        device, tile = scores.device, self._tile
        dtype = _TYPES[mask_dtype(classes)().itemsize]
        best = torch.empty(height * width, dtype=dtype, device=device)
        unsound = torch.zeros(1, dtype=torch.int32, device=device)
        mask = torch.empty(size, dtype=dtype, device=device)
        sure = torch.empty(size if confidence else (1, 1), dtype=torch.uint8, device=device)
        places = tile.height * tile.width
        self._kernel.best_classes[(_parts(height * width, places),)](
            by_place, best, unsound, height * width, classes,
            PLACES=places, LANES=tile.lanes, num_warps=tile.warps, enable_fp_fusion=True,
        )  # fmt: skip
        self._kernel.draw_mask[(_parts(size[1], tile.width), _parts(size[0], tile.height))](
            by_place, best, *self._taps(height, size[0], device), *self._taps(width, size[1], device),
            mask, sure, classes, width, *size,
            HEIGHT=tile.height, WIDTH=tile.width, LANES=tile.lanes, CONFIDENCE=confidence,
            num_warps=tile.warps, enable_fp_fusion=True,
        )  # fmt: skip
        return DeviceMask(mask, unsound, sure if confidence else None)


class Masks:
    """What the backend asks for a mask; a kernel that fails is not tried again."""

    def __init__(self, fused: TritonMaskKernel | None) -> None:
        self._fused = fused

    @property
    def fused(self) -> bool:
        """Whether the kernel draws, as far as is known."""
        return self._fused is not None

    def __call__(
        self, scores: torch.Tensor, size: tuple[int, int], *, confidence: bool = False
    ) -> DeviceMask:
        """As `TritonMaskKernel`. A mask that torch computes in bands is in host memory on return."""
        if self._fused is not None and max(scores.numel(), size[0] * size[1]) < _INDEXED:
            try:
                return self._fused(scores, size, confidence=confidence)
            except torch.OutOfMemoryError:
                raise  # of this image, not of the kernel
            except Exception as error:
                if is_fault(error):
                    raise  # the other way would fail too
                if "out of memory" in str(error):  # Triton's: the kernel is loaded another time
                    return _in_bands(scores, size, confidence=confidence)
                self._fused = None  # no compiler, a driver or a card too old
                _say(error)
        return _in_bands(scores, size, confidence=confidence)


def load(device: torch.device) -> Masks:
    """With the kernel where there is one for the device."""
    if device.type != "cuda":
        return Masks(None)
    try:
        return Masks(TritonMaskKernel())
    except Exception as error:  # noqa: BLE001 - not installed, or not for this Python
        _say(error)
        return Masks(None)


def _say(error: Exception) -> None:
    reason = str(error).strip().splitlines() or [""]
    _log.warning(
        "the mask kernel cannot run (%s: %s), so torch draws masks in bands, with the same pixels and "
        "more slowly; it needs the package triton and a C compiler",
        type(error).__name__,
        reason[0],
    )


def _in_bands(scores: torch.Tensor, size: tuple[int, int], *, confidence: bool) -> DeviceMask:
    unsound = torch.tensor([not finite(scores)], dtype=torch.int32)
    if not confidence:
        return DeviceMask(torch.from_numpy(upsampled_argmax(scores, size)), unsound, None)
    mask, sure = mask_with_confidence(scores, size)
    return DeviceMask(torch.from_numpy(mask), unsound, torch.from_numpy(sure))


def _taps(source: int, target: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Of every output position two source positions, (2, target) int32, and weights, float32."""
    interpolation = Interpolation.of(source, target, device)
    positions = torch.stack([interpolation.first, interpolation.second]).int()
    return positions, torch.stack([interpolation.first_weight, interpolation.second_weight])


def _parts(length: int, part: int) -> int:
    return -(-length // part)
