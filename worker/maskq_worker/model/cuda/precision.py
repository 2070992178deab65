"""Which floating point type a card computes in, and how exactly.

fp16 keeps three more bits of every number than bf16, which reaches further: so fp16 comes first, and
bf16 only where measured agreement with float32 is better (an overflow, say). The classifier stays in
float32 either way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import torch

_TENSOR_CORES: Final = (7, 0)  # compute capability; before it half precision is not worth having
_BFLOAT16: Final = (8, 0)


@dataclass(frozen=True, slots=True)
class Choice:
    """What a card may compute in. Between several types, measured agreement decides."""

    dtypes: tuple[torch.dtype, ...]  # the preferred one first
    missing: str = ""  # what was asked for and the card lacks, for the log


def choose(capability: tuple[int, int], requested: str) -> Choice:
    """capability: of the card, as (7, 5). requested: auto, float32, float16 or bfloat16."""
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
        f"compute capability {capability[0]}.{capability[1]} has no bfloat16 (it begins at 8.0): "
        f"{name(instead)} instead",
    )


def best(agreement: Mapping[torch.dtype, float | None]) -> torch.dtype:
    """The type whose masks agree most with float32's; of equals the first; float32 where none is sound.

    agreement: by type, as `agreement` measures it.
    """
    sound = {dtype: share for dtype, share in agreement.items() if share is not None}
    return max(sound, key=lambda dtype: sound[dtype]) if sound else torch.float32


def agreement(scores: torch.Tensor, exact: torch.Tensor) -> float | None:
    """Share of places with the same best class, 0..1; None: scores that are no numbers.

    Both (N, C, h, w); `exact` from float32.
    """
    if not scores.isfinite().all():
        return None
    return (scores.argmax(dim=1) == exact.argmax(dim=1)).double().mean().item()


def lower(network: torch.nn.Module, dtype: torch.dtype) -> torch.nn.Module:
    """The network in this type, its classifier in float32; the same module."""
    network.to(dtype)
    network.get_submodule("head.classifier").float()
    return network


def exact_float32() -> None:
    """For this process: what is float32 is computed as float32.

    torch lets cuDNN round a convolution's inputs to TF32 (10 bits of mantissa), the classifier's too.
    """
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def name(dtype: torch.dtype) -> str:
    """`float16` for torch.float16."""
    return str(dtype).removeprefix("torch.")
