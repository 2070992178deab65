"""Events: CloudEvents 1.0.2 in structured JSON, one per state a job or batch enters.

The ledger writes each in the transaction that makes the state true. Delivery is at least once
with a stable `id` (`{subject}:{state}`, and `:{attempt}` for states that can come again).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field, create_model

from maskq.contract.failures import JobFailure
from maskq.contract.jobs import JobResult
from maskq.contract.statuses import ENDED, RETRYABLE, STATES, JobStatus, either, event_name

M = TypeVar("M", bound=BaseModel)


class JobEventData(BaseModel):
    """The data of a job's event: the state it entered and, once it has ended, its outcome."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    job_id: str = Field(description="The job, as in `subject`.")
    status: JobStatus = Field(description="The state it entered, as in `type`.")
    attempt: int = Field(description="Rises with every claim; 0 before the first.")
    tenant: str | None = Field(default=None, description="The job's tenant; absent if it has none.")
    source: str | None = Field(
        default=None,
        description="What it was made from: `s3://bucket/key`, with `?versionId=…` if the request "
        "names a version; a URL without its secrets; or the file name that the caller gave.",
    )
    # The rest is written when the job has ended.
    batch_id: str | None = Field(
        default=None, description="The batch it was submitted in; null or absent without one."
    )
    metadata: dict[str, str] = Field(
        default_factory=dict,
        description="The caller's own, as submitted; absent before the end, or if there is none.",
    )
    result: JobResult | None = Field(
        default=None,
        description="If succeeded: the outputs. Fields with default values are omitted.",
    )
    error: JobFailure | None = Field(
        default=None, description=f"If {either(RETRYABLE)}: the reason."
    )


def _with_counts(model: type[M]) -> type[M]:
    """The same model, with a count for each terminal state between its required and optional fields."""
    counts: dict[str, Any] = {
        status.value: (int, Field(description=STATES[status].count)) for status in ENDED
    }
    own = {name: (field.annotation, field) for name, field in model.model_fields.items()}
    required = {name: one for name, one in own.items() if one[1].is_required()}
    made = create_model(
        model.__name__,
        __config__=model.model_config,
        __doc__=model.__doc__,
        __module__=model.__module__,
        **(required | counts | own),
    )
    return cast("type[M]", made)


@_with_counts
class BatchEventData(BaseModel):
    """The outcome of a batch: all its jobs have ended."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    batch_id: str = Field(description="The batch, as in `subject`.")
    total: int = Field(description="Jobs in it: the sum of the counts.")
    tenant: str | None = Field(
        default=None, description="The tenant of its first job; absent if that has none."
    )

    if TYPE_CHECKING:

        def __getattr__(self, status: str) -> int:
            """The count of a terminal state, such as `succeeded`."""


EVENT_NAMESPACE: Final = "maskq."
BATCH_COMPLETED: Final = f"{EVENT_NAMESPACE}batch.completed"


def job_event(status: JobStatus) -> str:
    """The type of the event for a job that enters this state."""
    return f"{EVENT_NAMESPACE}{event_name(status)}"


# Type of an event → the model of its `data`.
EVENT_DATA: Final[Mapping[str, type[JobEventData] | type[BatchEventData]]] = MappingProxyType(
    {job_event(status): JobEventData for status in JobStatus} | {BATCH_COMPLETED: BatchEventData}
)


class Event(BaseModel):
    """One entry of the stream. https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md"""

    model_config = ConfigDict(frozen=True, extra="allow")

    specversion: str = Field(default="1.0", description="Of CloudEvents.")
    id: str = Field(
        description="Stable across redeliveries: receivers drop what they have seen. "
        "`{subject}:{state}`, and `:{attempt}` for queued and running."
    )
    source: str = Field(description="The deployment: `maskq/{key_prefix}`.")
    type: str = Field(description="`maskq.job.succeeded`, `maskq.batch.completed`, …")
    subject: str = Field(description="The job's or batch's id.")
    time: datetime = Field(description="When the state was entered, by Redis' clock.")
    # None in events of older versions.
    timestamp: datetime | None = Field(
        default=None, description="The same as `time`, under its name in Standard Webhooks."
    )
    datacontenttype: str = Field(default="application/json", description="Of `data`.")
    traceparent: str | None = Field(
        default=None,
        description="W3C Trace Context of the submission; absent if it was not traced. Of a batch: of "
        "its first job.",
    )
    tracestate: str | None = Field(default=None, description="Goes with `traceparent`.")
    data: dict[str, Any] = Field(
        default_factory=dict, description="What happened; its fields depend on `type`."
    )
    cursor: str = Field(default="", exclude=True)  # to resume: client.events(since=cursor)

    def job(self) -> JobEventData:
        """`data` as a model. Raises ValueError if this is not an event of a job."""
        if EVENT_DATA.get(self.type) is not JobEventData:
            raise ValueError(f"{self.type!r} is not an event of a job; check `type` before job()")
        return JobEventData.model_validate(self.data)

    def batch(self) -> BatchEventData:
        """`data` as a model. Raises ValueError if this is not an event of a batch."""
        if EVENT_DATA.get(self.type) is not BatchEventData:
            raise ValueError(
                f"{self.type!r} is not an event of a batch; check `type` before batch()"
            )
        return BatchEventData.model_validate(self.data)
