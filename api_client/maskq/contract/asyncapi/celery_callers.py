"""What programs that have Celery, but not this package, send and get."""

from __future__ import annotations

from typing import Final

from pydantic import Field

from maskq.contract.asyncapi.refs import Json
from maskq.contract.jobs import JobResult
from maskq.contract.tracing import TRACE_CONTEXT

TASK: Final = "maskq.segment"
MAX_TASK_ID: Final = 255  # characters


class SegmentAnswer(JobResult):
    """What a raw Celery caller's `.get()` returns."""

    job_id: str = Field(description="The job: Celery's task id if that is a UUID in lower case.")


HEADERS: Final[Json] = {
    "type": "object",
    "description": "The headers of Celery that maskq reads.",
    "properties": {
        "task": {"type": "string", "const": TASK},
        "id": {
            "type": "string",
            "minLength": 1,
            "maxLength": MAX_TASK_ID,
            "description": "Becomes the job's id if it is a UUID in lower case, else its alias.",
        },
        **{
            name: {"type": "string", "description": "W3C Trace Context of the caller."}
            for name in TRACE_CONTEXT
        },
    },
    "required": ["task", "id"],
}
