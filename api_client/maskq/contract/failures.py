"""Why a job failed: a stable code for programs, a sentence for people."""

from enum import StrEnum
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, model_validator

from maskq.inert import without_secrets


class FailureCode(StrEnum):
    """Codes are never renamed. Programs branch on the code, not on the message."""

    # Each docstring says what the code means, then what to do (docs/reference/errors.md).

    INVALID_IMAGE = "invalid_image"
    """The object is not an image of a supported format, or it is damaged.

    Send a supported format (docs/formats.md). The message says what is wrong with this file.
    """
    IMAGE_TOO_LARGE = "image_too_large"
    """The image has more bytes, pixels or scans than the worker accepts.

    Send a smaller image, or raise MASKQ_MAX_IMAGE_BYTES, _PIXELS or _SCANS on the workers.
    """
    INVALID_REQUEST = "invalid_request"
    """A field is unknown, missing or of the wrong type.

    Correct the field that the message names.
    """
    NOT_FOUND = "not_found"
    """The object, bucket or job does not exist.

    Check the name. A record is removed MASKQ_RETENTION_S after its job's end.
    """
    ACCESS_DENIED = "access_denied"
    """S3 or Redis refused the credentials or the action.

    Grant the right that the message names (docs/least-privilege.md).
    """
    BUCKET_NOT_ALLOWED = "bucket_not_allowed"
    """The input or output lies outside the allowed locations, or in another tenant's folder.

    Use an allowed location, or extend MASKQ_ALLOWED_LOCATIONS (docs/tenants.md).
    """
    SOURCE_CHANGED = "source_changed"
    """The input is not the object that was submitted, or an output is not the one that was written.

    Submit the object's present state as a new job.
    """
    OUTPUT_EXISTS = "output_exists"
    """An object exists under the job's output_name, and this job did not write it.

    Choose another output_name ({job_id} makes it unique), delete the object, or set output_replace.
    """
    UNKNOWN_MODEL = "unknown_model"
    """No worker has ever served a model of this name, or it was retired.

    Choose one that `maskq models` lists, or start a worker that serves it.
    """
    QUEUE_FULL = "queue_full"
    """As many jobs wait as MASKQ_MAX_QUEUED or the tenant's limit allow, or Redis is full.

    Submit again later, or start more workers. `maskq tenants show` has a tenant's limit.
    """
    SUBMIT_RATE_EXCEEDED = "submit_rate_exceeded"
    """The tenant submitted as many jobs in this minute as its submit rate allows.

    Submit again after the seconds in the message or in `Retry-After`, or raise the rate
    (`maskq tenants set --submit-rate`).
    """
    RATE_LIMITED = "rate_limited"
    """The API key made more HTTP requests in this minute than it may.

    Wait for the seconds in `Retry-After`, or create a key with a higher rate.
    """
    IDEMPOTENCY_CONFLICT = "idempotency_conflict"
    """The idempotency key belongs to a request that differs.

    Use a new key for a new request.
    """
    EXPIRED = "expired"
    """The job did not start within its queue_ttl_s.

    Retry the job. If many expire, start more workers or look for an outage of a store.
    """
    CANCELED = "canceled"
    """The caller canceled the job.

    Nothing; retry it if it is needed after all.
    """
    WORKER_LOST = "worker_lost"
    """The worker process died max_attempts times while it ran this job alone.

    Look for the cause in the worker's log: the image, too little memory, or a faulty device.
    """
    TIMEOUT = "timeout"
    """An attempt did not end within its run_timeout_s.

    Raise `run_timeout_s`, or send a smaller image.
    """
    OUT_OF_MEMORY = "out_of_memory"
    """The image does not fit into memory, even if it runs alone.

    Send a smaller image, or use a device with more memory.
    """
    STORE_UNAVAILABLE = "store_unavailable"
    """Redis or S3 could not be reached.

    Check that both run and that their addresses are right (MASKQ_REDIS_URL, MASKQ_S3_ENDPOINT_URL),
    then submit again with the same idempotency key. Accepted jobs wait for the store by
    themselves; retry those that expired meanwhile (`maskq list --status expired`).
    """
    STORE_REFUSED = "store_refused"
    """S3 refused this request and would refuse it again.

    Act on S3's own code and words in the message (docs/operations.md).
    """
    INTERNAL = "internal"
    """maskq has a bug.

    Report it with the traceback from the worker's or gateway's log.
    """


class JobFailure(BaseModel):
    """Why a job ended without a result, as in its record and its event."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    code: FailureCode
    # One sentence: what happened, with which input, and what to do.
    message: Annotated[str, AfterValidator(without_secrets)]

    @model_validator(mode="before")
    @classmethod
    def _of_newer_version(cls, given: Any) -> Any:
        """A code that a newer version wrote is read as INTERNAL, and the message names it."""
        code = given.get("code") if isinstance(given, dict) else None
        if code is None or code in set(FailureCode):
            return given
        message = (
            f"{given.get('message')} (code {code!r}, which this version of maskq does not know)"
        )
        return {**given, "code": FailureCode.INTERNAL, "message": message}
