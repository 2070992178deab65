"""The operations of the faster layers beside torch's, at DPT-Large's sizes: results and times."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from bench.gpu.subject import Subject
from bench.gpu.timing import reason, seconds
from maskq_worker.model.cuda.fused.cuda_operations import check, load_operations
from maskq_worker.model.cuda.fused.operations import SplitClassifier, TorchOperations

BATCH, SIDE, FEATURES, WIDTH, TOKENS, CLASSES = 16, 120, 256, 1024, 901, 150
DRY = 1, 4, 8, 32, 17, 7
HALF = torch.float16


@torch.inference_mode()
def run(subject: Subject) -> dict[str, Any]:
    device = subject.device
    fast = load_operations(device, HALF) or TorchOperations()
    rows: dict[str, dict[str, Any]] = {}
    for name, operations in (("torch_ms", TorchOperations()), ("fast_ms", fast)):
        for what, call in calls(operations, device, DRY if subject.dry else None):
            row = rows.setdefault(what, {"operation": what})
            try:
                took = seconds(call, device, least_s=0.01 if subject.dry else 0.1)
                row[name] = round(1e3 * took, 4)
            except RuntimeError as error:
                row[name] = reason(error)
    return {
        "operations": type(fast).__name__,
        "checked": {str(dtype): checked(fast, subject, dtype) for dtype in (HALF, torch.bfloat16)},
        "rows": list(rows.values()),
    }


def checked(operations: TorchOperations, subject: Subject, dtype: torch.dtype) -> str:
    try:
        check(operations, subject.device, dtype)
    except RuntimeError as error:
        return reason(error)
    return "as torch"


def calls(
    operations: TorchOperations, device: torch.device, sizes: tuple[int, ...] | None
) -> Iterator[tuple[str, Callable[[], Any]]]:
    batch, side, features, width, tokens, classes = sizes or (
        BATCH, SIDE, FEATURES, WIDTH, TOKENS, CLASSES,
    )  # fmt: skip

    def maps(height: int, channels: int = features, dtype: torch.dtype = HALF) -> torch.Tensor:
        made = torch.randn(batch, channels, height, height, device=device).to(dtype)
        return made.contiguous(memory_format=torch.channels_last)

    small, large = maps(side), maps(2 * side)
    scores = maps(2 * side, classes, torch.float32)
    bias = torch.randn(features, device=device).to(HALF)
    convolution = nn.Conv2d(features, features, 3, padding=1, device=device).to(HALF)
    convolution = convolution.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    row = torch.randn(batch, tokens, width, device=device).to(HALF)
    norm = nn.LayerNorm(width, device=device).to(HALF)
    linear = nn.Linear(width, 4 * width, device=device).to(HALF)
    split = SplitClassifier.of(nn.Conv2d(features, classes, 1, device=device), HALF)
    yield "upsample a map, half precision", lambda: operations.upsample(small)
    yield "upsample scores, float32", lambda: operations.upsample(scores)
    yield "convolution with ReLU", lambda: operations.convolve_and_rectify(convolution, large)
    yield (
        "three maps, bias and ReLU",
        lambda: operations.add_maps(small, bias, small, small, rectified=True),
    )
    yield "two maps and bias", lambda: operations.add_maps(small, bias, small)
    yield "sum and LayerNorm", lambda: operations.add_and_normalise(row, row, norm)
    yield "product with GELU", lambda: operations.widen(linear, nn.GELU(), row)
    yield "classifier", lambda: operations.classify(large, split)
