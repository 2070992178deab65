"""The encoder of each output, and what it needs.

The outputs themselves, with file names and content types, are those of maskq.contract.outputs. A new
output starts there, and adds its encoder to ENCODERS.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from PIL import Image

from maskq.contract import Output
from maskq.contract.jobs import ClassStats
from maskq.contract.outputs import FILES
from maskq_worker.outputs.coco import Source, rle_json
from maskq_worker.outputs.numbers import logits_npy, stats_json
from maskq_worker.outputs.pictures import (
    OVERLAY_ALPHA,
    binary_png,
    confidence_png,
    mask_png,
    overlay_jpeg,
    uncertain_png,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class OverlayStyle:
    """How an overlay is drawn."""

    alpha: float = OVERLAY_ALPHA  # of the colours over the image, 0..1
    legend: bool = False  # whether colours, labels and shares are listed below the image


@dataclass(frozen=True, slots=True)
class Segmentation:
    """What outputs are made of."""

    image: Image.Image  # RGB, upright, as large as the mask
    mask: NDArray[Any]  # (H, W) uint8 or uint16, class ids
    labels: Sequence[str]  # by class id
    classes: Sequence[ClassStats]  # those in the mask, the largest first
    style: OverlayStyle
    source: Source
    logits: NDArray[np.float32] | None  # (C, h, w); None: the model did not keep them
    confidence: NDArray[np.uint8] | None  # (H, W); None: likewise
    uncertain: NDArray[np.bool_] | None  # (H, W); None: likewise


@dataclass(frozen=True, slots=True)
class Artifact:
    """One file of a result."""

    output: Output
    filename: str
    content_type: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Encoder:
    """Makes the files of one output, and says what it needs."""

    encode: Callable[[Segmentation], Iterator[Artifact]]
    needs_logits: bool = False  # of the model
    needs_confidence: bool = False  # of the model
    needs_uncertain: bool = False  # of the model
    needs_regions: bool = False  # boxes and regions in the classes


def _mask(made: Segmentation) -> Iterator[Artifact]:
    yield _file(Output.MASK, mask_png(made.mask, len(made.labels)))


def _overlay(made: Segmentation) -> Iterator[Artifact]:
    legend = made.classes if made.style.legend else ()
    body = overlay_jpeg(made.image, made.mask, len(made.labels), made.style.alpha, legend)
    yield _file(Output.OVERLAY, body)


def _stats(made: Segmentation) -> Iterator[Artifact]:
    yield _file(Output.STATS, stats_json(made.mask, made.classes))


def _logits(made: Segmentation) -> Iterator[Artifact]:
    yield _file(Output.LOGITS, logits_npy(made.logits))


def _confidence(made: Segmentation) -> Iterator[Artifact]:
    yield _file(Output.CONFIDENCE, confidence_png(made.confidence))


def _uncertain(made: Segmentation) -> Iterator[Artifact]:
    yield _file(Output.UNCERTAIN, uncertain_png(made.uncertain))


def _rle(made: Segmentation) -> Iterator[Artifact]:
    yield _file(Output.RLE, rle_json(made.mask, made.classes, made.labels, made.source))


def _binary(made: Segmentation) -> Iterator[Artifact]:
    for entry in made.classes:
        yield _file(Output.BINARY, binary_png(made.mask, entry.id), entry.id)


def _file(output: Output, body: bytes, class_id: int = 0) -> Artifact:
    """The file of an output, or of one class in an output that is one file per class."""
    return Artifact(output, FILES[output].of_class(class_id), FILES[output].content_type, body)


# In the order of Output.
ENCODERS: Final[Mapping[Output, Encoder]] = MappingProxyType(
    {
        Output.MASK: Encoder(_mask),
        Output.OVERLAY: Encoder(_overlay),
        Output.STATS: Encoder(_stats, needs_regions=True),
        Output.LOGITS: Encoder(_logits, needs_logits=True),
        Output.CONFIDENCE: Encoder(_confidence, needs_confidence=True),
        Output.RLE: Encoder(_rle),
        Output.BINARY: Encoder(_binary),
        Output.UNCERTAIN: Encoder(_uncertain, needs_uncertain=True),
    }
)
