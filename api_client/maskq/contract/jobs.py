"""A job: its request, its record and its result. statuses.py draws its states."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    model_validator,
)

from maskq.contract.failures import JobFailure
from maskq.contract.locations import HIDDEN, PrivateUrls, S3Uri, http_url, is_url, redact
from maskq.contract.locations.output_names import ImageName, NamedFiles, NameTemplate
from maskq.contract.locations.output_places import STORED
from maskq.contract.options import DECIDE_OUTPUTS, JobOptions, Priority
from maskq.contract.outputs import StoredOutput
from maskq.contract.statuses import TERMINAL, JobStatus

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


def _checked_image(uri: str) -> str:
    return http_url(uri) if is_url(uri) else str(S3Uri.parse(uri))


class _Image(BaseModel):
    """Puts image_uri first: pydantic orders fields by the bases, the last base first."""

    image_uri: Annotated[
        str,
        Field(max_length=8192, description="`s3://bucket/key`, or an https URL, also presigned."),
        AfterValidator(_checked_image),
    ]


class SegmentRequest(JobOptions, _Image):
    """What a caller asks for. Unknown fields are refused: a misspelled option is never ignored."""

    @model_validator(mode="after")
    def _check_image(self) -> Self:
        if is_url(self.image_uri) and (self.image_version_id or self.image_etag):
            raise ValueError(
                "image_version_id and image_etag apply to s3:// images only, not to URLs"
            )
        return self

    @model_validator(mode="after")
    def _check_named_files(self, info: ValidationInfo) -> Self:
        if (named := self.named_files("0" * 36)) and info.context != STORED:
            try:
                named.check()
            except ValueError as error:
                raise ValueError(f"output_name: {error}") from None
        return self

    def named_files(self, job_id: str, image: ImageName | None = None) -> NamedFiles | None:
        """Where output_name puts the files of a job; None without an output_name.

        image: default: of image_uri.
        """
        if self.output_name is None or self.output_prefix is None:
            return None
        return NamedFiles(
            NameTemplate(self.output_name),
            S3Uri.parse(self.output_prefix, key_required=False),
            self.outputs - self.output_urls.keys(),
            image or ImageName.of(self.image_uri),
            job_id,
        )

    def redacted(self) -> SegmentRequest:
        """The request as records show it: presigned URLs without their secrets."""
        urls = {output: redact(url) for output, url in self.output_urls.items()}
        image_uri = redact(self.image_uri) if is_url(self.image_uri) else self.image_uri
        return self.model_copy(update={"image_uri": image_uri, "output_urls": urls})

    def wire(self) -> str:
        """The redacted request as JSON, without defaults: what the record keeps."""
        return self.redacted().model_dump_json(exclude_defaults=True)

    def deciding_outputs(self) -> dict[str, Any]:
        """The image's place and the options that decide the bytes of outputs, without defaults."""
        chosen = {"image_uri", *DECIDE_OUTPUTS}
        return self.redacted().model_dump(mode="json", include=chosen, exclude_defaults=True)

    @property
    def incomplete(self) -> bool:
        """Whether it was read from a record, which does not keep presigned URLs."""
        return any(url.endswith(HIDDEN) for url in (self.image_uri, *self.output_urls.values()))

    def private(self) -> PrivateUrls:
        """The secrets that `wire` omits."""
        plain = self.redacted()
        whole = self.image_uri if self.image_uri != plain.image_uri else ""
        urls = {o.value: u for o, u in self.output_urls.items() if u != plain.output_urls[o]}
        return PrivateUrls(image_uri=whole, output_urls=urls)


