"""A job: what is asked for, what is known about it, and what comes out.

            submit                claim                 finish
    (none) ────────► queued ────────────────► running ────────► succeeded | failed
                      │  ▲                     │  │
                      │  └── release, lost ────┘  │
                      ├──► expired                └──► canceled, failed (timeout, worker_lost)
                      └──► canceled

Terminal states never change. A retry is 'queued again'.
"""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated, Any, Final, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationInfo,
    model_validator,
)

from maskq.contract.failures import JobFailure
from maskq.contract.locations import (
    HIDDEN,
    MAX_KEY_BYTES,
    PresignedUrl,
    PrivateUrls,
    S3Uri,
    http_url,
    is_url,
    redact,
)
from maskq.contract.models import ModelName
from maskq.contract.webhooks import ENDS, WebhookEvents, WebhookUrl

MAX_METADATA_BYTES: Final = 4096
TENANT: Final = "[A-Za-z0-9][A-Za-z0-9._@+-]{0,99}"  # a name that is safe in keys and paths


class JobStatus(StrEnum):
    QUEUED = "queued"
    """The job waits for a worker, or for its back-off to pass."""
    RUNNING = "running"
    """A worker holds the job's lease."""
    SUCCEEDED = "succeeded"
    """The result is in the store, and the record names it."""
    FAILED = "failed"
    """The job ended with an error, which the record holds."""
    CANCELED = "canceled"
    """The caller canceled the job before its commit."""
    EXPIRED = "expired"
    """The job did not start within its queue_ttl_s."""


TERMINAL: Final = frozenset(
    {JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELED, JobStatus.EXPIRED}
)


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


class Output(StrEnum):
    MASK = "mask"
    """Palette PNG of the upright image's size; a pixel is a class id."""
    OVERLAY = "overlay"
    """JPEG of the image under the mask's colours."""
    STATS = "stats"
    """JSON: pixels, share, bounding box and regions of each class present; also in the record."""
    LOGITS = "logits"
    """NumPy file of float32 scores, (classes, height, width), at the network's own size."""
    CONFIDENCE = "confidence"
    """Gray PNG of the upright image's size; 255 times the probability of the winning class."""
    RLE = "rle"
    """COCO document with one annotation of compressed RLE for each class present."""
    BINARY = "binary"
    """One PNG of 1 bit per pixel for each class present; the output's place is their folder."""


# What `classes` of a request applies to.
BY_CLASS: Final = frozenset({Output.MASK, Output.OVERLAY, Output.STATS, Output.RLE, Output.BINARY})


def _image_place(uri: str) -> str:
    return http_url(uri) if is_url(uri) else str(S3Uri.parse(uri))


# Below an output_prefix: the longest name of storage_layout.py, /{job id}/{token}/binary/65535.png.
_BELOW_PREFIX_BYTES = 1 + 36 + 1 + 16 + len("/binary/65535.png")
_MAX_PREFIX_BYTES = MAX_KEY_BYTES - _BELOW_PREFIX_BYTES
STORED: Final = {
    "stored": True
}  # context of validation: of a record, which is read as it was accepted


def _prefix_place(uri: str, info: ValidationInfo) -> str:
    place = S3Uri.parse(uri, key_required=False)
    if len(place.key.encode()) > _MAX_PREFIX_BYTES and info.context != STORED:
        raise ValueError(
            f"the prefix in {uri[:80]!r}… is longer than {_MAX_PREFIX_BYTES} bytes, which leaves no "
            f"room for the names of outputs"
        )
    return str(place)


def _small(metadata: dict[str, str]) -> dict[str, str]:
    size = len(json.dumps(metadata, ensure_ascii=False).encode())
    if size > MAX_METADATA_BYTES:
        raise ValueError(f"metadata takes {size} bytes as JSON; at most {MAX_METADATA_BYTES}")
    return metadata


# Infinity has no place in JSON: leave the field out to get the deployment's own limit.
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


# In order on the wire: a set's own differs between processes, and fingerprints are taken of the JSON.
Outputs = Annotated[frozenset[Output], PlainSerializer(sorted, when_used="json")]

