"""Our own network on an NVIDIA GPU; docs/gpu.md says what it does there and what it falls back to."""

from __future__ import annotations

from maskq_worker.model.cuda.backend import Cuda
from maskq_worker.model.cuda.load import load_cuda

__all__ = ["Cuda", "load_cuda"]
