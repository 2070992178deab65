"""Models of request and response bodies. OpenAPI is made from them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from maskq.contract import JobRecord, JobStatus, Output, SegmentRequest
from maskq.contract.locations.source import MAX_FILE_NAME
from maskq.contract.models import DefaultModel, ServedModel
from maskq.contract.options import JobOptions, Tenant

LARGEST_BATCH = 500
LONGEST_WAIT_S = 60.0

Wait = Annotated[
    float,
    Field(
        ge=0,
        le=LONGEST_WAIT_S,
        description="Seconds to wait for the job's end before the answer; default: none.",
    ),
]


class NewJob(SegmentRequest):
    """One image to segment, and the options of its job."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "image_uri": "s3://photos/street.jpg",
                    "outputs": ["mask", "overlay"],
                    "metadata": {"order": "4711"},
                }
            ]
        }
    )


class NewJobOfUpload(JobOptions):
    """An image that was uploaded to the URL of an upload, and the options of its job."""

    upload_id: str = Field(description="Of `POST /v1/uploads`. It becomes the job's id.")
    filename: str = Field(
        default="",
        max_length=MAX_FILE_NAME,
        description="File name of the image, which the job's `source` will be.",
    )


class NewUpload(BaseModel):
    """An image that the caller will put into the store itself."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"bytes": 41943040}]})

    bytes: int = Field(ge=1, description="Size of the image. The URL is signed for this size.")
    tenant: Tenant | None = Field(
        default=None, description="Of its future job; default: the API key's."
    )


class Upload(BaseModel):
    """Where to put an image, and how to submit it then."""

    upload_id: str
    method: str = Field(description="Of the request to `url`.")
    url: str = Field(description="A presigned URL of the store; it needs no API key.")
    headers: dict[str, str] = Field(description="Headers that the request to `url` must have.")
    expires_ms: int = Field(description="The URL works until then; ms since the epoch.")
    submit: dict[str, str] = Field(
        description="What to send to `POST /v1/jobs` once the image is uploaded, beside options."
    )


class BatchPart(BaseModel):
    """Jobs that join a batch or run. Each image is accepted or refused by itself."""

    model_config = ConfigDict(extra="forbid")

    batch_id: str | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        pattern=r"^[^/\x00-\x1f\x7f]+$",
        description="The batch or run that the jobs join; a new UUID or the name of a run. Default: a "
        "new batch, of which all images are accepted or none is.",
    )
    total: int = Field(
        default=0,
        ge=0,
        description="Jobs of the whole batch, whose completion event is written when as many have "
        "ended; 0: unknown, no such event. With `image_uris` it needs `batch_id`.",
    )
    idempotency_keys: list[Annotated[str, Field(min_length=1, max_length=400)]] = Field(
        default_factory=list,
        max_length=LARGEST_BATCH,
        description="One for each image: a repeated request then returns the same jobs. With "
        "`image_uris` it needs `batch_id`.",
    )
    retry_of: list[Annotated[str, Field(max_length=200)]] = Field(
        default_factory=list,
        max_length=LARGEST_BATCH,
        description="For each image the failed job that its job retries, or an empty text. With "
        "`image_uris` it needs `batch_id`.",
    )
    durable: bool = Field(
        default=False, description="Answer only once Redis has written the jobs to disk."
    )
    webhook: str | None = Field(
        default=None, description="URL that receives a signed POST when all jobs have ended."
    )


class NewBatch(BatchPart):
    """Images that are segmented with the same options, as one batch with one completion event."""

    image_uris: list[str] = Field(
        min_length=1,
        max_length=LARGEST_BATCH,
        description="`s3://bucket/key` or https URLs.",
        json_schema_extra={"items": {"type": "string", "pattern": "^(s3|https?)://."}},
    )
    options: JobOptions = Field(
        default_factory=JobOptions, description="The fields of a job, without `image_uri`."
    )


class NewBatchOfUploads(BatchPart):
    """Images that were uploaded to the URLs of uploads. Each is accepted or refused by itself."""

    upload_ids: list[str] = Field(
        min_length=1, max_length=LARGEST_BATCH, description="Each of `POST /v1/uploads`."
    )
    filenames: list[Annotated[str, Field(max_length=MAX_FILE_NAME)]] = Field(
        default_factory=list,
        max_length=LARGEST_BATCH,
        description="File name of each image, which the job's `source` will be.",
    )
    options: JobOptions = Field(
        default_factory=JobOptions, description="The fields of a job, without `image_uri`."
    )


class JobView(JobRecord):
    """A job, and its place in the queue."""

    position: int | None = Field(
        default=None,
        description="Of a queued job: how many jobs start before it, as the queue is now. null: it may "
        "not start yet.",
    )
    eta_s: tuple[float, float] | None = Field(
        default=None,
        description="Of a queued job: it starts between these seconds from now, by the rate of the "
        "last minutes. null: no worker, or too few jobs have ended to tell.",
    )


class JobPage(BaseModel):
    """Some jobs, newest first."""

    jobs: list[JobRecord]
    cursor: str = Field(
        description="Go on with `?cursor=` while it is not empty. A page may hold fewer jobs than "
        "`limit`, even none, and still have one."
    )


class BatchState(BaseModel):
    """How far a batch is."""

    id: str
    total: int
    ended: int
    counts: dict[JobStatus, int] = Field(description="Ended jobs by status.")
    job_ids: list[str] = Field(
        default_factory=list,
        description="Of the answer to a submission, in the order of its images.",
    )
    outcomes: list[dict[str, Any]] = Field(
        default_factory=list,
        description="Of the answer to a submission with `batch_id`: for each image its `job_id`, or "
        "the `error` with `code` and `detail`.",
    )
    ended_jobs: dict[str, JobRecord | None] = Field(
        default_factory=dict,
        description="With `seen`: the jobs that ended after so many, at most 1000, in their order; "
        "null: deleted since.",
    )


Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
Cursor = Annotated[str, Field(pattern=r"^[0-9]{1,18}-[0-9]{1,18}$")]


class Confirmation(BaseModel):
    """Events that a reader of a group has handled."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"group": "shop", "cursors": ["1764201600000-0"]}]},
    )

    group: Name
    cursors: list[Cursor] = Field(
        min_length=1, max_length=1000, description="Each the `id:` of an event."
    )


