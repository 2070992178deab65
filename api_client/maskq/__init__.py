"""maskq: images segmented behind a queue. This is the whole public surface of the client.

from maskq import Client
with Client() as client:
    client.segment("photo.jpg").save("masks")
"""

from maskq.client.async_client import AsyncClient
from maskq.client.batch import AsyncBatch, Batch
from maskq.client.bulk import Submission
from maskq.client.client import Client
from maskq.client.image_source import ImageSource, NamedImage
from maskq.client.job import AsyncJob, Job
from maskq.client.operations.page import Page
from maskq.client.results.result import AsyncResult, Result
from maskq.contract import Event, FailureCode, JobRecord, JobStatus, Output, Priority
from maskq.contract.models import DefaultModel, ServedModel, ServingWorker
from maskq.contract.options import Mode, Options
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
from maskq.ledger.calls import BatchProgress

__all__ = [
    "AsyncBatch",
    "AsyncClient",
    "AsyncJob",
    "AsyncResult",
    "Batch",
    "BatchProgress",
    "Client",
    "ClientUnusable",
    "DefaultModel",
    "Event",
    "EventsLost",
    "FailureCode",
    "IdempotencyConflict",
    "ImageSource",
    "InvalidRequest",
    "Job",
    "JobFailed",
    "JobNotFound",
    "JobRecord",
    "JobStatus",
    "MaskqError",
    "Mode",
    "NamedImage",
    "Options",
    "Output",
    "Page",
    "Priority",
    "QueueFull",
    "Result",
    "ResultDamaged",
    "SegmentRefused",
    "ServedModel",
    "ServingWorker",
    "StoreRefused",
    "StoreUnavailable",
    "Submission",
    "SubmitRateExceeded",
    "UnknownModel",
    "WaitTimeout",
    "WebhookRefused",
]
