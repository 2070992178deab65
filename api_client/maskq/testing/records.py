"""Records, results and events in one line, for the tests of code that handles them."""

from __future__ import annotations

import io
import time
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from maskq.client.results.result import Result
from maskq.contract import Event, FailureCode, JobFailure, JobRecord, JobStatus, Output
from maskq.contract.ids import new_id
from maskq.contract.statuses import STATES
from maskq.testing.clients import FakeClient
from maskq.testing.deployment.stream import job_event
from maskq.testing.service import LABELS, MODEL, FakeService

if TYPE_CHECKING:
    import PIL.Image


def make_result(
    mask: PIL.Image.Image | None = None,
    *,
    size: tuple[int, int] = (64, 48),
    labels: Sequence[str] = LABELS,
    outputs: Collection[Output | str] = ("mask", "stats"),
) -> Result:
    """A result whose outputs can be read. `mask`: mode L or P, pixel = class id; default: a drawn one.

    `size`: width and height without a mask. `labels`: the model's classes.
    """
    from PIL import Image

    client = FakeClient(FakeService(labels=labels))
    client.fake.set_mask(mask)
    photo = Image.new("RGB", mask.size if mask else size, "gray")
    return client.segment(photo, outputs=frozenset(map(Output, outputs)))


def make_record(status: JobStatus | str = JobStatus.SUCCEEDED, **fields: Any) -> JobRecord:
    """A record in this status, with a result or an error if it has ended so.

    `fields`: of JobRecord, and `image_uri`: `make_record("failed", tenant="acme")`.
    """
    status, now_ms = JobStatus(status), time.time_ns() // 10**6
    request = {"image_uri": fields.pop("image_uri", "s3://photos/1.jpg")}
    known: dict[str, Any] = {
        "id": new_id(),
        "status": status,
        "model": MODEL,
        "priority": "normal",
        "request": request,
        "max_attempts": 3,
        "created_ms": now_ms,
    }
    if status is not JobStatus.QUEUED:
        known |= {"attempt": 1, "started_ms": now_ms}
    if STATES[status].is_terminal:
        known["ended_ms"] = now_ms
    if STATES[status].has_result:
        known["result"] = make_result().details
    elif STATES[status].is_terminal:
        code = FailureCode.INTERNAL if status is JobStatus.FAILED else FailureCode(status.value)
        known["error"] = JobFailure(code=code, message=f"the job is {status.value}, in a test")
    return JobRecord.model_validate(known | fields)


def make_event(record: JobRecord | JobStatus | str = JobStatus.SUCCEEDED) -> Event:
    """The event of a job that enters the status of its record, or this status."""
    if not isinstance(record, JobRecord):
        record = make_record(record)
    return job_event(record, record.ended_ms or record.started_ms or record.created_ms)


def image_bytes(size: tuple[int, int] = (64, 48), *, colour: str = "teal") -> bytes:
    """A PNG of one colour, to submit."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def damaged_image_bytes() -> bytes:
    """A file that clients accept and no worker can read: the first bytes of a PNG, and no more."""
    return image_bytes()[:24]
