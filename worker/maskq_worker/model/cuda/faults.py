"""Errors after which a process can compute nothing more on its card."""

from __future__ import annotations

from typing import Final

import torch

# What torch, cuBLAS and cuDNN say when a kernel failed, whichever call comes to hear of it.
_SAID: Final = ("CUDA error", "STATUS_EXECUTION_FAILED", "CUDNN_STATUS_INTERNAL_ERROR")
# A call that was refused: nothing ran, and the next one may.
NO_KERNELS: Final = "no kernel image"  # of a card that this build of torch was not made for
_REFUSED: Final = (
    NO_KERNELS,
    "out of memory",
    "ALLOC_FAILED",
    "invalid argument",
    "invalid configuration argument",
    "NOT_SUPPORTED",
)


def is_fault(error: BaseException) -> bool:
    """Whether the card, or this process's context on it, is lost: an illegal address, a card that fell
    off its bus. Want of memory is none, nor is a launch that was refused."""
    if not isinstance(error, RuntimeError) or isinstance(error, torch.OutOfMemoryError):
        return False
    said = str(error)
    return any(words in said for words in _SAID) and not any(words in said for words in _REFUSED)
