"""Masks on the GPU: by the Triton kernel, or by torch if the kernel cannot run."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import torch

from maskq_worker.model.cuda.faults import is_fault
from maskq_worker.model.masks.bounded import upsampled_argmax
from maskq_worker.model.masks.interpolation import Interpolation
from maskq_worker.model.masks.lazy import LazyMask
from maskq_worker.model.masks.scores import all_finite, mask_dtype

_TYPES: Final = {1: torch.uint8, 2: torch.uint16}  # by bytes
_INDEXED: Final = 2**31  # scores, or pixels: the kernel has 32-bit indices

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Tile:
    """The work of one program of the kernel; all are powers of two.

    The fastest of ten on an H200, for scenes: 0.19 ms for 1920x1080 px and 150 classes (`python -m
    bench.gpu --only masks`). Twice the pairs of pixel and class per thread take twice as long.
    """

    height: int = 4  # px
    width: int = 8  # px
    lanes: int = 16  # classes
    warps: int = 4


@dataclass(frozen=True, slots=True)
class DeviceMask:
    """A mask that is queued on the current stream, and perhaps not computed yet."""

    mask: torch.Tensor  # (H, W) uint8 up to 256 classes, else uint16
    unsound: torch.Tensor  # (1,) int32: not 0 if a score is NaN or infinite
    confidence: torch.Tensor | None  # (H, W) uint8
    uncertain: torch.Tensor | None = None  # (H, W) bool


class TritonMaskKernel:
    """Computes masks by the kernel, on one device."""

    def __init__(self, tile: Tile | None = None) -> None:
        """Raises ImportError where Triton is not installed."""
        from maskq_worker.model.cuda import kernel

        self._kernel: Any = kernel
        self._tile = tile or Tile()
        # Images often share a size; the tensors of 256 sizes take less than 20 MB.
        self._interpolation = lru_cache(maxsize=256)(device_interpolation)

    def __call__(
        self, scores: torch.Tensor, size: tuple[int, int], *, confidence: bool = False
    ) -> DeviceMask:
        """Queue the mask on the current stream.

        Args:
            scores: (C, h, w) float32, fastest if `channels_last` in memory.
            size: (H, W) px of the mask.
            confidence: whether the confidence is wanted.

        Returns:
            The mask as of `upsampled_argmax`, the confidence as of `mask_with_confidence`. A NaN counts
            as the highest score.
        """
        classes, height, width = scores.shape
        channels_last = scores.permute(1, 2, 0).contiguous()
        device, tile = scores.device, self._tile
        dtype = _TYPES[mask_dtype(classes)().itemsize]
        best = torch.empty(height * width, dtype=dtype, device=device)
        unsound = torch.zeros(1, dtype=torch.int32, device=device)
        mask = torch.empty(size, dtype=dtype, device=device)
        shares = torch.empty(size if confidence else (1, 1), dtype=torch.uint8, device=device)
        rows = self._interpolation(height, size[0], device)
        columns = self._interpolation(width, size[1], device)
        places = tile.height * tile.width
        self._kernel.best_classes[(_count(height * width, places),)](
            channels_last, best, unsound, height * width, classes,
            PLACES=places, LANES=tile.lanes, num_warps=tile.warps, enable_fp_fusion=True,
        )  # fmt: skip
        self._kernel.draw_mask[(_count(size[1], tile.width), _count(size[0], tile.height))](
            channels_last, best, *rows, *columns,
            mask, shares, classes, width, *size,
            HEIGHT=tile.height, WIDTH=tile.width, LANES=tile.lanes, CONFIDENCE=confidence,
            num_warps=tile.warps, enable_fp_fusion=True,
        )  # fmt: skip
        return DeviceMask(mask, unsound, shares if confidence else None)


class Masks:
    """Computes masks by the kernel, and by torch after the kernel has failed once."""

    def __init__(self, kernel: TritonMaskKernel | None) -> None:
        self._kernel = kernel
        self._is_uncertain_told = False

    @property
    def uses_kernel(self) -> bool:
        """Whether the kernel computes the next mask."""
        return self._kernel is not None

    def __call__(
        self,
        scores: torch.Tensor,
        size: tuple[int, int],
        *,
        confidence: bool = False,
        uncertain_below: float | None = None,
    ) -> DeviceMask:
        """As `TritonMaskKernel`. A mask that torch computes is complete, and in host memory.

        uncertain_below: as of `mask_with_uncertain`; None: not wanted. The kernel knows no second
        score, so torch computes such a mask.
        """
        if uncertain_below is not None:
            self._tell_uncertain()
            return _by_torch(scores, size, confidence=confidence, uncertain_below=uncertain_below)
        if self._kernel is not None and max(scores.numel(), size[0] * size[1]) < _INDEXED:
            try:
                return self._kernel(scores, size, confidence=confidence)
            except torch.OutOfMemoryError:
                raise  # the image is too large: the kernel works
            except Exception as error:
                if is_fault(error):
                    raise  # torch would fail, too
                if "out of memory" in str(error):  # Triton's: the kernel is loaded the next time
                    return _by_torch(scores, size, confidence=confidence)
                self._kernel = None  # no compiler, or the driver or the GPU is too old
                _warn(error)
        return _by_torch(scores, size, confidence=confidence)

    def _tell_uncertain(self) -> None:
        if self._kernel is not None and not self._is_uncertain_told:
            self._is_uncertain_told = True
            _log.warning(
                "the mask kernel does not find uncertain pixels: torch computes masks and uncertain "
                "pixels more slowly (MASKQ_PRECISION is fast or certified)"
            )


def load_masks(device: torch.device) -> Masks:
    """With the kernel, if it can be loaded for the device."""
    if device.type != "cuda":
        return Masks(None)
    try:
        return Masks(TritonMaskKernel())
    except Exception as error:  # noqa: BLE001 - Triton is not installed, or not for this Python
        _warn(error)
        return Masks(None)


def _warn(error: Exception) -> None:
    reason = str(error).strip().splitlines() or [""]
    _log.warning(
        "the mask kernel cannot run (%s: %s): torch computes the same masks more slowly; the kernel "
        "needs the package triton and a C compiler",
        type(error).__name__,
        reason[0],
    )


def _by_torch(
    scores: torch.Tensor,
    size: tuple[int, int],
    *,
    confidence: bool,
    uncertain_below: float | None = None,
) -> DeviceMask:
    mask, shares, uncertain = LazyMask(
        scores, size, upsampled_argmax, confidence, logits=False, uncertain_below=uncertain_below
    ).drawn()
    return DeviceMask(
        torch.from_numpy(mask),
        torch.tensor([not all_finite(scores)], dtype=torch.int32),
        None if shares is None else torch.from_numpy(shares),
        None if uncertain is None else torch.from_numpy(uncertain),
    )


def device_interpolation(
    source: int, target: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Two source positions for every output position, (2, target) int32, and their weights, float32."""
    interpolation = Interpolation.of(source, target, device)
    positions = torch.stack([interpolation.first, interpolation.second]).int()
    return positions, torch.stack([interpolation.first_weight, interpolation.second_weight])


def _count(length: int, part: int) -> int:
    return -(-length // part)
