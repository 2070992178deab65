"""From a mask to what a job asked for: files for the store, numbers for the record."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
from PIL import Image

from maskq.contract import Output
from maskq.contract.jobs import ClassStats
from maskq_worker.model.labels import PALETTE_COLOURS, palette

if TYPE_CHECKING:
    from numpy.typing import NDArray

OVERLAY_ALPHA: Final = 0.5  # of the mask's colours over the image
OVERLAY_QUALITY: Final = 90
# A palette image has no use for PNG's filters, and more effort than this saves little of few bytes.
PNG_COMPRESS_LEVEL: Final = 1


class Segmented(Protocol):
    """What the model said about one image."""

    @property
    def mask(self) -> NDArray[Any]: ...  # (H, W) uint8 or uint16, class ids

    @property
    def logits(self) -> NDArray[np.float32] | None: ...  # (C, h, w)


@dataclass(frozen=True, slots=True)
class Artifact:
    """One file of a result."""

    output: Output
    filename: str
    content_type: str
    body: bytes


def encode(
    wanted: frozenset[Output], *, image: Image.Image, output: Segmented, labels: Sequence[str]
) -> list[Artifact]:
    """The files that were asked for, in the order of `Output`.

    image: RGB, upright, as large as the mask; labels: by class id. Raises ValueError if the mask
    is not of the image's size, or if logits are wanted and were not kept.
    """
    mask = output.mask
    if mask.shape != (image.height, image.width):
        raise ValueError(f"a mask of {mask.shape} for an image of {(image.height, image.width)}")
    artifacts = []
    if Output.MASK in wanted:
        body = mask_png(mask, len(labels))
        artifacts.append(Artifact(Output.MASK, "mask.png", "image/png", body))
    if Output.OVERLAY in wanted:
        body = overlay_jpeg(image, mask, len(labels))
        artifacts.append(Artifact(Output.OVERLAY, "overlay.jpg", "image/jpeg", body))
    if Output.STATS in wanted:
        body = stats_json(mask, labels)
        artifacts.append(Artifact(Output.STATS, "stats.json", "application/json", body))
    if Output.LOGITS in wanted:
        body = logits_npy(output.logits)
        artifacts.append(Artifact(Output.LOGITS, "logits.npy", "application/x-npy", body))
    return artifacts


def mask_png(mask: NDArray[Any], num_labels: int) -> bytes:
    """Pixel = class id: a palette PNG, or 16-bit gray where there are more than 256 classes."""
    image = Image.fromarray(mask) if mask.dtype == np.uint16 else _coloured(mask, num_labels)
    return _saved(image, "PNG", compress_level=PNG_COMPRESS_LEVEL)


def overlay_jpeg(image: Image.Image, mask: NDArray[Any], num_labels: int) -> bytes:
    """The image with the colours of its classes over it, half and half."""
    ids = mask if mask.dtype == np.uint8 else (mask % PALETTE_COLOURS).astype(np.uint8)
    blended = Image.blend(image, _coloured(ids, num_labels).convert("RGB"), OVERLAY_ALPHA)
    return _saved(blended, "JPEG", quality=OVERLAY_QUALITY)


def stats_json(mask: NDArray[Any], labels: Sequence[str]) -> bytes:
    """{"width": …, "height": …, "classes": [{"id", "label", "pixels", "share"}, …]}, UTF-8."""
    document = {
        "width": mask.shape[1],
        "height": mask.shape[0],
        "classes": [entry.model_dump() for entry in stats(mask, labels)],
    }
    return json.dumps(document, ensure_ascii=False, indent=2).encode()


def logits_npy(logits: NDArray[np.float32] | None) -> bytes:
    """float32 (classes, height, width) at the model's own size, in numpy's format."""
    if logits is None:
        raise ValueError("logits are wanted, but the model was not asked to keep them")
    buffer = io.BytesIO()
    np.save(buffer, logits.astype(np.float32, copy=False), allow_pickle=False)
    return buffer.getvalue()


def stats(mask: NDArray[Any], labels: Sequence[str]) -> list[ClassStats]:
    """How much of the mask (H, W) each class covers that is there; the largest share first."""
    counts = _histogram(mask)
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


def _histogram(mask: NDArray[Any]) -> NDArray[np.int64]:
    """Pixels per class id. Pillow's needs no copy of the mask; numpy's makes one of 8 bytes a pixel."""
    if mask.dtype == np.uint8:
        return np.array(Image.fromarray(mask).histogram(), dtype=np.int64)
    return np.bincount(mask.ravel())


def _coloured(mask: NDArray[np.uint8], num_labels: int) -> Image.Image:
    image = Image.fromarray(mask)
    image.putpalette(palette(num_labels))  # makes it mode P, its pixels unchanged
    return image


def _saved(image: Image.Image, kind: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
