"""From a mask to what a job asked for: files for the store, numbers for the record."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from PIL import Image

from maskq.contract import Output
from maskq.contract.jobs import ClassStats
from maskq.contract.storage_layout import BINARY_TYPE, FILES, binary_name
from maskq_worker.outputs.classes import chosen, colours, only
from maskq_worker.outputs.coco import Source, rle_json
from maskq_worker.outputs.numbers import logits_npy, measured, shares, stats, stats_json
from maskq_worker.outputs.pictures import (
    OVERLAY_ALPHA,
    binary_png,
    confidence_png,
    mask_png,
    overlay_jpeg,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "Artifact",
    "OverlayStyle",
    "Segmented",
    "Source",
    "chosen",
    "colours",
    "encode",
    "measured",
    "only",
    "shares",
    "stats",
]


class Segmented(Protocol):
    """What the model said about one image."""

    @property
    def mask(self) -> NDArray[Any]: ...  # (H, W) uint8 or uint16, class ids

    @property
    def logits(self) -> NDArray[np.float32] | None: ...  # (C, h, w)

    @property
    def confidence(self) -> NDArray[np.uint8] | None: ...  # (H, W)


@dataclass(frozen=True, slots=True)
class Artifact:
    """One file of a result."""

    output: Output
    filename: str
    content_type: str
    body: bytes

    @classmethod
    def of(cls, output: Output, body: bytes) -> Artifact:
        """Of an output that is one file."""
        return cls(output, FILES[output].name, FILES[output].content_type, body)


@dataclass(frozen=True, slots=True)
class OverlayStyle:
    """How an overlay is drawn."""

    alpha: float = OVERLAY_ALPHA  # of the colours over the image, 0..1
    legend: bool = False  # whether colours, labels and shares stand below


_PLAIN: Final = OverlayStyle()
_UNNAMED: Final = Source()


def encode(
    wanted: frozenset[Output],
    *,
    image: Image.Image,
    output: Segmented,
    labels: Sequence[str],
    classes: Sequence[ClassStats] | None = None,
    look: OverlayStyle = _PLAIN,
    source: Source = _UNNAMED,
) -> list[Artifact]:
    """The files that were asked for, in the order of `Output`; of BINARY one for each class.

    image: RGB, upright, as large as the mask; output: its mask may be one of `only`; labels: by
    class id; classes: what `measured` says of this mask, if that is known already; source: what rle
    calls the image. Raises ValueError if the mask is not of the image's size, or if logits or
    confidence are wanted and were not kept.
    """
    if output.mask.shape != (image.height, image.width):
        raise ValueError(
            f"a mask of {output.mask.shape} for an image of {(image.height, image.width)}"
        )
    if classes is None:
        classes = measured(wanted, output.mask, labels)
    return [*_files(wanted, image, output, labels, classes, look, source)]


def _files(
    wanted: frozenset[Output],
    image: Image.Image,
    output: Segmented,
    labels: Sequence[str],
    classes: Sequence[ClassStats],
    look: OverlayStyle,
    source: Source,
) -> Iterator[Artifact]:
    mask = output.mask
    if Output.MASK in wanted:
        yield Artifact.of(Output.MASK, mask_png(mask, len(labels)))
    if Output.OVERLAY in wanted:
        body = overlay_jpeg(image, mask, len(labels), look.alpha, classes if look.legend else ())
        yield Artifact.of(Output.OVERLAY, body)
    if Output.STATS in wanted:
        yield Artifact.of(Output.STATS, stats_json(mask, classes))
    if Output.LOGITS in wanted:
        yield Artifact.of(Output.LOGITS, logits_npy(output.logits))
    if Output.CONFIDENCE in wanted:
        yield Artifact.of(Output.CONFIDENCE, confidence_png(output.confidence))
    if Output.RLE in wanted:
        yield Artifact.of(Output.RLE, rle_json(mask, classes, labels, source))
    if Output.BINARY in wanted:
        for entry in classes:
            body = binary_png(mask, entry.id)
            yield Artifact(Output.BINARY, binary_name(entry.id), BINARY_TYPE, body)
