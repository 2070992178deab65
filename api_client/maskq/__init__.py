"""maskq: images segmented behind a queue. This is the whole public surface of the client.

from maskq import Client
with Client.from_env() as client:
    result = client.segment("photo.jpg")
    result.mask().save("mask.png")
"""

from maskq.client.core import AsyncClient, Client
from maskq.client.job import AsyncBatch, AsyncJob, Batch, Job
from maskq.client.result import AsyncResult, Result
from maskq.contract import Event, FailureCode, JobRecord, JobStatus, Output, Priority
from maskq.errors import (
    EventsLost,
    IdempotencyConflict,
    InvalidRequest,
    JobFailed,
    JobNotFound,
    MaskqError,
    QueueFull,
    StoreRefused,
    StoreUnavailable,
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
    "StoreRefused",
    "StoreUnavailable",
    "UnknownModel",
    "WaitTimeout",
    "WebhookRefused",
]