class ClassStats(BaseModel):
    """Size and position of one class in the image."""

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
    """The result of a succeeded job. The manifest `result.json` holds this and more."""

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
    """Type of numbers that the model computed in: float32, float16, bfloat16 or int8."""
    precision: str | None = None
    """`exact`, `fast` or `certified`, as in MASKQ_PRECISION. None: half precision or 8 bits without a
    bound for uncertain pixels, or an older result.
    """
    uncertain_share: float | None = None
    """Share of the pixels whose class may differ from float32's, 0 to 1; 0 if float32 computed the
    mask. None: not known.
    """
    outputs: dict[StoredOutput, str] = Field(default_factory=dict)
    """Output → `s3://` URI, or a URL without its secrets. The URI of `binary` is a folder and ends in
    '/'. An output of a newer version has its name as text.
    """
    labels: dict[int, str] = Field(default_factory=dict)
    """Class id → label, of the classes present."""
    stats: list[ClassStats] = Field(default_factory=list)
    """Statistics of each class, largest share first, if asked for."""
    source_etag: str | None = None
    """ETag of the object that was read."""
    source_version_id: str | None = None
    """Version of the object that was read, in a bucket with versions."""
    source_sha256: Sha256 | None = None
    """SHA-256 of the bytes that were read, in hex. None: an older result."""
    output_sha256: dict[StoredOutput, Sha256] = Field(default_factory=dict)
    """Output → SHA-256 of its file, in hex; of `binary` that of what `sha256sum *.png` prints in its
    folder. Empty: an older result.
    """
    notes: list[str] = Field(default_factory=list)
    """What was done to the image: `rotated upright`, `first of 3 frames`."""
    timings_ms: dict[str, float] = Field(default_factory=dict)
    """Stage → milliseconds."""
    copies: dict[str, str] = Field(default_factory=dict)
    """File (`mask.png`, `binary/007.png`) → `s3://` URI of its copy under output_name."""


class Manifest(JobResult):
    """`result.json`: the result, and what readers of the files need who have no record.

    It is in the object store, not in the ledger, so that records stay small.
    """

    job_id: str | None = None
    """The job. None: an older manifest."""
    source: str | None = None
    """What was segmented: `s3://bucket/key`, with `?versionId=…` in a bucket with versions; a URL
    without its secrets; or the file name that the caller gave. None: an older manifest.
    """
    request: dict[str, Any] = Field(default_factory=dict)
    """`image_uri`, and the options that decide the bytes of the outputs, without default values."""
    palette: dict[int, str] = Field(default_factory=dict)
    """Class id → `#rrggbb`, of the classes present."""
    preprocessing: dict[str, Any] = Field(default_factory=dict)
    """How the image was prepared for the network."""
    output_bytes: dict[StoredOutput, int] = Field(default_factory=dict)
    """Output → bytes; of `binary` all files together."""
    submitted_ms: int | None = None
    """The job's `created_ms`, which tells it from an earlier job of the same id. None: an older
    manifest.
    """


class ErrorFile(BaseModel):
    """`error.json`: why a job failed, for who has only the bucket."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    job_id: str
    image_uri: str
    """Without the secret of a presigned URL."""
    status: JobStatus
    """`failed` or `expired`."""
    error: JobFailure
    copies: dict[str, str] = Field(default_factory=dict)
    """`error.json` → `s3://` URI of its copy under output_name."""


class JobRecord(BaseModel):
    """One job as the ledger keeps it. Times are milliseconds since the epoch, by Redis' clock."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    status: JobStatus
    model: str
    priority: Priority
    request: SegmentRequest
    # What it is made from: `s3://bucket/key`, with `?versionId=…` if the request names a version; a
    # URL without its secrets; or the file name that the caller gave. None: from an older gateway.
    source: str | None = None
    attempt: int = 0  # number of claims so far; a claim is fenced by its token, not by this
    charges: int = 0  # attempts that count against max_attempts
    max_attempts: int
    created_ms: int
    started_ms: int | None = None  # of the latest attempt
    ended_ms: int | None = None
    owner: str | None = None  # host:pid of the latest worker
    not_before_ms: int | None = None  # earliest start: a back-off, or Celery's eta
    batch_id: str | None = None
    tenant: str | None = None
    retry_of: str | None = None  # the job that this one retries
    # W3C Trace Context of the submission; None: it was not traced.
    traceparent: str | None = None
    tracestate: str | None = None
    alias: str | None = None  # a second id: that of Celery's task, if it is not a UUID
    result: JobResult | None = None  # only when succeeded
    error: JobFailure | None = None  # why it failed, or why the last attempt was released

    @property
    def ended(self) -> bool:
        return self.status in TERMINAL

    def public(self) -> dict[str, Any]:
        """The record as plain JSON values, without fields that are None."""
        return self.model_dump(mode="json", exclude_none=True)
