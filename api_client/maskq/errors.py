"""Exceptions that the client raises.

MaskqError
├── JobFailed             the job ended without a result (.job, .code, .message)
├── WaitTimeout           the job did not end in time; it continues
├── JobNotFound           no record under this id: never submitted, or past its retention
├── QueueFull             MASKQ_MAX_QUEUED jobs are queued; submit again later
│   └── SubmitRateExceeded  the tenant submits faster than it may (.retry_after_s)
├── InvalidRequest        a field is unknown, missing or of the wrong type
├── IdempotencyConflict   this idempotency key was used for another request
├── UnknownModel          no worker has served a model of this name, or it was retired
├── StoreUnavailable      Redis, S3 or the gateway cannot be reached, or Redis refuses a command
│   └── StoreRefused      S3 or the gateway refused the request; a retry would not help (.code)
├── SegmentRefused        `.get()` raises it in a Celery caller of maskq.segment (.code, .message)
├── ResultDamaged         an output's object does not match the job's record
├── EventsLost            events after the cursor were trimmed
├── ClientUnusable        the client was closed during a wait, or awaited without an event loop
└── WebhookRefused        a webhook with an invalid signature, or too old
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from maskq.contract.failures import FailureCode
from maskq.inert import without_secrets

if TYPE_CHECKING:
    from maskq.contract import JobRecord


class MaskqError(Exception):
    """Base class. `code` is stable; the text is for people and never contains a URL's password."""

    code: FailureCode = FailureCode.INTERNAL

    def __init__(self, *arguments: object) -> None:
        super().__init__(
            *(without_secrets(one) if isinstance(one, str) else one for one in arguments)
        )


class JobFailed(MaskqError):
    """Raised by `wait` and `segment` when the job ended without a result."""

    def __init__(self, record: JobRecord, job: Any = None) -> None:
        self.record = record
        self.job = job
        self.code = record.error.code if record.error else FailureCode.INTERNAL
        self.message = record.error.message if record.error else record.status.value
        super().__init__(f"job {record.id} {record.status.value} ({self.code}): {self.message}")


class WaitTimeout(MaskqError, TimeoutError):
    """Raised by `wait` after its timeout. The job continues."""

    code = FailureCode.TIMEOUT


class JobNotFound(MaskqError, LookupError):
    """Raised for an id without a record."""

    code = FailureCode.NOT_FOUND

    def __init__(self, subject: str, *, kind: str = "job") -> None:
        super().__init__(
            f"there is no {kind} {subject}: it was never submitted here, or its retention has ended"
        )


class QueueFull(MaskqError):
    """Raised by `submit` when MASKQ_MAX_QUEUED jobs of the model are queued."""

    code = FailureCode.QUEUE_FULL


class SubmitRateExceeded(QueueFull):
    """Raised by `submit` when the tenant submitted as many jobs in this minute as it may.

    `retry_after_s`: seconds until the next job is accepted. It is a subclass of QueueFull, so that one
    `except` catches both, and `queue_full_timeout` waits for both.
    """

    code = FailureCode.SUBMIT_RATE_EXCEEDED

    def __init__(self, text: str, retry_after_s: float = 0.0) -> None:
        super().__init__(text)
        self.retry_after_s = retry_after_s


class InvalidRequest(MaskqError, ValueError):
    """Raised by `submit` before anything is stored."""

    code = FailureCode.INVALID_REQUEST


class IdempotencyConflict(MaskqError):
    """Raised by `submit` when the key was used for a different request."""

    code = FailureCode.IDEMPOTENCY_CONFLICT


class UnknownModel(MaskqError, LookupError):
    """`submit` raises it for an unknown model, and if neither a model nor a default is set.

    The text lists the known models.
    """

    code = FailureCode.UNKNOWN_MODEL


class StoreUnavailable(MaskqError, ConnectionError):
    """Raised when Redis, S3 or the gateway cannot be reached, or Redis refuses a request."""

    code = FailureCode.STORE_UNAVAILABLE


class StoreRefused(StoreUnavailable):
    """Raised when S3 refuses a request: a missing object, missing permission, an invalid request.

    Over HTTP also when the gateway refuses the API key (code access_denied).
    `code` is not_found, access_denied, source_changed or store_refused; the text quotes S3's message.
    It is a subclass of StoreUnavailable, so that one `except` catches both.
    """

    code = FailureCode.STORE_REFUSED


class SegmentRefused(MaskqError):
    """Raised by `.get()` in a Celery caller if its request was refused or its job has no result.

    Celery stores the name of this class and its argument. A caller that has imported maskq gets this
    class; any other caller gets an exception with the same name and text.
    """

    def __init__(self, text: str = "") -> None:
        """text: 'code: sentence'."""
        super().__init__(text)
        code, _, message = text.partition(": ")
        known = code in FailureCode.__members__.values()
        self.code = FailureCode(code) if known else FailureCode.INTERNAL
        self.message = message if known else text


class ResultDamaged(MaskqError):
    """Raised by `Result.mask()` and similar methods if the object does not match the job's record."""

    code = FailureCode.SOURCE_CHANGED


class EventsLost(MaskqError):
    """Raised by `events` if events after the cursor were trimmed, or the cursor is in the future."""

    code = FailureCode.NOT_FOUND


class ClientUnusable(MaskqError, RuntimeError):
    """Raised by a client that was closed during a wait, or is awaited without an event loop."""

    code = FailureCode.INVALID_REQUEST


class WebhookRefused(MaskqError, ValueError):
    """Raised by `webhooks.verify` for an invalid signature, an altered body or an old timestamp."""

    code = FailureCode.ACCESS_DENIED
