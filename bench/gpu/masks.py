"""What a mask costs: the kernel, torch's bands, transformers' post-processing."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from bench.gpu.subject import Subject, demo
from bench.gpu.timing import peak_mib, reason, release, seconds, wall_seconds
from maskq_worker.model.cuda.masks import (
    Tile,
    TritonMaskKernel,
    device_interpolation,
    load_masks,
)
from maskq_worker.model.cuda.transfer import Download
from maskq_worker.model.masks.bounded import mask_with_confidence, upsampled_argmax
from maskq_worker.model.masks.reference import transformers_mask

SIZES = ((640, 480), (1920, 1080), (4000, 3000))  # px, width x height
TILES = (
    Tile(), Tile(8, 8, 16, 8), Tile(8, 8, 32, 8), Tile(4, 8, 32, 4), Tile(4, 4, 32, 4),
    Tile(4, 8, 16, 4), Tile(8, 8, 8, 4), Tile(2, 32, 32, 8), Tile(8, 16, 32, 16), Tile(4, 8, 64, 8),
)  # fmt: skip


def run(subject: Subject) -> dict[str, Any]:
    given = scores(subject)
    sizes = ((64, 48),) if subject.dry else SIZES
    rows = []
    for name, one in given.items():
        for width, height in sizes:
            took = ways(subject, one, (height, width))
            rows.append({"scores": name, "size": f"{width}x{height}", **took})
            subject.keep(rows)
    return {"rows": rows, "tiles_ms": tiles(subject, given)}


@torch.inference_mode()
def scores(subject: Subject) -> dict[str, torch.Tensor]:
    """(C, h, w) as the network gives them: a drawn scene's, at DPT-Large's size, and white noise."""
    small = demo(subject.device, dry=subject.dry)
    [scene] = small.ours(warm=False).forward(small.prepared(small.scenes(1)))
    side = 32 if subject.dry else 480
    large = torch.nn.functional.interpolate(scene[None], size=(side, side), mode="bicubic")
    noise = 10 * torch.randn_like(large)
    return {
        name: one.contiguous(memory_format=torch.channels_last)[0]
        for name, one in {"scene": large, "noise": noise}.items()
    }


@torch.inference_mode()
def ways(subject: Subject, given: torch.Tensor, size: tuple[int, int]) -> dict[str, Any]:
    """Milliseconds, and the memory that the slowest way takes."""
    draw, download = load_masks(subject.device), Download(subject.device)
    found: dict[str, Any] = {"kernel": draw.uses_kernel}
    found["kernel_ms"] = _ms(subject, lambda: draw(given, size))
    found["kernel_confidence_ms"] = _ms(subject, lambda: draw(given, size, confidence=True))
    lengths = list(zip(given.shape[1:], size, strict=True))
    found["interpolation_of_a_new_size_ms"] = _ms(
        subject,
        lambda: [
            device_interpolation(source, target, subject.device) for source, target in lengths
        ],
    )
    runs = 2 if subject.dry else 5
    for name, way in {
        "kernel_and_copy_ms": lambda: download.start(draw(given, size).mask).wait(),
        "bands_ms": lambda: upsampled_argmax(given, size),
        "bands_confidence_ms": lambda: mask_with_confidence(given, size),
        "transformers_ms": lambda: transformers_mask(subject.preprocessor.processor, given, size),
    }.items():
        release(subject.device)
        found[name] = _tried(partial(wall_seconds, way, subject.device, runs=runs))
        found[name.replace("_ms", "_peak")] = peak_mib(subject.device).get("allocated_mib")
    return found


@torch.inference_mode()
def tiles(subject: Subject, given: dict[str, torch.Tensor]) -> list[dict[str, Any]]:
    """The kernel alone, 1920x1080, cut in other ways."""
    if subject.device.type != "cuda":
        return []
    rows: list[dict[str, Any]] = []
    for tile in TILES:
        kernel = TritonMaskKernel(tile)
        rows.append({"tile": str(tile)})
        for name, one in given.items():
            draw = partial(kernel, one, (1080, 1920))
            rows[-1][name] = _tried(partial(seconds, draw, subject.device, least_s=0.1))
    return rows


def _ms(subject: Subject, run: Callable[[], Any]) -> float:
    least_s = 0.01 if subject.dry else 0.2
    return round(1e3 * seconds(run, subject.device, least_s=least_s), 4)


def _tried(measure: Callable[[], float]) -> float | str:
    """Milliseconds, or why not: transformers' way needs gigabytes, a tile more than the card has."""
    try:
        return round(1e3 * measure(), 4)
    except Exception as error:  # noqa: BLE001 - Triton's have no base but this one
        return reason(error)
