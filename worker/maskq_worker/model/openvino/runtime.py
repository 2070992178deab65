"""OpenVINO and NNCF: imported when they are needed, and kept from sending anything anywhere."""

from __future__ import annotations

import importlib
import logging
import sys
from pathlib import Path
from typing import Any, Final

import torch

from maskq_worker.model.errors import ModelError

DEVICE: Final = "CPU"
# Instructions that multiply and add 8-bit numbers without a sum in between that may overflow.
_DOT_PRODUCTS: Final = ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp")
_CPUINFO: Final = Path("/proc/cpuinfo")


def openvino() -> Any:
    """The module. Raises ModelError where it is not installed."""
    return _imported("openvino")


def nncf() -> Any:
    """As `openvino`; it logs errors only."""
    before = logging.getLoggerClass()
    try:
        module = _imported("nncf")
    finally:
        logging.setLoggerClass(before)  # it sets its own, for every logger of the process
    module.set_log_level(logging.ERROR)
    return module


def settings() -> dict[str, Any]:
    """How every network is compiled: exactly, on as many threads as torch, on any of the cores."""
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),  # OMP_NUM_THREADS, where it is set
        # Several processes would all be pinned to the first cores.
        "ENABLE_CPU_PINNING": False,
        # What is float32 is computed as float32: newer CPUs would take bfloat16.
        "EXECUTION_MODE_HINT": "ACCURACY",
        "INFERENCE_PRECISION_HINT": "f32",
    }


def has_dot_products(cpuinfo: Path = _CPUINFO) -> bool:
    """Whether this CPU sums products of 8-bit numbers exactly; where that is unknown, yes."""
    if not cpuinfo.is_file():
        return True
    return any(
        name in cpuinfo.read_text(encoding="utf-8", errors="replace").split()
        for name in _DOT_PRODUCTS
    )


def _imported(name: str) -> Any:
    # Both send usage data to their vendor from the moment they are imported, unless this package is
    # missing. So it is missing, in this process.
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ModelError(
            f"{name} is not usable here ({error}): run `pip install 'maskq[openvino]'`, or set "
            "MASKQ_DTYPE=float32"
        ) from error
