"""The operations by Triton's kernels, by cuDNN with its own ReLU, and by cuBLAS with its own GELU."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import nn

from maskq_worker.model.cuda.faults import is_fault
from maskq_worker.model.cuda.fused.operations import SplitClassifier, TorchOperations

if TYPE_CHECKING:
    from collections.abc import Iterator

_BLOCK: Final = 1024  # elements that a program upsamples
_PLACES, _LANES = 8, 128  # of a map, and channels, that a program adds
_WARPS: Final = 4
_SAME: Final = 8  # units in the last place of the largest value

_log = logging.getLogger(__name__)


class CudaOperations(TorchOperations):
    """As `TorchOperations`, for half precision on a GPU. What a kernel cannot take goes to torch."""

    def __init__(self) -> None:
        """Raises ImportError where Triton is not installed."""
        from maskq_worker.model.cuda.fused import kernels

        self._kernels: Any = kernels

    def upsample(self, values: torch.Tensor) -> torch.Tensor:
        batch, channels, height, width = values.shape
        maps = values.permute(0, 2, 3, 1).contiguous()
        answer = maps.new_empty(batch, 2 * height, 2 * width, channels)
        blocks = -(-2 * width * channels // _BLOCK)
        self._kernels.upsample_twice[(blocks, 2 * height, batch)](
            maps,
            answer,
            height,
            width,
            channels,
            _step(height),
            _step(width),
            BLOCK=_BLOCK,
            num_warps=_WARPS,
            enable_fp_fusion=True,
        )
        return answer.permute(0, 3, 1, 2)

    def convolve_and_rectify(self, convolution: nn.Conv2d, values: torch.Tensor) -> torch.Tensor:
        if not values.is_cuda or convolution.bias is None:
            return super().convolve_and_rectify(convolution, values)
        answer: torch.Tensor = torch.cudnn_convolution_relu(
            values, convolution.weight, convolution.bias, convolution.stride,
            convolution.padding, convolution.dilation, convolution.groups,  # type: ignore[arg-type]
        )  # fmt: skip
        return answer

    def add_maps(
        self,
        values: torch.Tensor,
        bias: torch.Tensor,
        shortcut: torch.Tensor,
        other: torch.Tensor | None = None,
        *,
        rectified: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        last = torch.channels_last
        values, shortcut = (one.contiguous(memory_format=last) for one in (values, shortcut))
        if other is not None:
            other = other.contiguous(memory_format=last)
        total = torch.empty_like(values)
        positive = torch.empty_like(values) if rectified else None
        channels = values.shape[1]
        places = values.numel() // channels
        self._kernels.add_bias_and_maps[(-(-places // _PLACES),)](
            values, bias, shortcut, values if other is None else other, total,
            total if positive is None else positive, places, channels,
            OTHER=other is not None, RECTIFIED=rectified, PLACES=_PLACES, LANES=_LANES,
            num_warps=_WARPS, enable_fp_fusion=True,
        )  # fmt: skip
        return total, positive

    def widen(self, linear: nn.Linear, activation: nn.Module, tokens: torch.Tensor) -> torch.Tensor:
        """GELU by its tanh form, which is off by less than half precision rounds: cuBLAS computes it
        without another pass over memory."""
        if not tokens.is_cuda or type(activation) is not nn.GELU or linear.bias is None:
            return super().widen(linear, activation, tokens)
        rows = tokens.reshape(-1, tokens.shape[-1])
        wide: torch.Tensor = torch._addmm_activation(
            linear.bias, rows, linear.weight.t(), use_gelu=True
        )
        return wide.view(*tokens.shape[:-1], -1)

    def add_and_normalise(
        self, tokens: torch.Tensor, change: torch.Tensor, norm: nn.LayerNorm
    ) -> tuple[torch.Tensor, torch.Tensor]:
        tokens, change = tokens.contiguous(), change.contiguous()
        channels = tokens.shape[-1]
        total, normed = torch.empty_like(tokens), torch.empty_like(tokens)
        lanes = 1 << (channels - 1).bit_length()
        self._kernels.add_and_normalise[(tokens.numel() // channels,)](
            tokens, change, norm.weight, norm.bias, total, normed, channels, norm.eps,
            LANES=lanes, num_warps=_WARPS, enable_fp_fusion=True,
        )  # fmt: skip
        return total, normed

    def classify(self, values: torch.Tensor, classifier: SplitClassifier) -> torch.Tensor:
        if not values.is_cuda:  # torch has no float32 product of half precision there
            return super().classify(values, classifier)
        batch, features, height, width = values.shape
        places = values.permute(0, 2, 3, 1).reshape(-1, features)
        parts = torch.mm(places, classifier.parts.t(), out_dtype=torch.float32)
        scores = self.add_parts(parts, classifier)
        return scores.view(batch, height, width, -1).permute(0, 3, 1, 2)

    def add_parts(self, parts: torch.Tensor, classifier: SplitClassifier) -> torch.Tensor:
        """Scores (places, classes) of the products (places, number * stride) with all parts."""
        classes = len(classifier.bias)
        scores = parts.new_empty(len(parts), classes)
        self._kernels.add_parts[(-(-len(parts) // _PLACES),)](
            parts, classifier.bias, scores, len(parts), classes, classifier.stride,
            classifier.scale, PARTS=classifier.number, PLACES=_PLACES, LANES=_LANES,
            num_warps=_WARPS, enable_fp_fusion=True,
        )  # fmt: skip
        return scores


def load_operations(device: torch.device, dtype: torch.dtype) -> CudaOperations | None:
    """The operations, if they work on the device and agree with torch's. None: the log says why not."""
    if device.type != "cuda":
        return None
    try:
        operations = CudaOperations()
        check(operations, device, dtype)
    except Exception as error:
        if is_fault(error) or isinstance(error, torch.OutOfMemoryError):
            raise
        reason = str(error).strip().splitlines() or [""]
        _log.warning(
            "the faster layers cannot run (%s: %s): the network is computed layer by layer; they need "
            "the package triton and a C compiler",
            type(error).__name__,
            reason[0],
        )
        return None
    return operations


