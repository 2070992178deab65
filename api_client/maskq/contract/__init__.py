"""The wire: what a request, a record, an event and an error look like. pydantic and stdlib only."""

from maskq.contract.events import Event
from maskq.contract.failures import FailureCode, JobFailure
from maskq.contract.jobs import (
    TERMINAL,
    JobRecord,
    JobResult,
    JobStatus,
    SegmentRequest,
)
from maskq.contract.options import Mode, Output, Priority

__all__ = [
    "TERMINAL",
    "Event",
    "FailureCode",
    "JobFailure",
    "JobRecord",
    "JobResult",
    "JobStatus",
    "Mode",
    "Output",
    "Priority",
    "SegmentRequest",
]
