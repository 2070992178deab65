"""maskq: images segmented behind a queue. This is the whole public surface of the client.

from maskq import Client
with Client.from_env() as client:
    result = client.segment("photo.jpg")
    result.mask().save("mask.png")
"""

from maskq.client.async_client import AsyncClient
from maskq.client.batch import AsyncBatch, Batch
from maskq.client.client import Client
from maskq.client.job import AsyncJob, Job
from maskq.client.results.result import AsyncResult, Result
from maskq.contract import Event, FailureCode, JobRecord, JobStatus, Output, Priority
from maskq.contract.models import DefaultModel, ServedModel, ServingWorker
from maskq.errors import (
    ClientUnusable,
    EventsLost,
    IdempotencyConflict,
    InvalidRequest,
    JobFailed,
    JobNotFound,
    MaskqError,
    QueueFull,
    ResultDamaged,
    SegmentRefused,
    StoreRefused,
    StoreUnavailable,
    SubmitRateExceeded,
    UnknownModel,
    WaitTimeout,
    WebhookRefused,
)

__all__ = [
    "AsyncBatch",
    "AsyncClient",
    "AsyncJob",
    "AsyncResult",
    "Batch",
    "Client",
    "ClientUnusable",
    "DefaultModel",
    "Event",
    "EventsLost",
    "FailureCode",
    "IdempotencyConflict",
    "InvalidRequest",
    "Job",
    "JobFailed",
    "JobNotFound",
    "JobRecord",
    "JobStatus",
    "MaskqError",
    "Output",
    "Priority",
    "QueueFull",
    "Result",
    "ResultDamaged",
    "SegmentRefused",
    "ServedModel",
    "ServingWorker",
    "StoreRefused",
    "StoreUnavailable",
    "SubmitRateExceeded",
    "UnknownModel",
    "WaitTimeout",
    "WebhookRefused",
]
