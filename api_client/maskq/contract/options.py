"""What a caller may ask of a job: each option with its type, default, unit and meaning.

Everything that takes options derives from `JobOptions`: SegmentRequest, the client's keywords, trigger
rules, the HTTP bodies, the flags of `maskq submit`, the AsyncAPI and OpenAPI documents and
docs/reference/options.md. A new option is a field of `JobOptions`, and a keyword of `Options` for type
checkers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType, UnionType
from typing import (
    Annotated,
    Any,
    Final,
    Literal,
    Self,
    TypeAlias,
    TypedDict,
    Union,
    cast,
    get_args,
    get_origin,
)

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationInfo,
    model_validator,
)
from pydantic.fields import FieldInfo

from maskq.contract.locations import PresignedUrl
from maskq.contract.locations.output_names import MAX_TEMPLATE, PLACEHOLDERS, NameTemplate
from maskq.contract.locations.output_places import STORED, checked_name, checked_prefix
from maskq.contract.models import ModelName
from maskq.contract.outputs import BY_CLASS, FILES, Output, OutputName, per_class
from maskq.contract.webhooks import END_EVENTS, WebhookEvent, WebhookEvents, WebhookUrl

MAX_METADATA_BYTES: Final = 4096
TENANT: Final = "[A-Za-z0-9][A-Za-z0-9._@+-]{0,99}"  # a name that is safe in keys and paths


class Priority(StrEnum):
    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


class Mode(StrEnum):
    WHOLE = "whole"
    """The image is resized to the network's square, as the checkpoint was trained."""
    ASPECT = "aspect"
    """The ratio of the sides is kept, for networks that take rectangles."""
    MULTISCALE = "multiscale"
    """The mean of three scales, each also mirrored: six forwards."""
    TILED = "tiled"
    """Overlapping windows at the image's own resolution, as far as memory allows."""


# The same for static type checkers.
PriorityName: TypeAlias = Literal["high", "normal", "low"]
ModeName: TypeAlias = Literal["whole", "aspect", "multiscale", "tiled"]


@dataclass(frozen=True, slots=True)
class Flag:
    """The flag of `maskq submit`, where its name is not the option's."""

    name: str


@dataclass(frozen=True, slots=True)
class PerImage:
    """Marks an option that makes sense for one image only: no flag, and not part of a rule."""


@dataclass(frozen=True, slots=True)
class DecidesOutputs:
    """Marks an option that decides the bytes of outputs: result.json keeps its value."""


def _checked_metadata(metadata: dict[str, str]) -> dict[str, str]:
    size = len(json.dumps(metadata, ensure_ascii=False).encode())
    if size > MAX_METADATA_BYTES:
        raise ValueError(f"metadata takes {size} bytes as JSON; at most {MAX_METADATA_BYTES}")
    return metadata


# JSON has no infinity. Without a value the deployment's own limit holds.
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
# Sorted in JSON: a set's own order differs between processes, and fingerprints are taken of the JSON.
Outputs = Annotated[frozenset[Output], PlainSerializer(sorted, when_used="json")]
Tenant = Annotated[str, Field(pattern=rf"^{TENANT}$")]
ClassName = Annotated[str, Field(min_length=1, max_length=200)]
Classes = Annotated[
    frozenset[ClassName],
    Field(min_length=1, max_length=256),
    PlainSerializer(sorted, when_used="json"),
]