class Confirmed(BaseModel):
    """The answer to a confirmation."""

    confirmed: int = Field(description="How many of them were not confirmed before.")


class Models(BaseModel):
    """The models that jobs can ask for."""

    models: list[ServedModel]
    default: DefaultModel


class Limits(BaseModel):
    """What this deployment accepts."""

    max_upload_bytes: int = Field(description="Of an image that is sent with the request.")
    max_presigned_bytes: int = Field(description="Of an image that is sent by `/v1/uploads`.")
    max_batch_jobs: int
    max_wait_s: float
    queue_ttl_s: float = Field(description="A job expires if not started by then; default.")
    run_timeout_s: float = Field(description="A job fails if not ended by then; default.")
    retention_s: float = Field(description="How long ended jobs can be asked for.")
    outputs: list[Output]
    image_types: dict[str, list[str]] = Field(
        description="Media types of accepted images, each with the suffixes of its files. HEIC and "
        "HEIF need workers with the extra `heic`."
    )


class ModelDemand(BaseModel):
    """What a model has to do."""

    model: str
    queued: int
    startable: int = Field(
        description="Queued jobs that would start if there were workers enough: those that are not "
        "deferred and not above their tenant's cap."
    )
    running: int
    workers: int = Field(description="Alive.")
    jobs_per_s: float | None = Field(
        description="Of these workers together, while jobs wait. null: no worker, or fewer than ten "
        "completions in the last eight minutes with jobs that waited."
    )
    offered_load: float | None = Field(
        description="Workers that the arriving jobs keep busy, by the jobs submitted in the last two "
        "to three minutes. null: as `demand_s`."
    )
    demand_s: float | None = Field(
        description="Seconds that one worker needs for the startable and running jobs, by the speed "
        "last measured. null: the speed was never measured."
    )
    desired_workers: int = Field(
        description="`offered_load + demand_s / target_wait_s`, rounded up; 0 if there is no work. If "
        "the speed was never measured: as many workers as live, and at least one."
    )


class ScaleState(BaseModel):
    """For autoscalers: the demand of each model."""

    target_wait_s: float
    models: list[ModelDemand]


class Health(BaseModel):
    status: str


class ProblemDocument(BaseModel):
    """What went wrong (RFC 9457). `code` is stable; `detail` is for people."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "about:blank",
                    "title": "Not Found",
                    "status": 404,
                    "detail": "there is no job 0199…: it was never submitted here, or its retention "
                    "has ended",
                    "code": "not_found",
                }
            ]
        }
    )

    type: str
    title: str
    status: int
    detail: str
    code: str
