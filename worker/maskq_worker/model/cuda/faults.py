"""Errors after which a process can compute nothing more on its GPU."""

from __future__ import annotations

from typing import Final

import torch

# Messages of torch, cuBLAS and cuDNN after a kernel failed, by whichever call reports it.
_SAID: Final = ("CUDA error", "STATUS_EXECUTION_FAILED", "CUDNN_STATUS_INTERNAL_ERROR")
# Messages of a refused call: nothing ran, and the next call may succeed.
NO_KERNELS: Final = "no kernel image"  # this build of torch does not support the GPU
_REFUSED: Final = (
    NO_KERNELS,
    "out of memory",
    "ALLOC_FAILED",
    "invalid argument",
    "invalid configuration argument",
    "NOT_SUPPORTED",
)


def is_fault(error: BaseException) -> bool:
    """Whether the GPU, or this process's context on it, is lost: an illegal address, or a card off
    its bus.

    Too little memory and a refused launch are not faults.
    """
    if not isinstance(error, RuntimeError) or isinstance(error, torch.OutOfMemoryError):
        return False
    said = str(error)
    return any(words in said for words in _SAID) and not any(words in said for words in _REFUSED)
