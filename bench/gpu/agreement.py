"""Which precision? Pixels that half precision decides as float32 does, on drawn scenes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from bench.gpu.subject import Subject, demo
from bench.gpu.timing import release
from maskq_worker.model.cuda.coarse import coarse
from maskq_worker.model.cuda.fused.operations import TorchOperations
from maskq_worker.model.cuda.load import capability, in_dtype
from maskq_worker.model.cuda.precision import choose
from maskq_worker.model.masks.bounded import upsampled_argmax
from maskq_worker.model.network import Network

SIZE = (480, 640)  # px (H, W), of the scenes
SMALL = (48, 64)  # the same, dry
FIRST = 1000  # of the scenes: those that training never saw


def run(subject: Subject) -> dict[str, Any]:
    return {
        name: shares(one)
        for name, one in {
            "random weights": subject,
            "demo checkpoint": demo(subject.device, dry=subject.dry),
        }.items()
    }


@torch.inference_mode()
def shares(subject: Subject) -> dict[str, Any]:
    """Of all pixels of all masks; the largest difference of the largest score."""
    images = subject.prepared(subject.scenes(2 if subject.dry else 16, FIRST))
    pixels = torch.from_numpy(np.stack(images)).to(subject.device)
    source = subject.transformers()
    values = subject.normalised(pixels, torch.float32)
    expected = torch.cat([source(pixel_values=one[None]).logits for one in values])
    size = SMALL if subject.dry else SIZE
    exact = [upsampled_argmax(one, size) for one in expected]
    found: dict[str, Any] = {"classes": len(np.unique(np.stack(exact)))}
    for dtype in _types(subject):
        ours, operations = in_dtype(coarse(Network(subject.transformers())), dtype, subject.device)
        upsample = (operations or TorchOperations()).upsample
        theirs = subject.transformers(dtype)
        for name, forward in {
            f"ours {dtype}": lambda one, ours=ours, upsample=upsample: upsample(ours(one)),
            f"transformers {dtype}": lambda one, theirs=theirs: theirs(pixel_values=one).logits,
        }.items():
            each = torch.cat([forward(one[None].to(dtype)).float() for one in values])
            found[name.replace("torch.", "")] = _compared(each, expected, exact)
        del ours, theirs
        release(subject.device)
    return found


def _types(subject: Subject) -> list[torch.dtype]:
    """float32 too, and then without TF32: what is left is the order of sums."""
    both = choose(capability(subject.device), "auto").dtypes
    half = [dtype for dtype in both if dtype != torch.float32] or [torch.bfloat16]
    return [torch.float32, *half]


def _compared(
    scores: torch.Tensor, expected: torch.Tensor, exact: list[np.ndarray]
) -> dict[str, float]:
    masks = [upsampled_argmax(one, exact[0].shape) for one in scores]
    same = [float((mask == other).mean()) for mask, other in zip(masks, exact, strict=True)]
    # Image by image: of all at once each step is gigabytes.
    apart = [(one - other).abs().max() for one, other in zip(scores, expected, strict=True)]
    largest = torch.stack([one.abs().max() for one in expected]).max()
    return {
        "pixels_agree": float(np.mean(same)),
        "worst_image": min(same),
        "largest_difference": (torch.stack(apart).max() / largest).item(),
        "finite": bool(scores.isfinite().all()),
    }
