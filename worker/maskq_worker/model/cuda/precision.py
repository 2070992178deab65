"""The floating point type that a GPU computes in, and how exactly.

fp16 keeps three more bits of every number than bf16, which has the larger range. So fp16 is preferred,
and bf16 is chosen only if its measured agreement with float32 is better, for example after an overflow.
The classifier stays in float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import torch

_TENSOR_CORES: Final = (7, 0)  # compute capability; older GPUs gain nothing from half precision
_BFLOAT16: Final = (8, 0)


@dataclass(frozen=True, slots=True)
class Choice:
    """The types that a GPU may compute in. Among several, measured agreement decides."""

    dtypes: tuple[torch.dtype, ...]  # the preferred one first
    missing: str = ""  # the requested type that the GPU lacks, for the log


def choose(capability: tuple[int, int], requested: str) -> Choice:
    """Choose by compute capability, as (7, 5). requested: auto | float32 | float16 | bfloat16."""
    if requested == "float32" or (requested == "auto" and capability < _TENSOR_CORES):
        return Choice((torch.float32,))
    if requested == "float16":
        return Choice((torch.float16,))
    if requested == "bfloat16" and capability >= _BFLOAT16:
        return Choice((torch.bfloat16,))
    if requested == "auto":
        both = (torch.float16, torch.bfloat16)
        return Choice(both if capability >= _BFLOAT16 else both[:1])
    instead = torch.float16 if capability >= _TENSOR_CORES else torch.float32
    return Choice(
        (instead,),
        f"compute capability {capability[0]}.{capability[1]} has no bfloat16 (8.0 and later have it): "
        f"{name(instead)} instead",
    )


def best(agreement: Mapping[torch.dtype, float | None]) -> torch.dtype:
    """The type that agrees most with float32; of equals the first; float32 if all overflow.

    agreement: by type, as `agreement` measures it.
    """
    sound = {dtype: share for dtype, share in agreement.items() if share is not None}
    return max(sound, key=lambda dtype: sound[dtype]) if sound else torch.float32


def agreement(scores: torch.Tensor, exact: torch.Tensor) -> float | None:
    """The share of places with the same best class, 0..1; None: some scores are NaN or infinite.

    scores, exact: (N, C, h, w); `exact` is computed in float32.
    """
    if not scores.isfinite().all():
        return None
    return (scores.argmax(dim=1) == exact.argmax(dim=1)).double().mean().item()


def lower(network: torch.nn.Module, dtype: torch.dtype) -> torch.nn.Module:
    """Convert a network in place, but for its classifier, which stays in float32. Returns it."""
    network.to(dtype)
    network.get_submodule("head.classifier").float()
    return network


def exact_float32() -> None:
    """Compute float32 exactly, in this process.

    By default torch lets cuDNN round the inputs of convolutions, the classifier's too, to TF32 (10 bits
    of mantissa).
    """
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def name(dtype: torch.dtype) -> str:
    """`float16` for torch.float16."""
    return str(dtype).removeprefix("torch.")
