"""From a mask to what a job asked for: files for the store, numbers for the record.

encoders.py lists the encoder of each output.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from PIL import Image

from maskq.contract import Output
from maskq.contract import outputs as contract
from maskq.contract.jobs import ClassStats
from maskq_worker.outputs.classes import chosen, colours, only
from maskq_worker.outputs.coco import Source
from maskq_worker.outputs.encoders import ENCODERS, Artifact, OverlayStyle, Segmentation
from maskq_worker.outputs.numbers import shares, stats
from maskq_worker.outputs.pictures import OVERLAY_ALPHA

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "ENCODERS",
    "OVERLAY_ALPHA",
    "Artifact",
    "OverlayStyle",
    "Segmented",
    "Source",
    "chosen",
    "colours",
    "encode",
    "measured",
    "model_outputs",
    "only",
    "sha256_of",
    "shares",
    "stats",
]

_DEFAULT_STYLE: Final = OverlayStyle()
_UNNAMED: Final = Source()


class Segmented(Protocol):
    """The model's output for one image."""

    @property
    def mask(self) -> NDArray[Any]: ...  # (H, W) uint8 or uint16, class ids

    @property
    def logits(self) -> NDArray[np.float32] | None: ...  # (C, h, w)

    @property
    def confidence(self) -> NDArray[np.uint8] | None: ...  # (H, W)

    @property
    def uncertain(self) -> NDArray[np.bool_] | None: ...  # (H, W)


def encode(
    wanted: frozenset[Output],
    *,
    image: Image.Image,
    output: Segmented,
    labels: Sequence[str],
    classes: Sequence[ClassStats] | None = None,
    style: OverlayStyle = _DEFAULT_STYLE,
    source: Source = _UNNAMED,
) -> list[Artifact]:
    """The files of the outputs, in the order of `Output`; of some one for each class.

    image: RGB, upright, as large as the mask. output: its mask may be one of `only`. labels: by
    class id. classes: what `measured` says of this mask, if it is known already. source: what rle
    calls the image. Raises ValueError if the mask is not of the image's size, or if the model did not
    keep the logits or confidence that an output needs.
    """
    if output.mask.shape != (image.height, image.width):
        raise ValueError(
            f"a mask of {output.mask.shape} for an image of {(image.height, image.width)}"
        )
    if classes is None:
        classes = measured(wanted, output.mask, labels)
    made = Segmentation(
        image,
        output.mask,
        labels,
        classes,
        style,
        source,
        logits=output.logits,
        confidence=output.confidence,
        uncertain=output.uncertain,
    )
    return [
        artifact
        for one, encoder in ENCODERS.items()
        if one in wanted
        for artifact in encoder.encode(made)
    ]


def measured(
    wanted: frozenset[Output], mask: NDArray[Any], labels: Sequence[str]
) -> list[ClassStats]:
    """The classes in the mask (H, W), as the outputs need them; the largest share first."""
    if any(ENCODERS[output].needs_regions for output in wanted):
        return stats(mask, labels)
    return shares(mask, labels)


def sha256_of(
    wanted: frozenset[Output], artifacts: Iterable[Artifact]
) -> dict[contract.StoredOutput, str]:
    """The SHA-256 of each output in hex, as maskq.contract.outputs defines it."""
    files: dict[Output, dict[str, str]] = {output: {} for output in sorted(wanted)}
    for artifact in artifacts:
        files[artifact.output][artifact.filename] = hashlib.sha256(artifact.body).hexdigest()
    return {output: contract.sha256_of(output, digests) for output, digests in files.items()}


def model_outputs(wanted: frozenset[Output]) -> frozenset[Output]:
    """What the model must keep for these outputs: some of LOGITS, CONFIDENCE and UNCERTAIN."""
    encoders = [ENCODERS[output] for output in wanted]
    needs = set()
    if any(encoder.needs_logits for encoder in encoders):
        needs.add(Output.LOGITS)
    if any(encoder.needs_confidence for encoder in encoders):
        needs.add(Output.CONFIDENCE)
    if any(encoder.needs_uncertain for encoder in encoders):
        needs.add(Output.UNCERTAIN)
    return frozenset(needs)