Tenant = Annotated[str, Field(pattern=rf"^{TENANT}$")]

ClassName = Annotated[str, Field(min_length=1, max_length=200)]
Classes = Annotated[
    frozenset[ClassName],
    Field(min_length=1, max_length=256),
    PlainSerializer(sorted, when_used="json"),
]


class SegmentRequest(BaseModel):
    """What a caller asks for. Unknown fields are refused: a misspelled option is never ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # s3://bucket/key, or a (presigned) https URL that is read by GET.
    image_uri: Annotated[str, Field(max_length=8192), AfterValidator(_image_place)]
    # Which state of the object is meant, where it may be overwritten meanwhile: its version, or (in a
    # bucket without versions) its ETag; another one there by then ends the job as `source_changed`.
    image_version_id: str | None = Field(default=None, min_length=1, max_length=1024)
    image_etag: str | None = Field(default=None, min_length=1, max_length=200)
    model: ModelName | None = None  # None: the deployment's default
    outputs: Outputs = Field(default=frozenset({Output.MASK}), min_length=1)
    # Only these, by label or id ('sky', '12'); None: every class. Other pixels of the mask are then 255
    # (65535 in a mask of 16 bits), which is no class.
    classes: Classes | None = None
    # How much of the overlay is colour, 0..1; None: half.
    overlay_alpha: float | None = Field(default=None, ge=0, le=1, allow_inf_nan=False)
    overlay_legend: bool = False  # a strip below the overlay: colour, label and share of each class
    mode: Mode = Mode.WHOLE  # how the image is shown to the network
    priority: Priority = Priority.NORMAL
    # Whose it is: jobs of several tenants are taken by turns, and may have a quota each.
    tenant: Tenant | None = None
    # Where outputs go, s3://bucket/prefix; None: under MASKQ_OUTPUT_PREFIX of the worker's bucket.
    output_prefix: Annotated[str, AfterValidator(_prefix_place)] | None = None
    # Presigned URLs that outputs are PUT to instead; workers then need no rights on that bucket.
    output_urls: dict[Output, PresignedUrl] = Field(default_factory=dict)
    # Who is told by a signed POST, and of what: Standard Webhooks, the event as its body.
    webhook: WebhookUrl | None = None
    webhook_events: WebhookEvents = Field(default=ENDS, min_length=1)
    # The caller's own, returned untouched; at most MAX_METADATA_BYTES as JSON.
    metadata: Annotated[dict[str, str], AfterValidator(_small)] = Field(default_factory=dict)
    queue_ttl_s: Seconds | None = None  # expires if not started by then
    run_timeout_s: Seconds | None = None  # fails `timeout` if not ended by then
    max_attempts: int | None = Field(default=None, ge=1, le=100)  # charged attempts

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if is_url(self.image_uri) and (self.image_version_id or self.image_etag):
            raise ValueError(
                "image_version_id and image_etag go with s3:// only: a URL names its own"
            )
        if extra := set(self.output_urls) - self.outputs:
            raise ValueError(f"output_urls names {', '.join(sorted(extra))}, not among the outputs")
        if Output.BINARY in self.output_urls:
            raise ValueError(
                "output_urls cannot take binary: it is one file per class, give an output_prefix"
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
        return self

    def redacted(self) -> SegmentRequest:
        """As it may stand in a record: presigned URLs without what makes them work."""
        urls = {output: redact(url) for output, url in self.output_urls.items()}
        image_uri = redact(self.image_uri) if is_url(self.image_uri) else self.image_uri
        return self.model_copy(update={"image_uri": image_uri, "output_urls": urls})

    def wire(self) -> str:
        """What the record keeps, as JSON, without what was left at its default."""
        return self.redacted().model_dump_json(exclude_defaults=True)

    @property
    def incomplete(self) -> bool:
        """Whether it came out of a record that did not keep its presigned URLs."""
        return any(url.endswith(HIDDEN) for url in (self.image_uri, *self.output_urls.values()))

    def private(self) -> PrivateUrls:
        """What `wire` leaves out."""
        plain = self.redacted()
        whole = self.image_uri if self.image_uri != plain.image_uri else ""
        urls = {o.value: u for o, u in self.output_urls.items() if u != plain.output_urls[o]}
        return PrivateUrls(image_uri=whole, output_urls=urls)


class ClassStats(BaseModel):
    """How much of the image one class covers, and where."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: int
    """Class id, counted from 0, as in the mask."""
    label: str
    """Name of the class."""
    pixels: int
    """Pixels of the class."""
    share: float
    """Share of all pixels, 0 to 1."""
    bbox: Annotated[list[int], Field(min_length=4, max_length=4)] | None = None
    """x, y, width and height in pixels of the smallest box around the class. None: an older result."""
    regions: int | None = None
    """Connected regions, where corners connect. None: an older result."""


