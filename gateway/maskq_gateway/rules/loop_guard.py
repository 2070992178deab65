"""No job may start another by what it writes: refused at the start, and again for each object.

What a job writes below a directory, storage_layout.py says; it also recognises an object that is one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from maskq.contract import Output
from maskq.contract.locations import S3Uri
from maskq.contract.storage_layout import FILES, MANIFEST, binary_name
from maskq.errors import InvalidRequest

_BINARY = tuple(binary_name(index) for index in range(1000))  # one for each class


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
    place: S3Uri  # a directory, with or without its slash; the key '' is the whole bucket
    outputs: frozenset[Output]

    @property
    def directory(self) -> str:
        """What every key begins with; '' for the whole bucket."""
        return (self.place / "").key

    @property
    def files(self) -> tuple[str, ...]:
        files = [FILES[output].name for output in sorted(self.outputs) if output in FILES]
        return (*files, *(_BINARY if Output.BINARY in self.outputs else ()), MANIFEST)


def refuse(written: Sequence[Written], watched: Sequence[Watched]) -> None:
    """Raises InvalidRequest when an output of any rule could start a job of any."""
    for writer in written:
        for watcher in watched:
            if file := _caught(writer, watcher):
                raise InvalidRequest(_told(writer, watcher, file))


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