class JobOptions(BaseModel):
    """The options of a job. Unknown fields are refused: a misspelled option is never ignored.

    The order of the fields is part of every idempotency fingerprint: append, do not reorder.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    image_version_id: Annotated[str | None, PerImage()] = Field(
        default=None,
        min_length=1,
        max_length=1024,
        description="Version of the S3 object to segment. If the object is in another version, the "
        "job fails with source_changed.",
    )
    image_etag: Annotated[str | None, PerImage()] = Field(
        default=None,
        min_length=1,
        max_length=200,
        description="ETag of the S3 object to segment, for buckets without versions. If the object "
        "has another ETag, the job fails with source_changed.",
    )
    model: ModelName | None = Field(
        default=None, description="Served model to use; default: the deployment's default model."
    )
    outputs: Annotated[Outputs, Flag("--output"), DecidesOutputs()] = Field(
        default=frozenset({Output.MASK}),
        min_length=1,
        description="What to write: "
        f"{', '.join(f'{one} ({files.summary})' for one, files in FILES.items())}.",
    )
    classes: Annotated[Classes | None, Flag("--class"), DecidesOutputs()] = Field(
        default=None,
        description="Only these classes, by label or id (sky, 12); default: every class. Other "
        "pixels of the mask are 255, or 65535 in a 16-bit mask.",
    )
    overlay_alpha: Annotated[float | None, DecidesOutputs()] = Field(
        default=None,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="Opacity of the overlay's colours, 0 to 1; default: 0.5.",
    )
    overlay_legend: Annotated[bool, Flag("--legend"), DecidesOutputs()] = Field(
        default=False,
        description="Add a legend below the overlay: colour, label and share of each class.",
    )
    mode: Annotated[Mode, DecidesOutputs()] = Field(
        default=Mode.WHOLE,
        description="How the network sees the image: whole (resized to the network's square), aspect "
        "(one side resized to the network's, proportions kept), multiscale (mean of three scales, "
        "each also mirrored) or tiled (overlapping windows at the image's own resolution).",
    )
    priority: Priority = Field(
        default=Priority.NORMAL,
        description="high, normal or low. While all three wait, jobs start in the ratio 6 : 3 : 1.",
    )
    tenant: Tenant | None = Field(
        default=None,
        description="Owner of the job. Tenants take turns, and each may have a quota.",
    )
    output_prefix: Annotated[str, AfterValidator(checked_prefix)] | None = Field(
        default=None,
        description="Where to write outputs, s3://bucket/prefix; default: MASKQ_OUTPUT_PREFIX in the "
        "worker's bucket.",
    )
    output_urls: Annotated[dict[Output, PresignedUrl], PerImage()] = Field(
        default_factory=dict,
        description="Presigned URLs that outputs are PUT to, by output. Workers then need no rights "
        "on that bucket.",
    )
    webhook: WebhookUrl | None = Field(
        default=None,
        description="URL that receives a signed POST (Standard Webhooks) for each of webhook_events; "
        "default: MASKQ_WEBHOOK_URL, if set.",
    )
    webhook_events: Annotated[WebhookEvents, Flag("--webhook-event")] = Field(
        default=END_EVENTS,
        min_length=1,
        description=f"Events to post to the webhook, of {', '.join(WebhookEvent)}; default: those "
        "that end a job.",
    )
    metadata: Annotated[dict[str, str], AfterValidator(_checked_metadata)] = Field(
        default_factory=dict,
        description="The caller's own names and values, returned unchanged; at most "
        f"{MAX_METADATA_BYTES} bytes as JSON.",
    )
    queue_ttl_s: Seconds | None = Field(
        default=None,
        description="Seconds until the job expires if it has not started; default: MASKQ_QUEUE_TTL_S.",
    )
    run_timeout_s: Seconds | None = Field(
        default=None,
        description="Seconds the job may run before it fails with timeout; default: "
        "MASKQ_RUN_TIMEOUT_S.",
    )
    max_attempts: int | None = Field(
        default=None,
        ge=1,
        le=100,
        description="Charged attempts until the job fails, 1 to 100; default: MASKQ_MAX_ATTEMPTS.",
    )
    output_name: (
        Annotated[str, Field(min_length=1, max_length=MAX_TEMPLATE), AfterValidator(checked_name)]
        | None
    ) = Field(
        default=None,
        description="Also copy each output to this name below output_prefix. Placeholders: "
        f"{' '.join(f'{{{name}}}' for name in PLACEHOLDERS)}; the extension is appended. With "
        "masks/{stem}.{output} the mask of incoming/a.jpg is masks/a.mask.png.",
    )
    output_replace: bool = Field(
        default=False,
        description="Replace copies of other jobs that have the same output_name and were submitted "
        "earlier. Default: the job fails with output_exists.",
    )
    output_error_file: bool = Field(
        default=False,
        description="If the job fails or expires, write a JSON file that says why, beside where the "
        "mask would have been: masks/a.error.json.",
    )

    @model_validator(mode="after")
    def _check_together(self, info: ValidationInfo) -> Self:
        if extra := set(self.output_urls) - self.outputs:
            raise ValueError(f"output_urls names {', '.join(sorted(extra))}, not among the outputs")
        if folders := per_class(self.output_urls):
            raise ValueError(
                f"output_urls cannot take {folders[0]}: it is one file per class, give an output_prefix"
            )
        if self.classes and not self.outputs & BY_CLASS:
            raise ValueError(
                f"classes applies to {', '.join(sorted(BY_CLASS))}, none of which is asked for"
            )
        if (self.overlay_alpha is not None or self.overlay_legend) and (
            Output.OVERLAY not in self.outputs
        ):
            raise ValueError(
                "overlay_alpha and overlay_legend go with the output overlay, which is not asked for"
            )
        self._check_name(info)
        return self

    def _check_name(self, info: ValidationInfo) -> None:
        if self.output_name is None:
            if self.output_replace or self.output_error_file:
                raise ValueError("output_replace and output_error_file go with an output_name")
        elif self.output_prefix is None:
            raise ValueError(
                "output_name needs an output_prefix (s3://bucket/prefix), below which the name is"
            )
        elif info.context != STORED:
            NameTemplate(self.output_name).check_outputs(self.outputs - self.output_urls.keys())


class Options(TypedDict, total=False):
    """`JobOptions` as keywords of the client. Static type checkers need them written out."""

    image_version_id: str | None
    image_etag: str | None
    model: str | None
    outputs: Iterable[Output | OutputName]
    classes: set[str] | frozenset[str] | list[str] | None
    overlay_alpha: float | None
    overlay_legend: bool
    mode: Mode | ModeName
    priority: Priority | PriorityName
    tenant: str | None
    output_prefix: str | None
    output_urls: dict[str, str]
    metadata: dict[str, str]
    webhook: str | None
    webhook_events: Iterable[str]
    queue_ttl: float | None
    run_timeout: float | None
    max_attempts: int | None
    output_name: str | None
    output_replace: bool
    output_error_file: bool


@dataclass(frozen=True, slots=True)
class Option:
    """One field of `JobOptions`, for the interfaces that derive from it."""

    name: str  # in JSON and in rules
    field: FieldInfo

    @property
    def keyword(self) -> str:
        """The client's keyword: a duration's is without its unit."""
        return self.name.removesuffix("_s")

    @property
    def flag(self) -> str:
        """The flag of `maskq submit`."""
        named = [mark.name for mark in self.field.metadata if isinstance(mark, Flag)]
        return named[0] if named else f"--{self.keyword.replace('_', '-')}"

    @property
    def meaning(self) -> str:
        return self.field.description or ""

    @property
    def is_per_image(self) -> bool:
        return any(isinstance(mark, PerImage) for mark in self.field.metadata)

    @property
    def decides_outputs(self) -> bool:
        return any(isinstance(mark, DecidesOutputs) for mark in self.field.metadata)

    @property
    def kind(self) -> type:
        """What its value is: str, int, float, bool, frozenset, dict or an enumeration."""
        kind: Any = self.field.annotation
        while get_origin(kind) in (Annotated, Union, UnionType):
            kind = get_args(kind)[0]  # of a union the other type is None
        return cast("type", get_origin(kind) or kind)

    @property
    def default(self) -> Any:
        """The default as a caller would write it: no enumerations."""
        match self.field.get_default(call_default_factory=True):
            case StrEnum() as value:
                return value.value
            case frozenset() as values:
                return frozenset(map(str, values))
            case value:
                return value


OPTIONS: Final = tuple(Option(*item) for item in JobOptions.model_fields.items())
BY_KEYWORD: Final[Mapping[str, Option]] = MappingProxyType({one.keyword: one for one in OPTIONS})
PER_IMAGE: Final = frozenset(option.name for option in OPTIONS if option.is_per_image)
DECIDE_OUTPUTS: Final = frozenset(option.name for option in OPTIONS if option.decides_outputs)
