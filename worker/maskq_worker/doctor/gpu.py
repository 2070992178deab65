"""GPU and driver: what the settings want, what nvidia-smi lists, what torch sees."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from maskq.cli.doctor.check import Check, Finding, Role, Target, ok, trouble, unknown, warning
from maskq.errors import InvalidRequest
from maskq_worker.process.gpus import inventory
from maskq_worker.settings import WorkerSettings

_DEVICES: Final = Path("/dev")
_DRIVER: Final = "install NVIDIA's driver on the host, and its container toolkit (docs/gpu.md)"
_TORCH: Final = "install a CUDA build of torch (docs/gpu.md)"


class GpuCheck(Check):
    area = "GPU"
    roles = frozenset({Role.WORKER})

    def run(self, target: Target) -> Iterator[Finding]:
        try:
            settings = WorkerSettings.load()
        except InvalidRequest:
            yield unknown("GPU", "the settings are not valid")
            return
        if settings.wants_cpu:
            yield ok("device", "the settings choose the CPU")
            return
        gpus = inventory()
        if not gpus:
            yield _without(settings)
            return
        yield ok("driver", _driver() or f"{len(gpus)} GPUs or MIG slices")
        yield _torch()


def _without(settings: WorkerSettings) -> Finding:
    if any(_DEVICES.glob("nvidia[0-9]*")):
        return trouble("driver", "there is a GPU, but nvidia-smi lists none", _DRIVER)
    if settings.device == "cuda" or settings.backend == "cuda":
        return trouble(
            "device",
            "MASKQ_DEVICE or MASKQ_BACKEND is cuda, and this machine shows no GPU",
            _DRIVER,
        )
    return warning(
        "device",
        "no GPU: the worker computes on the CPU",
        "set MASKQ_DEVICE=cpu if that is meant; else install the driver (docs/gpu.md)",
    )


def _driver() -> str:
    """Name, driver and memory of each GPU."""
    listed = subprocess.run(
        ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return "; ".join(listed.stdout.splitlines()) if listed.returncode == 0 else ""


def _torch() -> Finding:
    try:
        import torch
    except ImportError as error:
        return trouble("torch", f"cannot be imported: {error}", "pip install 'maskq[worker]'")
    if torch.version.cuda is None:
        return trouble("torch", f"torch {torch.__version__} has no CUDA", _TORCH)
    if not torch.cuda.is_available():
        return trouble(
            "torch",
            f"torch {torch.__version__} (CUDA {torch.version.cuda}) cannot use the GPU",
            "upgrade the driver to one that supports this CUDA version, or install another torch",
        )
    return ok(
        "torch",
        f"{torch.__version__}, CUDA {torch.version.cuda}, {torch.cuda.device_count()} devices",
    )
