"""Which device computes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from maskq_worker.model.errors import ModelError

if TYPE_CHECKING:
    import torch


def choose_device(device: str, backend: str = "auto") -> torch.device:
    """Choose the device: that of the backend, else the first visible GPU, else the CPU.

    A GPU that the settings name is never replaced by a CPU. Raises ModelError.
    """
    import torch

    if backend in ("cpu", "cuda"):
        if device not in ("auto", backend):
            raise ModelError(
                f"MASKQ_BACKEND is {backend} and MASKQ_DEVICE is {device}: set only one of them"
            )
        device = backend
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        return torch.device("cpu")
    if device != "cuda":
        raise ModelError(
            f"MASKQ_DEVICE is {device!r}; expected auto, cpu or cuda (CUDA_VISIBLE_DEVICES picks "
            "the GPU)"
        )
    if not torch.cuda.is_available():
        raise ModelError(
            "MASKQ_DEVICE is cuda, but torch finds no GPU here: check the driver, "
            "CUDA_VISIBLE_DEVICES and that torch was built for CUDA, or set MASKQ_DEVICE=cpu"
        )
    return torch.device("cuda", 0)
