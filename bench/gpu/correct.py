"""Is it right? Scores beside transformers', masks beside torch's, graphs beside eager forwards."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch

from bench.gpu.subject import Subject, demo
from maskq_worker.model.backends import reference_mask
from maskq_worker.model.cuda import Cuda
from maskq_worker.model.cuda.coarse import coarse
from maskq_worker.model.cuda.masks import Masks, load
from maskq_worker.model.masks import mask_with_confidence, untied_differences, upsampled_argmax
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
    backend, draw = subject.ours(warm=False), load(subject.device)
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
        "fused": draw.fused,
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
    bands, sure = mask_with_confidence(given, size)
    expected = reference_mask(subject.preprocessor.processor, given, size)
    others = {"bands": upsampled_argmax(given, size), "transformers": expected, "all": bands}
    return {
        **{f"differ_from_{name}": int((mask != other).sum()) for name, other in others.items()},
        "untied": untied_differences(given, mask, expected),
        "confidence_off_by": int(
            np.abs(drawn.confidence.cpu().numpy().astype(int) - sure).max(initial=0)
        ),
    }


@torch.inference_mode()
def graphs(subject: Subject, backend: Cuda) -> dict[str, Any]:
    """Every number of images by graphs and eagerly: the largest difference, of the largest score."""
    kept = backend._graphs
    if kept is None:
        return {"captured": []}
    worst = 0.0
    images = subject.prepared(subject.scenes(max(subject.batches)))
    for count in range(1, max(subject.batches) + 1):
        some = images[-count:]
        replayed = backend.forward(some)
        backend._graphs = None
        eager = backend.forward(some)
        backend._graphs = kept
        worst = max(worst, ((replayed - eager).abs().max() / eager.abs().max()).item())
    return {"captured": sorted(kept.seconds), "largest_difference": worst}


def in_a_row(subject: Subject, backend: Cuda) -> dict[str, int]:
    """Full batches queued without waiting, of other images and sizes each, beside the same one by one.

    What waits too little in the copies shows here: not a pixel may differ.
    """
    count, sizes = max(subject.batches), SMALL if subject.dry else SIZES[:2]
    images = subject.prepared(subject.scenes(2 * count))
    turns = [
        images[turn % count : turn % count + count] for turn in range(2 if subject.dry else 30)
    ]

    def queued(some: list[Any]) -> list[Any]:
        given = backend.forward(some)
        return [backend.answer(one, sizes[n % 2][::-1]) for n, one in enumerate(given)]

    alone = [[wait() for wait in queued(some)] for some in turns]
    together = [queued(some) for some in turns]
    wrong = sum(
        not np.array_equal(answer.mask, wait().mask)
        for answers, waits in zip(alone, together, strict=True)
        for answer, wait in zip(answers, waits, strict=True)
    )
    return {"masks": len(turns) * count, "that_differ": wrong}
