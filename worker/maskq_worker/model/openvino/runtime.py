"""OpenVINO and NNCF, imported when they are needed and without their telemetry."""

from __future__ import annotations

import importlib
import logging
import sys
from pathlib import Path
from typing import Any, Final

import torch

from maskq_worker.model.errors import ModelError

DEVICE: Final = "CPU"
# Instructions that sum products of 8-bit numbers without an intermediate sum that may overflow.
_DOT_PRODUCTS: Final = ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp")
_CPUINFO: Final = Path("/proc/cpuinfo")


def openvino() -> Any:
    """The module. Raises ModelError if it is not installed."""
    return _imported("openvino")


def nncf() -> Any:
    """As `openvino`. Its logger reports errors only."""
    before = logging.getLoggerClass()
    try:
        module = _imported("nncf")
    finally:
        logging.setLoggerClass(before)  # NNCF sets its own class for all loggers of the process
    module.set_log_level(logging.ERROR)
    return module


def settings() -> dict[str, Any]:
    """Compile every network exactly, for as many threads as torch, without pinning to cores."""
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),  # OMP_NUM_THREADS, where it is set
        # It would pin several processes to the same cores.
        "ENABLE_CPU_PINNING": False,
        # Compute float32 exactly: newer CPUs would take bfloat16.
        "EXECUTION_MODE_HINT": "ACCURACY",
        "INFERENCE_PRECISION_HINT": "f32",
    }


def has_dot_products(cpuinfo: Path = _CPUINFO) -> bool:
    """Whether this CPU sums products of 8-bit numbers exactly; True if that is unknown."""
    if not cpuinfo.is_file():
        return True
    return any(
        name in cpuinfo.read_text(encoding="utf-8", errors="replace").split()
        for name in _DOT_PRODUCTS
    )


def _imported(name: str) -> Any:
    # Both send usage data to their vendor from the moment of their import, unless this package is
    # missing. So it is made to be missing in this process.
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ModelError(
            f"{name} is not usable here ({error}): run `pip install 'maskq[openvino]'`, or set "
            "MASKQ_DTYPE=float32"
        ) from error
