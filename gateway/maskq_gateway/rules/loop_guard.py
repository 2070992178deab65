"""Refuses rules whose jobs would start further jobs by their outputs.

Triggers check each object again: storage_layout.py recognizes outputs of maskq.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from maskq.contract import Output
from maskq.contract.locations import S3Uri
from maskq.contract.locations.output_names import NameTemplate
from maskq.contract.outputs import FILES
from maskq.contract.storage_layout import ERROR_FILE, MANIFEST, MANIFEST_TYPE
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
    content_types: tuple[str, ...] = ()

    def takes_type(self, content_type: str) -> bool:
        """Whether objects of this content type start jobs, whatever their suffix."""
        plain = content_type.partition(";")[0].strip().lower()
        if not plain.startswith("image/"):
            return False
        return plain in self.content_types or "image/*" in self.content_types

    def may_take(self, written: Keys) -> bool:
        """Whether one of these keys could start a job."""
        head, end = written.begin, written.end.lower()
        if not head.startswith(self.prefix) and not self.prefix.startswith(head):
            return False
        by_suffix = any(end.endswith(one) or one.endswith(end) for one in self.suffixes)
        return by_suffix or self.takes_type(written.content_type)


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one kind of file that jobs write."""

    begin: str  # of every key
    end: str  # of every key
    content_type: str
    example: str


@dataclass(frozen=True, slots=True)
class Written:
    """The objects that jobs of a rule write."""

    rule: str
    place: S3Uri  # a directory, with or without its slash; the key '' is the whole bucket
    outputs: frozenset[Output]
    name: NameTemplate | None = None
    error_file: bool = False

    @property
    def directory(self) -> str:
        """The prefix of every key; '' for the whole bucket."""
        return (self.place / "").key

    @property
    def keys(self) -> Iterator[Keys]:
        """Of all files: those below the folder of a job, then the named copies."""
        for output in Output:
            if output in self.outputs:
                for file in _NAMES[output]:
                    yield Keys(self.directory, f"/{file}", FILES[output].content_type, file)
        documents = (MANIFEST, ERROR_FILE) if self.error_file else (MANIFEST,)
        for file in documents:
            yield Keys(self.directory, f"/{file}", MANIFEST_TYPE, file)
        if self.name:
            yield from self._named(self.name)

    def _named(self, name: NameTemplate) -> Iterator[Keys]:
        kinds: list[Output | None] = [output for output in Output if output in self.outputs]
        for output in [*kinds, None] if self.error_file else kinds:
            begin, end = name.literal_ends(output)
            content_type = FILES[output].content_type if output else MANIFEST_TYPE
            example = begin if begin == end else f"{begin}…{end}"
            yield Keys(self.directory + begin, end, content_type, example)


def refuse(written: Sequence[Written], watched: Sequence[Watched]) -> None:
    """Raises InvalidRequest if an output of one rule could start a job of the same or another rule."""
    for writer in written:
        for watcher in watched:
            if writer.place.bucket != watcher.bucket:
                continue
            for keys in writer.keys:
                if watcher.may_take(keys):
                    raise InvalidRequest(_message(writer, watcher, keys.example))


def _message(writer: Written, watcher: Watched, file: str) -> str:
    started = "itself" if writer.rule == watcher.rule else f"rule {watcher.rule!r}"
    place = f"s3://{writer.place.bucket}/{writer.directory}"
    return (
        f"rule {writer.rule!r} would start {started} by its own outputs, in an endless loop: it writes "
        f"{file} below {place}, and rule {watcher.rule!r} applies to such names below "
        f"s3://{watcher.bucket}/{watcher.prefix}; give rule {writer.rule!r} an output_prefix outside, "
        f"or rule {watcher.rule!r} a prefix or suffixes that exclude it"
    )
