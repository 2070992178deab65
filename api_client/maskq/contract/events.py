"""Events: CloudEvents 1.0.2 in structured JSON, one per state a job or batch enters.

The ledger writes each in the transaction that makes the state true. Delivery is at least once
with a stable `id` (`{subject}:{state}`, and `:{attempt}` for states that can come again).
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Event(BaseModel):
    """One entry of the stream. https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md"""

    model_config = ConfigDict(frozen=True, extra="allow")

    specversion: str = "1.0"
    id: str  # stable across redeliveries: receivers drop what they have seen
    source: str  # the deployment: `maskq/{key_prefix}`
    type: str  # `maskq.job.succeeded`, `maskq.batch.completed`, …
    subject: str  # the job's or batch's id
    time: datetime  # when the state was entered, by Redis' clock
    datacontenttype: str = "application/json"
    data: dict[str, Any] = Field(default_factory=dict)
    cursor: str = Field(default="", exclude=True)  # where to go on: client.events(since=cursor)
