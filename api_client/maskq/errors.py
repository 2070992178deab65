"""Everything the client raises.

MaskqError
├── JobFailed             the job ended without a result (.job, .code, .message)
├── WaitTimeout           the job did not end in the time given; it goes on
├── JobNotFound           no record under this id: never submitted, or past its retention
├── QueueFull             MASKQ_MAX_QUEUED jobs wait already; submit again later
├── InvalidRequest        a field is unknown, missing or of the wrong type
├── IdempotencyConflict   this idempotency key was used for another request
├── UnknownModel          no worker has served a model of this name, or it was retired
├── StoreUnavailable      Redis or S3 cannot be reached, or Redis refuses
│   └── StoreRefused      S3 answered, and will answer the same again (.code says what kind of refusal)
├── SegmentRefused        what `.get()` raises in a Celery caller of maskq.segment (.code, .message)
├── ResultDamaged         an output's object is not the file that the job's record describes
├── EventsLost            events between the cursor and now were trimmed away
├── ClientUnusable        closed while it waited, or awaited where no event loop runs
└── WebhookRefused        a delivery that is not ours, altered or too old
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from maskq.contract.failures import FailureCode
from maskq.inert import without_secrets

if TYPE_CHECKING:
    from maskq.contract import JobRecord


class MaskqError(Exception):
    """Base of all; `code` is stable, the text is for people and holds no password of a URL."""

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
    """Raised by `wait` when its time is up. The job is not touched."""

    code = FailureCode.TIMEOUT


class JobNotFound(MaskqError, LookupError):
    """Raised for an id without a record. An unknown id is an error, never 'pending'."""

    code = FailureCode.NOT_FOUND

    def __init__(self, subject: str, *, kind: str = "job") -> None:
        super().__init__(
            f"there is no {kind} {subject}: never submitted here, or past its retention"
        )


class QueueFull(MaskqError):
    """Raised by `submit` when MASKQ_MAX_QUEUED jobs of the model wait already."""

    code = FailureCode.QUEUE_FULL


class InvalidRequest(MaskqError, ValueError):
    """Raised by `submit` before anything is stored."""

    code = FailureCode.INVALID_REQUEST


class IdempotencyConflict(MaskqError):
    """Raised by `submit` when the key belongs to a request that differs."""

    code = FailureCode.IDEMPOTENCY_CONFLICT


class UnknownModel(MaskqError, LookupError):
    """Raised by `submit` for a model that is not known here, or where none is named and none is the
    default; the text lists those known and says what to do."""

    code = FailureCode.UNKNOWN_MODEL


class StoreUnavailable(MaskqError, ConnectionError):
    """Raised when Redis or S3 cannot be reached, or refuses what was asked."""

    code = FailureCode.STORE_UNAVAILABLE


class StoreRefused(StoreUnavailable):
    """Raised when S3 answers that it will not do this: no such object, no right, a wrong request.

    `code` is not_found, access_denied, source_changed or store_refused; the text has S3's own words.
    A kind of StoreUnavailable, so that callers who catch that catch both.
    """

    code = FailureCode.STORE_REFUSED


class SegmentRefused(MaskqError):
    """Raised by `.get()` in a Celery caller: its request was refused, or its job has no result.

    Celery stores the name of this class and its one argument, and makes it again in the caller's
    process if that has imported maskq; elsewhere it makes an exception of this name and text.
    """

    def __init__(self, text: str = "") -> None:
        """text: 'code: sentence'."""
        super().__init__(text)
        code, _, message = text.partition(": ")
        known = code in FailureCode.__members__.values()
        self.code = FailureCode(code) if known else FailureCode.INTERNAL
        self.message = message if known else text


class ResultDamaged(MaskqError):
    """Raised by `Result.mask()` and the like for a damaged object or another file."""

    code = FailureCode.SOURCE_CHANGED


class EventsLost(MaskqError):
    """Raised by `events` when the cursor was trimmed away or lies ahead of the stream."""

    code = FailureCode.NOT_FOUND


class ClientUnusable(MaskqError, RuntimeError):
    """Raised by a client that was closed while it waited, or is used where it cannot work."""

    code = FailureCode.INVALID_REQUEST


class WebhookRefused(MaskqError, ValueError):
    """Raised by `webhooks.verify`: not signed by us, altered, or too old."""

    code = FailureCode.ACCESS_DENIED
