"""How long something takes on a device, as its own clock says."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

GROUPS = 5  # of runs; the median of their means counts


def seconds(run: Callable[[], Any], device: torch.device, *, least_s: float = 0.5) -> float:
    """Of one run among many, back to back: the device never waits for the processor, if it can.

    Warm after two runs; at least `least_s` long, and five runs, or one where one takes longer.
    """
    for _ in range(2):
        run()
    once = group(run, device, 1)
    if once > least_s:
        return once
    count = max(1, round(least_s / GROUPS / max(once, 1e-6)))
    return statistics.median(group(run, device, count) for _ in range(GROUPS))


def group(run: Callable[[], Any], device: torch.device, count: int) -> float:
    """Mean seconds of `count` runs, from the first's begin to the last's end."""
    synchronize(device)
    if device.type != "cuda":
        began_s = time.perf_counter()
        for _ in range(count):
            run()
        return (time.perf_counter() - began_s) / count
    began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    began.record()
    for _ in range(count):
        run()
    ended.record()
    ended.synchronize()
    return float(began.elapsed_time(ended)) / 1e3 / count


def wall_seconds(run: Callable[[], Any], device: torch.device, *, runs: int) -> float:
    """Median seconds of a run that ends with the processor: copies and waiting included."""
    took = []
    for number in range(runs + 1):
        synchronize(device)
        began = time.perf_counter()
        run()
        synchronize(device)
        if number:  # the first warms up
            took.append(time.perf_counter() - began)
    return statistics.median(took)


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def release(device: torch.device) -> None:
    """Give back what nobody holds any more, and begin a new peak."""
    gc.collect()
    # In a process that has not touched the card yet there is no peak, and to reset it fails.
    if device.type == "cuda" and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak_mib(device: torch.device) -> dict[str, float]:
    """Since `release`: by tensors, and taken from the card."""
    if device.type != "cuda":
        return {}
    return {
        "allocated_mib": round(torch.cuda.max_memory_allocated(device) / 2**20),
        "reserved_mib": round(torch.cuda.max_memory_reserved(device) / 2**20),
    }


def reason(error: BaseException) -> str:
    """What stands in the place of a figure that could not be measured."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