@torch.inference_mode()
def check(operations: TorchOperations, device: torch.device, dtype: torch.dtype) -> None:
    """Compare every operation with torch's on small tensors. Raises RuntimeError where one differs."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        found = list(_answers(operations, device, dtype))
        torch.manual_seed(0)
        expected = list(_answers(TorchOperations(), device, dtype))
    for (name, ours), (_, theirs) in zip(found, expected, strict=True):
        largest = theirs.float().abs().max()
        allowed = _SAME * torch.finfo(theirs.dtype).eps * largest
        difference = (ours.float() - theirs.float()).abs().max()
        if not difference <= allowed:
            raise RuntimeError(
                f"{name} differs by {difference.item():.2g} from torch's, whose largest value is "
                f"{largest.item():.2g}"
            )


def _answers(
    operations: TorchOperations, device: torch.device, dtype: torch.dtype
) -> Iterator[tuple[str, torch.Tensor]]:
    def maps(channels: int = 24) -> torch.Tensor:
        made = torch.randn(2, channels, 5, 7, device=device).to(dtype)
        return made.contiguous(memory_format=torch.channels_last)

    convolution = nn.Conv2d(24, 24, 3, padding=1, device=device).to(dtype)
    convolution = convolution.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    classifier = nn.Conv2d(24, 19, 1, device=device)
    linear = nn.Linear(24, 48, device=device).to(dtype)
    norm = nn.LayerNorm(24, device=device).to(dtype)
    tokens, change = (torch.randn(2, 9, 24, device=device).to(dtype) for _ in range(2))
    yield "upsampling", operations.upsample(maps())
    yield "upsampling of scores", operations.upsample(maps(19).float())
    yield "convolution with ReLU", operations.convolve_and_rectify(convolution, maps())
    bias = torch.randn(24, device=device).to(dtype)
    yield "sum of two maps", operations.add_maps(maps(), bias, maps())[0]
    total, positive = operations.add_maps(maps(), bias, maps(), maps(), rectified=True)
    assert positive is not None  # noqa: S101 (it was asked for)
    yield "sum of three maps", total
    yield "ReLU of a sum", positive
    yield "product with GELU", operations.widen(linear, nn.GELU(), tokens)
    total, normed = operations.add_and_normalise(tokens, change, norm)
    yield "sum of tokens", total
    yield "LayerNorm of a sum", normed
    split = SplitClassifier.of(classifier, dtype)
    yield "classifier", operations.classify(maps(), split)


def _step(size: int) -> float:
    """Source positions from one output position to the next, corner on corner."""
    return (size - 1) / (2 * size - 1)
