"""The errors of one job. Only a TransientError is retried.

JobError                  .code, .message: as in the job's record
├── TransientError        temporary: the job is released with a back-off
│   │                     (`charged`: whether the attempt counts against max_attempts)
│   └── StoreAway         the store is unavailable, or refuses the worker's own credentials: never
│                         charged
└── PermanentError        permanent: the job fails at once
"""

from maskq.contract import FailureCode, JobFailure
from maskq.inert import without_secrets


class JobError(Exception):
    """Has a stable code and a message: what happened, with which input, what to do."""

    def __init__(self, code: FailureCode, message: str) -> None:
        self.code = code
        self.message = without_secrets(message)
        super().__init__(self.message)

    def failure(self) -> JobFailure:
        return JobFailure(code=self.code, message=self.message)


class TransientError(JobError):
    """The job is retried after a back-off. An outage of a store is never charged to the job."""

    def __init__(self, code: FailureCode, message: str, *, charged: bool = True) -> None:
        super().__init__(code, message)
        self.charged = charged


class StoreAway(TransientError):
    """The job is released uncharged. `retry_s`: seconds before the store may be used again."""

    def __init__(self, code: FailureCode, message: str, *, retry_s: float = 0.0) -> None:
        super().__init__(code, message, charged=False)
        self.retry_s = retry_s


class PermanentError(JobError):
    """The job is not retried."""
