"""The wire format: requests, records, events and errors. Needs pydantic and the standard library."""

from maskq.contract.events import Event
from maskq.contract.failures import FailureCode, JobFailure
from maskq.contract.jobs import JobRecord, JobResult, SegmentRequest
from maskq.contract.options import Mode, Priority
from maskq.contract.outputs import Output
from maskq.contract.statuses import TERMINAL, JobStatus

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
