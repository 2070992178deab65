"""No job may start another by what it writes: refused at the start, and again for each object.

A job writes below a directory: {its output place}/{job id}/{token}/{file} and {…}/{job id}/result.json.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from maskq.contract import Output
from maskq.contract.places import S3Place
from maskq.errors import InvalidRequest

FILES: Final = {
    Output.MASK: "mask.png",
    Output.OVERLAY: "overlay.jpg",
    Output.STATS: "stats.json",
    Output.LOGITS: "logits.npy",
    Output.CONFIDENCE: "confidence.png",
    Output.RLE: "rle.json",
}
_BINARY = tuple(f"binary/{index:03d}.png" for index in range(1000))  # one for each class
MANIFEST: Final = "result.json"  # of every job
_UUID = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_FILE = "|".join([*map(re.escape, FILES.values()), r"binary/[0-9]{3,5}\.png"])
_OUTPUT = re.compile(
    rf"(?:.*/)?{_UUID}/(?:[A-Za-z0-9_-]{{16}}/(?:{_FILE})|{re.escape(MANIFEST)})", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Watched:
    """What starts jobs of a rule."""

    rule: str
    bucket: str
    prefix: str  # of the key, as it is
    suffixes: tuple[str, ...]  # in lower case


@dataclass(frozen=True, slots=True)
class Written:
    """What jobs of a rule write."""

    rule: str
    place: S3Place  # a directory, with or without its slash; the key '' is the whole bucket
    outputs: frozenset[Output]

    @property
    def directory(self) -> str:
        """What every key begins with; '' for the whole bucket."""
        return (self.place / "").key

    @property
    def files(self) -> tuple[str, ...]:
        files = [FILES[output] for output in sorted(self.outputs) if output in FILES]
        return (*files, *(_BINARY if Output.BINARY in self.outputs else ()), MANIFEST)


def refuse(written: Sequence[Written], watched: Sequence[Watched]) -> None:
    """Raises InvalidRequest when an output of any rule could start a job of any."""
    for writer in written:
        for watcher in watched:
            if file := _caught(writer, watcher):
                raise InvalidRequest(_told(writer, watcher, file))


def is_output(key: str) -> bool:
    """Whether a key looks like what maskq writes, under whatever prefix, of whatever deployment."""
    return _OUTPUT.fullmatch(key) is not None


def _caught(writer: Written, watcher: Watched) -> str | None:
    """A file by which a job of one starts a job of the other."""
    if writer.place.bucket != watcher.bucket:
        return None
    ours, theirs = writer.directory, watcher.prefix
    if not ours.startswith(theirs) and not theirs.startswith(ours):
        return None
    return next((file for file in writer.files if file.endswith(watcher.suffixes)), None)


def _told(writer: Written, watcher: Watched, file: str) -> str:
    whom = "itself" if writer.rule == watcher.rule else f"rule {watcher.rule!r}"
    place = f"s3://{writer.place.bucket}/{writer.directory}"
    return (
        f"rule {writer.rule!r} would start {whom} by its own outputs, and so on for ever: it writes "
        f"{file} below {place}, and rule {watcher.rule!r} takes what ends so below "
        f"s3://{watcher.bucket}/{watcher.prefix}; give rule {writer.rule!r} an output_prefix outside, "
        f"or rule {watcher.rule!r} a prefix or suffixes that leave it out"
    )
