"""Where a batch's time goes: seconds on the device by kind of kernel, and the longest by name."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from bench.gpu.subject import Subject
from bench.gpu.timing import seconds, synchronize

BATCHES = (1, 16)
RUNS = 5
# The first that a kernel's or operator's name contains, in lower case.
KINDS = {
    "attention": ("flash", "fmha", "attention", "cutlassf"),
    "convolution": ("conv", "winograd", "implicit_gemm", "dgrad", "wgrad", "fprop"),
    "matrix product": ("gemm", "addmm", "matmul", "cutlass", "nvjet", "cublas", "xmma"),
    "upsampling": ("upsample", "interpolate"),
    "norm": ("layer_norm", "layernorm"),
    "copy": ("copy", "memcpy", "memset", "cat", "transpose", "nchw", "nhwc"),
    "table": ("index",),
    "elementwise": ("elementwise", "gelu", "relu", "add", "mul"),
}


def run(subject: Subject) -> dict[str, Any]:
    backend = subject.ours(warm=False)
    return {
        f"batch {batch}": one(subject, backend, batch)
        for batch in (BATCHES[:1] if subject.dry else BATCHES)
    }


@torch.inference_mode()
def one(subject: Subject, backend: Any, batch: int) -> dict[str, Any]:
    pixels = subject.pixels(batch)

    def forward() -> torch.Tensor:
        return backend.upsample(backend.compute(pixels))

    took = seconds(forward, subject.device, least_s=0.01 if subject.dry else 0.2)
    on_gpu = subject.device.type == "cuda"
    activities = [ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]
    with profile(activities=activities) as profiler:
        for _ in range(RUNS):
            forward()
        synchronize(subject.device)
    each = {
        event.key: (event.self_device_time_total if on_gpu else event.self_cpu_time_total)
        for event in profiler.key_averages()
    }
    kinds: dict[str, float] = defaultdict(float)
    for name, microseconds in each.items():
        kinds[kind(name)] += microseconds / RUNS / 1e3
    longest = sorted(each.items(), key=lambda pair: -pair[1])[:15]
    return {
        "eager_ms": round(1e3 * took, 3),
        "busy_ms": round(sum(kinds.values()), 3),
        "by_kind_ms": {name: round(ms, 3) for name, ms in sorted(kinds.items(), key=_falling)},
        "longest_ms": {name[:120]: round(us / RUNS / 1e3, 3) for name, us in longest},
    }


def kind(name: str) -> str:
    lowered = name.lower()
    for what, words in KINDS.items():
        if any(word in lowered for word in words):
            return what
    return "other"


def _falling(pair: tuple[str, float]) -> float:
    return -pair[1]
