"""The card: what it computes and copies at best, and the floor that this sets for a forward."""

from __future__ import annotations

import math
from typing import Any
from unittest import mock

import torch
from torch.utils.flop_counter import FlopCounterMode

from bench.gpu.subject import Subject
from bench.gpu.timing import seconds
from maskq_worker.model.cuda import precision
from maskq_worker.model.network import Network, upsampled


def run(subject: Subject) -> dict[str, Any]:
    rates = {
        precision.name(dtype): matmul_tflops(subject, dtype)
        for dtype in (torch.float32, torch.float16, torch.bfloat16)
    }
    flops = gflop(subject)
    fastest = max(rates["float16"], rates["bfloat16"])
    return {
        "matmul_tflop_s": rates,
        "copies_gb_s": copies(subject),
        "gflop_an_image": flops,
        "floor_images_s": {name: round(1e3 * fastest / each, 1) for name, each in flops.items()},
    }


def matmul_tflops(subject: Subject, dtype: torch.dtype) -> float:
    side = 256 if subject.dry else 8192
    a, b = (
        torch.randn(side, side, device=subject.device).to(dtype)  # zeros would be faster
        for _ in range(2)
    )
    took = seconds(lambda: a @ b, subject.device, least_s=0.01 if subject.dry else 0.3)
    return round(2 * side**3 / took / 1e12, 3)


def copies(subject: Subject) -> dict[str, float]:
    """On the card (bytes read and written), to it and from it, by pinned memory and by any other."""
    size = 2**20 if subject.dry else 2**28
    there = torch.randint(0, 256, (size,), device=subject.device, dtype=torch.uint8)
    other = torch.empty_like(there)
    plain = torch.zeros(size, dtype=torch.uint8)
    pinned = plain.pin_memory() if subject.device.type == "cuda" else plain.clone()
    ways = {
        "on_the_card": (lambda: other.copy_(there), 2),
        "to_it_pinned": (lambda: there.copy_(pinned, non_blocking=True), 1),
        "to_it": (lambda: there.copy_(plain), 1),
        "from_it_pinned": (lambda: pinned.copy_(there, non_blocking=True), 1),
        "from_it": (lambda: plain.copy_(there), 1),
    }
    return {
        name: round(times * size / seconds(copy, subject.device, least_s=0.1) / 1e9, 1)
        for name, (copy, times) in ways.items()
    }


@torch.inference_mode()
def gflop(subject: Subject) -> dict[str, float]:
    """Of one image: matrix products and convolutions, which is what torch counts, and attention."""
    nowhere = Subject(subject.directory, torch.device("meta"), subject.dry)
    source = nowhere.transformers()
    values = torch.empty(1, 3, subject.side, subject.side, device="meta")
    counted = {"transformers": _counted(lambda: source(pixel_values=values))}
    source.auxiliary_head = None
    counted["without the auxiliary head"] = _counted(lambda: source(pixel_values=values))
    ours = Network(source)
    with mock.patch.object(upsampled, "PAYS_FROM", math.inf):  # as on a GPU
        counted["ours"] = _counted(lambda: ours(values))
    return counted


def _counted(forward: Any) -> float:
    with FlopCounterMode(display=False) as counter:
        forward()
    return round(counter.get_total_flops() / 1e9, 3)
