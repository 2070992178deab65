"""Is it right? Scores beside transformers', masks beside torch's, graphs beside eager forwards."""

from __future__ import annotations

import copy
import time
from itertools import chain
from typing import Any

import numpy as np
import torch

from bench.gpu.subject import Subject, demo
from maskq_worker.model.cuda.backend import CudaBackend
from maskq_worker.model.cuda.coarse import coarse
from maskq_worker.model.cuda.masks import Masks, load_masks
from maskq_worker.model.masks.bounded import mask_with_confidence, upsampled_argmax
from maskq_worker.model.masks.comparison import untied_differences
from maskq_worker.model.masks.reference import transformers_mask
from maskq_worker.model.network import Network
from maskq_worker.model.network.rewrites import upsample

SIZES = (
    (640, 480),
    (481, 479),
    (1920, 1080),
    (97, 801),
    (1, 1),
    (2400, 1350),
)  # px, width x height
SMALL = ((64, 48), (33, 31))
# As long as on an H100 all of it takes; a slow card does less of it.
GRAPHS_S = 12.0
TURNS_S = 5.0  # of three times the same


def run(subject: Subject) -> dict[str, Any]:
    found = {"scores": scores(subject), "masks": masks(demo(subject.device, dry=subject.dry))}
    backend = subject.ours()
    found["backend"] = {"dtype": str(backend.dtype), "device": str(backend.device)}
    found["graphs"] = graphs(subject, backend)
    found["batches_in_a_row"] = in_a_row(subject, backend)
    return found


@torch.inference_mode()
def scores(subject: Subject) -> dict[str, float]:
    """Float32 both: the largest difference, of the largest score."""
    source = subject.transformers()
    values = subject.normalised(subject.pixels(2), torch.float32)
    expected = source(pixel_values=values).logits
    ours = Network(copy.deepcopy(source))(values)
    parts = upsample(coarse(Network(source))(values))
    largest = expected.abs().max()
    return {
        "largest_difference": ((ours - expected).abs().max() / largest).item(),
        "coarse_and_upsampled": ((parts - expected).abs().max() / largest).item(),
        "same_class": (ours.argmax(1) == expected.argmax(1)).double().mean().item(),
    }


@torch.inference_mode()
def masks(subject: Subject) -> dict[str, Any]:
    """The kernel beside torch's bands and transformers' post-processing: pixels that differ, untied."""
    backend, draw = subject.ours(warm=False), load_masks(subject.device)
    [scene] = backend.forward(subject.prepared(subject.scenes(1)))
    noise = 10 * torch.randn_like(scene)
    rows = []
    for name, given in {"scene": scene, "noise": noise}.items():
        for width, height in SMALL if subject.dry else SIZES:
            rows.append({"scores": name, "size": f"{width}x{height}"})
            rows[-1] |= compared(subject, draw, given, (height, width))
    broken = scene.clone()
    broken[3, 5, 7] = torch.nan
    return {
        "kernel": draw.uses_kernel,
        "sizes": rows,
        "nan_is_told": bool(draw(broken, (50, 60)).unsound.item()),
        "sound_is_told": not draw(scene, (50, 60)).unsound.item(),
    }


def compared(
    subject: Subject, draw: Masks, given: torch.Tensor, size: tuple[int, int]
) -> dict[str, Any]:
    mask = draw(given, size).mask.cpu().numpy()
    drawn = draw(given, size, confidence=True)
    assert drawn.confidence is not None
    bands, share = mask_with_confidence(given, size)
    expected = transformers_mask(subject.preprocessor.processor, given, size)
    others = {"bands": upsampled_argmax(given, size), "transformers": expected, "all": bands}
    return {
        **{f"differ_from_{name}": int((mask != other).sum()) for name, other in others.items()},
        "untied": untied_differences(given, mask, expected),
        "confidence_off_by": int(
            np.abs(drawn.confidence.cpu().numpy().astype(int) - share).max(initial=0)
        ),
    }


@torch.inference_mode()
def graphs(subject: Subject, backend: CudaBackend) -> dict[str, Any]:
    """Batches by graphs and eagerly: the largest difference, of the largest score of its image."""
    kept, most = backend.graphs, max(subject.batches)
    if kept is None:
        return {"captured": []}
    images = subject.prepared(subject.scenes(most))
    worst: dict[int, float] = {}
    no_room = []
    end = time.monotonic() + GRAPHS_S
    # The graphs' own sizes first, then as many of those between them as there is time for.
    for count in sorted(range(1, most + 1), key=lambda count: count not in kept.seconds):
        if count not in kept.seconds and time.monotonic() > end:
            break
        try:
            worst[count] = beside_eager(backend, images[-count:])
        except torch.OutOfMemoryError:  # 32 images' scores are 4.4 GB, and here they are twice
            no_room.append(count)
    return {
        "captured": sorted(kept.seconds),
        "compared": sorted(worst),
        "no_room_for": no_room,
        "largest_difference": float(np.max(list(worst.values()))),  # NaN, if one is
    }


def beside_eager(backend: CudaBackend, images: list[Any]) -> float:
    """The largest difference of an image, of its largest score; image by image, to take no memory."""
    replayed, eager = backend.forward(images), backend.forward_eager(images)
    pairs = zip(replayed, eager, strict=True)
    each = [(one - other).abs().max() / other.abs().max() for one, other in pairs]
    return torch.stack(each).max().item()


def in_a_row(subject: Subject, backend: CudaBackend) -> dict[str, Any]:
    """Full batches queued without waiting, of other images and sizes each, beside the same one by one.

    What waits too little in the copies shows here. But a plan of cuDNN's need not repeat itself to the
    last bit: one by one a second time is the floor, and only what differs by more is a fault.
    """
    count, sizes = max(subject.batches), SMALL if subject.dry else SIZES[:2]
    images = subject.prepared(subject.scenes(2 * count))
    turns = [
        images[turn % count : turn % count + count] for turn in range(2 if subject.dry else 30)
    ]

    def queued(some: list[Any]) -> list[Any]:
        given = backend.forward(some)
        return [backend.start_mask(one, sizes[n % 2][::-1]) for n, one in enumerate(given)]

    alone: list[list[Any]] = []
    end = time.monotonic() + TURNS_S
    for some in turns:
        alone.append(arrived(queued(some)))
        if len(alone) > 1 and time.monotonic() > end:
            break
    turns = turns[: len(alone)]
    again = [arrived(queued(some)) for some in turns]
    together = [queued(some) for some in turns]
    return {
        "masks": len(turns) * count,
        "in_a_row": differing(alone, [arrived(pending) for pending in together]),
        "one_by_one_again": differing(alone, again),
    }


def arrived(pending: list[Any]) -> list[Any]:
    return [one.wait().mask for one in pending]


def differing(some: list[list[Any]], others: list[list[Any]]) -> dict[str, float]:
    """How many masks differ at all, and of the one that does most, in which share of its pixels."""
    pairs = zip(chain(*some), chain(*others), strict=True)
    shares = [float((mask != other).mean()) for mask, other in pairs]
    return {"masks_that_differ": sum(share > 0 for share in shares), "worst_share": max(shares)}
