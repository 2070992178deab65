"""What can go wrong inside one job. Only a TransientError is tried again.

JobError                  .code, .message: what the record will say
├── TransientError        may pass by itself: given back with a back-off
│   │                     (`charged`: whether the attempt counts against max_attempts)
│   └── StoreAway         the store is not there for now, or refuses the worker's own credentials:
│                         never charged
└── PermanentError        will not pass: the job fails at once
"""

from maskq.contract import FailureCode, JobFailure
from maskq.inert import without_secrets


class JobError(Exception):
    """Carries a stable code and one sentence: what happened, with which input, what to do."""

    def __init__(self, code: FailureCode, message: str) -> None:
        self.code = code
        self.message = without_secrets(message)
        super().__init__(self.message)

    def failure(self) -> JobFailure:
        return JobFailure(code=self.code, message=self.message)


class TransientError(JobError):
    """Tried again after a back-off. An outage of a store is never charged to the job."""

    def __init__(self, code: FailureCode, message: str, *, charged: bool = True) -> None:
        super().__init__(code, message)
        self.charged = charged


class StoreAway(TransientError):
    """Given back uncharged. `retry_s`: the store is not asked again before."""

    def __init__(self, code: FailureCode, message: str, *, retry_s: float = 0.0) -> None:
        super().__init__(code, message, charged=False)
        self.retry_s = retry_s


class PermanentError(JobError):
    """Not tried again."""
