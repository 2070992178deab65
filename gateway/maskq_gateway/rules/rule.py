"""Rules: `[[rule]]` tables of a TOML file that say which objects start which jobs."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import (
    AfterValidator,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    field_validator,
)

from maskq.contract import SegmentRequest
from maskq.contract.image_formats import IMAGE_SUFFIXES
from maskq.contract.locations import S3Uri, redact
from maskq.contract.locations.output_names import NameTemplate
from maskq.contract.options import PER_IMAGE, JobOptions
from maskq.contract.storage_layout import is_output
from maskq.errors import InvalidRequest
from maskq.validation import sentence
from maskq_gateway.rules import loop_guard

TRIGGER: Final = "trigger"  # in a job's metadata: the name of the rule that started it
_SHOWN = {"image_uri": "bucket and prefix"}  # the fields that image_uri of the example is made of


_IMAGE_TYPE = r"^image/(\*|[a-z0-9][a-z0-9.+-]*)$"


def _lower(suffixes: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(suffix.lower() for suffix in suffixes)


class Rule(JobOptions):
    """One kind of object, and the options of the job that each such object starts."""

    name: str = Field(min_length=1, max_length=100)
    bucket: str = Field(min_length=1)
    prefix: str = ""  # of the key, not of a folder: 'in' also matches 'inbox/1.jpg'
    suffixes: Annotated[
        tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1), AfterValidator(_lower)
    ] = IMAGE_SUFFIXES  # of the key, in upper or lower case

    content_types: tuple[Annotated[str, Field(pattern=_IMAGE_TYPE)], ...] = ()
    """Objects with one of these types are taken whatever their suffix; `image/*`: with any."""

    @field_validator(*sorted(PER_IMAGE), mode="before")
    @classmethod
    def _refuse(cls, value: object) -> object:
        raise ValueError("not an option of a rule: it concerns one image")

    @field_validator("metadata")
    @classmethod
    def _check_metadata(cls, metadata: dict[str, str]) -> dict[str, str]:
        if TRIGGER in metadata:
            raise ValueError(
                f"{TRIGGER!r} is taken: it holds the name of the rule; choose another key"
            )
        return metadata

    @field_validator("output_prefix", mode="wrap")
    @classmethod
    def _as_written(cls, text: Any, check: ValidatorFunctionWrapHandler) -> Any:
        """Checked, but not normalized: the idempotency keys of triggers are made from the text."""
        check(text)
        return text

    def takes(self, bucket: str, key: str, content_type: str = "") -> bool:
        """Whether the rule applies to an object."""
        if not self._watches(bucket, key):
            return False
        return key.lower().endswith(self.suffixes) or self.watched().takes_type(content_type)

    def depends_on_type(self, bucket: str, key: str) -> bool:
        """Whether the object's content type decides."""
        watches = bool(self.content_types) and self._watches(bucket, key)
        return watches and not self.takes(bucket, key)

    def _watches(self, bucket: str, key: str) -> bool:
        return bucket == self.bucket and key.startswith(self.prefix)

    def options(self) -> dict[str, Any]:
        """The options of its jobs, as fields of SegmentRequest."""
        names = JobOptions.model_fields.keys() - PER_IMAGE
        fields = {name: getattr(self, name) for name in names}
        return fields | {"metadata": {**self.metadata, TRIGGER: self.name}}

    def example(self) -> SegmentRequest:
        """The request of one of its jobs. Raises ValidationError if no object can have such a name."""
        image_uri = f"s3://{self.bucket}/{self.prefix}1{self.suffixes[0]}"
        return SegmentRequest.model_validate({"image_uri": image_uri, **self.options()})

    def public(self) -> dict[str, Any]:
        """The rule as plain JSON values, without None and without the query of the webhook."""
        shown = self.model_dump(mode="json", exclude_none=True, exclude=set(PER_IMAGE))
        return shown | ({"webhook": redact(self.webhook)} if self.webhook else {})

    def watched(self) -> loop_guard.Watched:
        return loop_guard.Watched(
            self.name, self.bucket, self.prefix, self.suffixes, self.content_types
        )

    def written(self, own_output: S3Uri) -> loop_guard.Written:
        """Where its jobs write; without an output_prefix below `own_output`."""
        chosen = self.output_prefix
        place = S3Uri.parse(chosen, key_required=False) if chosen else own_output
        name = NameTemplate(self.output_name) if self.output_name else None
        return loop_guard.Written(self.name, place, self.outputs, name, self.output_error_file)


@dataclass(frozen=True, slots=True)
class Rules:
    """All rules of a deployment. The outputs of no rule can start a job of any rule."""

    each: tuple[Rule, ...]

    @classmethod
    def load(cls, path: Path, *, own_output: S3Uri) -> Rules:
        """Read a TOML file. `own_output`: where jobs without an output_prefix write.

        Raises InvalidRequest naming file, rule and field.
        """
        try:
            document = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise InvalidRequest(f"{path}: cannot be read: {error.strerror}") from None
        except ValueError as error:
            raise InvalidRequest(f"{path}: is not valid TOML: {error}") from None
        try:
            return cls.of(_tables(document), own_output=own_output)
        except InvalidRequest as error:
            raise InvalidRequest(f"{path}: {error}") from None

    @classmethod
    def of(cls, tables: Iterable[Mapping[str, Any]], *, own_output: S3Uri) -> Rules:
        """The rules of TOML tables. Raises InvalidRequest naming rule and field."""
        rules = tuple(_rule(number, table) for number, table in enumerate(tables, 1))
        names = [rule.name for rule in rules]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise InvalidRequest(f"several rules are named {twice[0]!r}; give each its own name")
        loop_guard.refuse(
            [rule.written(own_output) for rule in rules], [rule.watched() for rule in rules]
        )
        return cls(rules)

    def taking(self, bucket: str, key: str, content_type: str = "") -> tuple[Rule, ...]:
        """The rules that apply to an object, in their order; none applies to outputs of maskq."""
        if is_output(key):
            return ()
        return tuple(rule for rule in self.each if rule.takes(bucket, key, content_type))

    def depend_on_type(self, bucket: str, key: str) -> bool:
        """Whether a rule applies to the object or not by its content type."""
        return not is_output(key) and any(rule.depends_on_type(bucket, key) for rule in self.each)


def _tables(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    if unknown := sorted(document.keys() - {"rule"}):
        raise InvalidRequest(f"{unknown[0]!r} is not a valid key; only [[rule]] tables are")
    tables = document.get("rule")
    if not isinstance(tables, list) or not tables:
        raise InvalidRequest("it has no [[rule]] table; write one for each kind of object")
    return tables


def _rule(number: int, table: object) -> Rule:
    if not isinstance(table, Mapping):
        raise InvalidRequest(f"rule {number} is not a table; write [[rule]] above its fields")
    name = table.get("name")
    called = f"rule {name!r}" if isinstance(name, str) and name else f"rule {number}"
    try:
        rule = Rule.model_validate(table)
    except ValidationError as error:
        raise InvalidRequest(f"{called}: {sentence(error)}") from None
    try:
        rule.example()
    except ValidationError as error:
        raise InvalidRequest(f"{called}: {sentence(error, _SHOWN)}") from None
    return rule
