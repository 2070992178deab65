"""Why a job failed: a stable code for programs, a sentence for people."""

from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict

from maskq.inert import without_secrets


class FailureCode(StrEnum):
    """Codes are never renamed. Programs branch on the code, not on the message."""

    INVALID_IMAGE = "invalid_image"  # not an image, damaged, or a format that is not accepted
    IMAGE_TOO_LARGE = "image_too_large"  # more bytes or pixels than the worker accepts
    INVALID_REQUEST = "invalid_request"  # a field is unknown, missing or of the wrong type
    NOT_FOUND = "not_found"  # no such object or bucket, or no such job
    ACCESS_DENIED = "access_denied"  # the store refused the credentials or the action
    BUCKET_NOT_ALLOWED = "bucket_not_allowed"  # outside the allowed locations, or another tenant's
    SOURCE_CHANGED = "source_changed"  # the input object changed between two attempts
    UNKNOWN_MODEL = "unknown_model"  # no worker has served it, or it was retired
    QUEUE_FULL = "queue_full"  # MASKQ_MAX_QUEUED jobs wait already
    RATE_LIMITED = "rate_limited"  # more HTTP requests in this minute than the API key may make
    IDEMPOTENCY_CONFLICT = "idempotency_conflict"  # same key, other request
    EXPIRED = "expired"  # not started within its queue_ttl_s
    CANCELED = "canceled"  # by the caller
    WORKER_LOST = (
        "worker_lost"  # its worker process died max_attempts times while only this job ran
    )
    TIMEOUT = "timeout"  # did not end within its run_timeout_s
    OUT_OF_MEMORY = "out_of_memory"  # does not fit the device even when run alone
    STORE_UNAVAILABLE = "store_unavailable"  # Redis or S3 could not be reached
    STORE_REFUSED = "store_refused"  # S3 refuses it for good; the message has S3's error
    INTERNAL = "internal"  # a bug in maskq; the worker's log has the traceback


class JobFailure(BaseModel):
    """Why a job ended without a result, as in its record and its event."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    code: FailureCode
    # One sentence: what happened, with which input, and what to do.
    message: Annotated[str, AfterValidator(without_secrets)]