class JobResult(BaseModel):
    """What a succeeded job left in the store; the manifest `result.json` holds this and more."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    width: int
    """Pixels, of the upright image and of the mask."""
    height: int
    """Pixels."""
    model: str
    """Name under which the model is served."""
    model_revision: str | None = None
    """Commit or content hash of the checkpoint."""
    backend: str = "transformers"
    """What computed the scores, as in MASKQ_BACKEND."""
    dtype: str | None = None
    """Precision that the model computed in: float32, float16, bfloat16 or int8."""
    outputs: dict[Output, str] = Field(default_factory=dict)
    """Output → `s3://` URI, or a URL without its secrets. The URI of `binary` is a folder and ends in
    '/'.
    """
    labels: dict[int, str] = Field(default_factory=dict)
    """Class id → label, of the classes present."""
    stats: list[ClassStats] = Field(default_factory=list)
    """Statistics of each class, largest share first, if asked for."""
    source_etag: str | None = None
    """ETag of the object that was read."""
    source_version_id: str | None = None
    """Version of the object that was read, in a bucket with versions."""
    notes: list[str] = Field(default_factory=list)
    """What was done to the image: `rotated upright`, `first of 3 frames`."""
    timings_ms: dict[str, float] = Field(default_factory=dict)
    """Stage → milliseconds."""


class Manifest(JobResult):
    """`result.json`: the result, and what whoever has only the files needs to understand them.

    It lies in the store and not in the ledger, whose records stay small.
    """

    palette: dict[int, str] = Field(default_factory=dict)
    """Class id → `#rrggbb`, of the classes present."""
    preprocessing: dict[str, Any] = Field(default_factory=dict)
    """How the image was prepared for the network."""
    output_bytes: dict[Output, int] = Field(default_factory=dict)
    """Output → bytes; of `binary` all files together."""
    submitted_ms: int | None = None
    """The job's `created_ms`, which tells it from an earlier job of the same id. None: an older
    manifest.
    """


class JobRecord(BaseModel):
    """One job as the ledger knows it. Times are milliseconds since the epoch, by Redis' clock."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    status: JobStatus
    model: str
    priority: Priority
    request: SegmentRequest
    attempt: int = 0  # number of claims so far; a claim is fenced by its token, not by this
    charges: int = 0  # attempts that count against max_attempts
    max_attempts: int
    created_ms: int
    started_ms: int | None = None  # of the latest attempt
    ended_ms: int | None = None
    owner: str | None = None  # host:pid of the worker that has, or last had, it
    not_before_ms: int | None = None  # waits until then: a back-off, or Celery's eta
    batch_id: str | None = None
    tenant: str | None = None
    retry_of: str | None = None  # the job that this one repeats
    alias: str | None = (
        None  # what else it is found by: the id of Celery's task, if that is no UUID
    )
    result: JobResult | None = None  # only when succeeded
    error: JobFailure | None = None  # why it ended, or why the last attempt was given back

    @property
    def ended(self) -> bool:
        return self.status in TERMINAL

    def public(self) -> dict[str, Any]:
        """The record as plain JSON values, without what is not set."""
        return self.model_dump(mode="json", exclude_none=True)
