"""What is still open: single layers of DPT-Large done in other ways, timed side by side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from bench.gpu.subject import Subject
from bench.gpu.timing import reason, seconds
from maskq_worker.model.cuda.precision import exact_float32
from maskq_worker.model.network.rewrites import upsample
from maskq_worker.model.network.upsampled import on_the_small_map

Ways = dict[str, Callable[[], Any]]


def run(subject: Subject) -> dict[str, Any]:
    half = torch.float16 if subject.device.type == "cuda" else torch.float32
    parts: dict[str, Callable[[Subject, int, torch.dtype], Ways]] = {
        "query, key and value": projections,
        "attention": attention,
        "the head's convolution": head,
        "classifier": classifier,
        "last upsampling": upsampling,
    }
    rows = []
    for batch in (1,) if subject.dry else (1, 16):
        for layer, ways in parts.items():
            for way, timed in ways(subject, batch, half).items():
                rows.append({"batch": batch, "layer": layer, "way": way, "ms": _ms(subject, timed)})
                subject.keep(rows)
    return {"rows": rows}


def projections(subject: Subject, batch: int, dtype: torch.dtype) -> Ways:
    """24 times a forward."""
    width, tokens = _tokens(subject, batch, dtype)
    three = [nn.Linear(width, width).to(tokens) for _ in range(3)]
    one = nn.Linear(width, 3 * width).to(tokens)
    return {
        "three products": lambda: [layer(tokens) for layer in three],
        "one product, as views": lambda: one(tokens).chunk(3, dim=2),
    }


def attention(subject: Subject, batch: int, dtype: torch.dtype) -> Ways:
    """24 times a forward; each implementation that takes these shapes here."""
    width, tokens = _tokens(subject, batch, dtype)
    heads = 1 if subject.dry else 16
    split = tokens.unflatten(2, (heads, width // heads)).transpose(1, 2)

    def forced(backend: SDPBackend) -> Callable[[], Any]:
        def attend() -> torch.Tensor:
            with sdpa_kernel(backend):
                return functional.scaled_dot_product_attention(split, split, split)

        return attend

    ways: Ways = {
        "torch's choice": lambda: functional.scaled_dot_product_attention(split, split, split)
    }
    for name in ("FLASH_ATTENTION", "EFFICIENT_ATTENTION", "CUDNN_ATTENTION", "MATH"):
        ways[name.lower()] = forced(getattr(SDPBackend, name))
    return ways


def head(subject: Subject, batch: int, dtype: torch.dtype) -> Ways:
    channels, side = (8, 4) if subject.dry else (256, 120)
    layer = nn.Conv2d(channels, channels, 3, padding=1).to(subject.device, dtype)
    layer = layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    values = _map(subject, batch, channels, side, dtype)
    return {
        "on the upsampled map": lambda: layer(upsample(values)),
        "on the small map": lambda: on_the_small_map(layer, values),
    }


def classifier(subject: Subject, batch: int, dtype: torch.dtype) -> Ways:
    """In float32 as it is; what TF32 and half precision would save."""
    channels, side = (8, 4) if subject.dry else (256, 240)
    layer = nn.Conv2d(channels, 150, 1).to(subject.device)
    half = nn.Conv2d(channels, 150, 1).to(subject.device, dtype)
    values = _map(subject, batch, channels, side, dtype)

    def tf32() -> torch.Tensor:
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
        try:
            answer: torch.Tensor = layer(values.float())
            return answer
        finally:
            exact_float32()

    return {
        "float32": lambda: layer(values.float()),
        "tf32": tf32,
        "half, then float32": lambda: half(values).float(),
    }


def upsampling(subject: Subject, batch: int, dtype: torch.dtype) -> Ways:
    """Of the scores: what a mask kernel that reads the small map would save."""
    classes, side = (8, 4) if subject.dry else (150, 240)
    values = _map(subject, batch, classes, side, torch.float32)
    return {"by place": lambda: upsample(values), "by class": lambda: upsample(values.contiguous())}


def _tokens(subject: Subject, batch: int, dtype: torch.dtype) -> tuple[int, torch.Tensor]:
    width, count = (32, 17) if subject.dry else (1024, 901)
    return width, torch.randn(batch, count, width, device=subject.device, dtype=dtype)


def _map(
    subject: Subject, batch: int, channels: int, side: int, dtype: torch.dtype
) -> torch.Tensor:
    values = torch.randn(batch, channels, side, side, device=subject.device, dtype=dtype)
    return values.contiguous(memory_format=torch.channels_last)


def _ms(subject: Subject, run: Callable[[], Any]) -> float | str:
    with torch.inference_mode():
        try:
            least_s = 0.005 if subject.dry else 0.1
            return round(1e3 * seconds(run, subject.device, least_s=least_s), 4)
        except RuntimeError as error:  # an attention that does not take these shapes
            return reason(error)
