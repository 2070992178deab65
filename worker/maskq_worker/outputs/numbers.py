"""Numbers about a mask: what each class covers, and the scores as they are."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from PIL import Image

from maskq.contract.jobs import ClassStats
from maskq_worker.outputs import bands
from maskq_worker.outputs.regions import Survey

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SMALL: Final = 1 << 14  # pixels


def stats_json(mask: NDArray[Any], classes: Sequence[ClassStats]) -> bytes:
    """{"width": …, "height": …, "classes": [{"id", "label", "pixels", "share", …}, …]}, UTF-8."""
    document = {
        "width": mask.shape[1],
        "height": mask.shape[0],
        "classes": [entry.model_dump() for entry in classes],
    }
    return json.dumps(document, ensure_ascii=False, indent=2).encode()


def logits_npy(logits: NDArray[np.float32] | None) -> bytes:
    """float32 (classes, height, width) at the model's own size, in numpy's format."""
    if logits is None:
        raise ValueError("an output needs the logits, but the model was not asked to keep them")
    buffer = io.BytesIO()
    np.save(buffer, logits.astype(np.float32, copy=False), allow_pickle=False)
    return buffer.getvalue()


def shares(mask: NDArray[Any], labels: Sequence[str]) -> list[ClassStats]:
    """How much of the mask (H, W) each class in it covers; the largest share first."""
    counts = _histogram(mask)[: len(labels)]
    present = sorted(np.flatnonzero(counts).tolist(), key=lambda index: (-counts[index], index))
    return [
        ClassStats(
            id=index,
            label=labels[index],
            pixels=int(counts[index]),
            share=float(counts[index] / mask.size),
        )
        for index in present
    ]


def stats(mask: NDArray[Any], labels: Sequence[str]) -> list[ClassStats]:
    """As `shares`, with the box around each class and the number of its 8-connected regions.

    Reads the mask once, from top to bottom, one band of rows at a time.
    """
    height, width = mask.shape
    survey = Survey(width, int(mask.max()) + 1)
    rows = max(1, bands.PIXELS // width)
    for top in range(0, height, rows):
        # With the last row of the band before, since regions continue across it.
        survey.add(mask[max(0, top - 1) : top + rows], max(0, top - 1))
    return [
        entry.model_copy(
            update={"bbox": survey.box(entry.id), "regions": int(survey.regions[entry.id])}
        )
        for entry in shares(mask, labels)
    ]


def _histogram(mask: NDArray[Any]) -> NDArray[np.int64]:
    """Pixels per class id. Pillow needs no copy of the mask. numpy makes one of 8 bytes a pixel, but
    is faster for a small mask."""
    if mask.dtype == np.uint8 and mask.size > _SMALL:
        return np.array(Image.fromarray(mask).histogram(), dtype=np.int64)
    return np.bincount(mask.ravel())
