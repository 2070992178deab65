"""`output_name`: a template for the names of copies of a job's outputs.

`masks/{stem}.{output}` names the mask of `s3://photos/incoming/a.jpg` `masks/a.mask.png`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote, urlsplit

from maskq.contract.locations import MAX_KEY_BYTES, S3Uri, is_url
from maskq.contract.outputs import FILES, MOST_CLASSES, Output

PLACEHOLDERS: Final = ("dir", "stem", "job_id", "output", "class")
MAX_TEMPLATE: Final = 500  # characters
ERROR: Final = "error"  # what {output} and {class} stand for in the name of an error file
_ERROR_SUFFIX: Final = ".json"
_PLACEHOLDER: Final = re.compile(r"\{([^{}]*)\}")
# C0, DEL, C1, the separators of lines and paragraphs, halves of surrogate pairs.
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_SAMPLE_CLASSES: Final = (1, 2)


@dataclass(frozen=True, slots=True)
class ImageName:
    """What the placeholders {dir} and {stem} stand for."""

    directory: str  # without a slash at its end; '' for an image in no folder
    stem: str  # the name of the file without its last suffix

    @classmethod
    def of(cls, image_uri: str) -> ImageName:
        """Of an S3 URI: its key. Of a URL: its path."""
        if is_url(image_uri):
            return cls.of_path(unquote(urlsplit(image_uri).path).removeprefix("/"))
        return cls.of_path(image_uri.removeprefix("s3://").partition("/")[2])

    @classmethod
    def of_path(cls, path: str) -> ImageName:
        directory, _, name = path.rpartition("/")
        return cls(directory, name.rpartition(".")[0] or name)


_SAMPLE: Final = ImageName("folder", "image")


@dataclass(frozen=True, slots=True)
class NameTemplate:
    """A valid template. Each output's own file extension is appended to the text."""

    text: str

    @classmethod
    def parse(cls, text: str) -> NameTemplate:
        """Raises ValueError with a message for the caller."""
        known = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
        if unknown := [name for name in _PLACEHOLDER.findall(text) if name not in PLACEHOLDERS]:
            raise ValueError(
                f"{{{unknown[0]}}} is not a placeholder; the placeholders are: {known}"
            )
        if set("{}") & set(_PLACEHOLDER.sub("", text)):
            raise ValueError(f"a single {{ or }} is not allowed; the placeholders are: {known}")
        if text.endswith("/") or "//" in text:
            raise ValueError(f"{text!r} has an empty part; write it as folder/{{stem}}.{{output}}")
        made = cls(text)
        _checked(made._filled(_SAMPLE, "job", Output.MASK, "000"))
        return made

    @property
    def is_by_class(self) -> bool:
        """Whether it contains {class}."""
        return "{class}" in self.text

    def check_outputs(self, outputs: Collection[Output]) -> None:
        """Raise ValueError if a file would have no name, or two files one name."""
        seen: dict[str, str] = {}
        for output in outputs:
            if self.is_by_class and not FILES[output].is_per_class:
                self._check_without_class(output)
        for file, name in self.files(outputs, _SAMPLE_CLASSES, _SAMPLE, "job").items():
            if (other := seen.setdefault(name, file)) != file:
                raise ValueError(
                    f"output_name {self.text!r} gives {other} and {file} the same name; add "
                    f"{{output}}"
                )

    def _check_without_class(self, output: Output) -> None:
        name = self._filled(_SAMPLE, "job", output, "")
        if not all(name.split("/")):
            raise ValueError(
                f"output_name {self.text!r} has an empty part for the output {output}: {{class}} is "
                f"empty for outputs that are one file"
            )

    def files(
        self,
        outputs: Collection[Output],
        class_ids: Collection[int],
        image: ImageName,
        job_id: str,
    ) -> dict[str, str]:
        """File of an attempt's folder (`mask.png`, `binary/007.png`) → the name of its copy.

        Of an output that is one file per class, the name is a folder unless the template has {class}.
        Raises ValueError if the image's name leads to a name that is not allowed.
        """
        return {
            FILES[output].of_class(class_id): self._file(output, class_id, image, job_id)
            for output in Output
            if output in outputs
            for class_id in (class_ids if FILES[output].is_per_class else (0,))
        }

    def error_file(self, image: ImageName, job_id: str) -> str:
        """The name of the file that says why the job failed. Raises as `files` does."""
        return _checked(self._filled(image, job_id, ERROR, ERROR) + self._error_end)

    def literal_ends(self, output: Output | None) -> tuple[str, str]:
        """How all names of an output begin and end, whatever the image is. None: of error files."""
        text = self.text
        if output is None:
            text += self._error_end
        else:
            by_folder = FILES[output].is_per_class and not self.is_by_class
            text += ("/{class}" if by_folder else "") + _suffix(output)
        parts = re.split(r"\{[^{}]*\}", text.replace("{output}", output or ERROR))
        return parts[0], parts[-1]

    @property
    def _error_end(self) -> str:
        return _ERROR_SUFFIX if "{output}" in self.text else f".{ERROR}{_ERROR_SUFFIX}"

    def _file(self, output: Output, class_id: int, image: ImageName, job_id: str) -> str:
        suffix = _suffix(output)
        if not FILES[output].is_per_class:
            return _checked(self._filled(image, job_id, output, "") + suffix)
        number = f"{class_id:03d}"
        name = self._filled(image, job_id, output, number)
        return _checked(name + (suffix if self.is_by_class else f"/{number}{suffix}"))

    def _filled(self, image: ImageName, job_id: str, output: str, number: str) -> str:
        values = {
            "dir": image.directory,
            "stem": image.stem,
            "job_id": job_id,
            "output": output,
            "class": number,
        }
        if not image.stem and "{stem}" in self.text:
            raise ValueError("the image's key or URL ends in '/', so {stem} would be empty")
        # An image in no folder: `{dir}/a` must not begin with a slash.
        text = self.text if image.directory else self.text.replace("{dir}/", "")
        # In one pass: what a key contains is never read as a placeholder.
        return _PLACEHOLDER.sub(lambda found: values[found[1]], text)


