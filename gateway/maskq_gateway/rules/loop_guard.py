"""Refuses rules whose jobs would start further jobs by their outputs.

Triggers check each object again: storage_layout.py recognizes outputs of maskq.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from maskq.contract import Output
from maskq.contract.locations import S3Uri
from maskq.contract.outputs import FILES
from maskq.contract.storage_layout import MANIFEST
from maskq.errors import InvalidRequest

# The names of the files of each output; of one file per class, of the first classes.
_NAMES = {output: files.names(range(1000)) for output, files in FILES.items()}


@dataclass(frozen=True, slots=True)
class Watched:
    """The objects that start jobs of a rule."""

    rule: str
    bucket: str
    prefix: str  # of the key
    suffixes: tuple[str, ...]  # in lower case


@dataclass(frozen=True, slots=True)
class Written:
    """The objects that jobs of a rule write."""

    rule: str
    place: S3Uri  # a directory, with or without its slash; the key '' is the whole bucket
    outputs: frozenset[Output]

    @property
    def directory(self) -> str:
        """The prefix of every key; '' for the whole bucket."""
        return (self.place / "").key

    @property
    def files(self) -> tuple[str, ...]:
        """The names of all files, those of outputs in the order of `Output`."""
        names = (_NAMES[output] for output in Output if output in self.outputs)
        return (*chain.from_iterable(names), MANIFEST)


def refuse(written: Sequence[Written], watched: Sequence[Watched]) -> None:
    """Raises InvalidRequest if an output of one rule could start a job of the same or another rule."""
    for writer in written:
        for watcher in watched:
            if file := _looping_file(writer, watcher):
                raise InvalidRequest(_message(writer, watcher, file))


def _looping_file(writer: Written, watcher: Watched) -> str | None:
    """A file of the writer that starts a job of the watcher; None if there is none."""
    if writer.place.bucket != watcher.bucket:
        return None
    written, watched = writer.directory, watcher.prefix
    if not written.startswith(watched) and not watched.startswith(written):
        return None
    return next((file for file in writer.files if file.endswith(watcher.suffixes)), None)


def _message(writer: Written, watcher: Watched, file: str) -> str:
    started = "itself" if writer.rule == watcher.rule else f"rule {watcher.rule!r}"
    place = f"s3://{writer.place.bucket}/{writer.directory}"
    return (
        f"rule {writer.rule!r} would start {started} by its own outputs, in an endless loop: it writes "
        f"{file} below {place}, and rule {watcher.rule!r} applies to such names below "
        f"s3://{watcher.bucket}/{watcher.prefix}; give rule {writer.rule!r} an output_prefix outside, "
        f"or rule {watcher.rule!r} a prefix or suffixes that exclude it"
    )
