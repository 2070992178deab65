"""What a job can make: each output with its meaning, its files and their content type.

Everything that names outputs reads `FILES`: names in S3, the option `outputs`, the client, the HTTP
API, the guard against endless rules and docs/reference/outputs.md. A new output is a member of
`Output`, a word of `OutputName` and an entry of `FILES`. Its encoder is named in
maskq_worker/outputs/encoders.py.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Final, Literal, TypeAlias

from pydantic import Field

MOST_CLASSES: Final = 65_536  # of a 16-bit mask
_CLASS: Final = "{class_id}"  # in names of files: the class id, with at least three digits


class Output(StrEnum):
    MASK = "mask"
    OVERLAY = "overlay"
    STATS = "stats"
    LOGITS = "logits"
    CONFIDENCE = "confidence"
    RLE = "rle"
    BINARY = "binary"
    UNCERTAIN = "uncertain"


# `Output` for static type checkers.
OutputName: TypeAlias = Literal[
    "mask", "overlay", "stats", "logits", "confidence", "rle", "binary", "uncertain"
]

# In a result: text, if a newer version made an output that this one does not know.
StoredOutput: TypeAlias = Annotated[Output | str, Field(union_mode="left_to_right")]


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputFiles:
    """How one output is stored in an attempt's folder: as one file, or as one file per class."""

    name: str
    """The file's name: `mask.png`; of one file per class `binary/{class_id}.png`."""
    content_type: str
    """Of each file."""
    summary: str
    """A few words, for the option `outputs`."""
    meaning: str
    """A sentence, for docs/reference/outputs.md."""
    changed_by_classes: bool = True
    """Whether the option `classes` changes it."""

    @property
    def is_per_class(self) -> bool:
        """Whether it is a folder with one file for each class present."""
        return _CLASS in self.name

    @property
    def place(self) -> str:
        """Where the output is: the file, or the folder of one file per class, with its slash."""
        return self.name.partition(_CLASS)[0]

    def of_class(self, class_id: int) -> str:
        """The name of one class's file; of an output that is one file, that file's name."""
        return self.name.replace(_CLASS, f"{class_id:03d}")

    def names(self, class_ids: Iterable[int]) -> tuple[str, ...]:
        """The names of all files, if the result has these classes."""
        return tuple(map(self.of_class, class_ids)) if self.is_per_class else (self.name,)

    @property
    def pattern(self) -> str:
        """A regular expression for the names of its files."""
        return "[0-9]{3,5}".join(map(re.escape, self.name.split(_CLASS)))


FILES: Final[Mapping[Output, OutputFiles]] = MappingProxyType(
    {
        Output.MASK: OutputFiles(
            name="mask.png",
            content_type="image/png",
            summary="palette PNG of class ids",
            meaning="Palette PNG of the upright image's size; a pixel is a class id.",
        ),
        Output.OVERLAY: OutputFiles(
            name="overlay.jpg",
            content_type="image/jpeg",
            summary="JPEG",
            meaning="JPEG of the image under the mask's colours.",
        ),
        Output.STATS: OutputFiles(
            name="stats.json",
            content_type="application/json",
            summary="JSON",
            meaning="JSON: pixels, share, bounding box and regions of each class present; also in the "
            "record.",
        ),
        Output.LOGITS: OutputFiles(
            name="logits.npy",
            content_type="application/x-npy",
            summary="npy",
            meaning="NumPy file of float32 scores, (classes, height, width), at the network's own "
            "size.",
            changed_by_classes=False,
        ),
        Output.CONFIDENCE: OutputFiles(
            name="confidence.png",
            content_type="image/png",
            summary="gray PNG",
            meaning="Gray PNG of the upright image's size; 255 times the probability of the winning "
            "class.",
            changed_by_classes=False,
        ),
        Output.RLE: OutputFiles(
            name="rle.json",
            content_type="application/json",
            summary="COCO JSON",
            meaning="COCO document with one annotation of compressed RLE for each class present.",
        ),
        Output.BINARY: OutputFiles(
            name="binary/{class_id}.png",
            content_type="image/png",
            summary="one PNG per class",
            meaning="One PNG of 1 bit per pixel for each class present; the output's place is their "
            "folder.",
        ),
        Output.UNCERTAIN: OutputFiles(
            name="uncertain.png",
            content_type="image/png",
            summary="1-bit PNG",
            meaning="PNG of 1 bit per pixel of the upright image's size; white where the class may "
            "differ from float32's.",
            changed_by_classes=False,
        ),
    }
)
# The outputs that the option `classes` changes.
BY_CLASS: Final = frozenset(one for one, files in FILES.items() if files.changed_by_classes)
LONGEST_NAME: Final = max(len(files.of_class(MOST_CLASSES - 1)) for files in FILES.values())


def per_class(outputs: Collection[Output]) -> list[Output]:
    """Those that are one file per class, in the order of `Output`."""
    return [one for one, files in FILES.items() if one in outputs and files.is_per_class]


def sha256_of(output: Output, files: Mapping[str, str]) -> str:
    """The SHA-256 of an output in hex: that of its file.

    Of one file per class it is that of the lines which `sha256sum` prints for all files in the order of
    their names: `sha256sum *.png | sha256sum` in their folder.

    files: name of each file, as in FILES → its SHA-256 in hex.
    """
    described = FILES[output]
    if not described.is_per_class:
        return files[described.name]
    lines = [f"{files[name]}  {name.removeprefix(described.place)}\n" for name in sorted(files)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