@dataclass(frozen=True, slots=True)
class NamedFiles:
    """Where an output_name puts the files of one job. Methods raise ValueError for a name that is not
    allowed."""

    template: NameTemplate
    prefix: S3Uri  # the output_prefix
    outputs: frozenset[Output]  # without those that go to output_urls
    image: ImageName
    job_id: str

    def copies(self, class_ids: Collection[int]) -> dict[str, S3Uri]:
        """File of an attempt's folder → where its copy is. class_ids: the classes present."""
        names = self.template.files(self.outputs, class_ids, self.image, self.job_id)
        return {file: self._place(name) for file, name in names.items()}

    def error_file(self) -> S3Uri:
        """Where the file is that says why the job failed."""
        return self._place(self.template.error_file(self.image, self.job_id))

    def check(self) -> None:
        """Raise ValueError if a name is not allowed, whatever classes the mask will have."""
        self.copies((MOST_CLASSES - 1,))
        self.error_file()

    def _place(self, name: str) -> S3Uri:
        place = self.prefix / name
        if len(place.key.encode()) > MAX_KEY_BYTES:
            raise ValueError(f"the key {place.key[:80]!r}… is longer than {MAX_KEY_BYTES} bytes")
        return place


def _suffix(output: Output) -> str:
    """The extension of its files, with the dot."""
    return f".{FILES[output].name.rpartition('.')[2]}"


def copies_named_in(document: bytes) -> list[S3Uri]:
    """The copies that a manifest or an error file names; none if it is neither."""
    try:
        copies = json.loads(document)["copies"]
        return [S3Uri.parse(uri) for uri in copies.values()]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return []


def _checked(name: str) -> str:
    """The name. Raises ValueError if it could lie elsewhere than below the output_prefix."""
    shown = repr(name)[:200]
    if _CONTROL.search(name):
        raise ValueError(f"the name {shown} contains a control character")
    decoded = name
    while (plain := unquote(decoded)) != decoded:  # as some stores and proxies read a key
        decoded = plain
    for reading in (name, decoded.replace("\\", "/")):
        if reading.startswith("/"):
            raise ValueError(f"the name {shown} begins with a slash")
        if {".", ".."} & set(reading.split("/")):
            raise ValueError(f"the name {shown} has a part '.' or '..'")
    return name
