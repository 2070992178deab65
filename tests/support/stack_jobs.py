"""Jobs on a whole stack: their images, who runs them, and what they leave in the store."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image
from support.waiting import until

from maskq import Job, JobRecord, JobStatus


def jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG")
    return buffer.getvalue()


def wait_until_running(job: Job, *, within_s: float = 30.0) -> int:
    """The process id of the worker that has it."""
    until(lambda: job.refresh().status is JobStatus.RUNNING, within_s=within_s, every_s=0.01)
    assert job.record
    return pid_of(job.record)


def pid_of(record: JobRecord) -> int:
    assert record.owner
    return int(record.owner.rpartition(":")[2])


def names_of(store: Any, job: Job) -> list[str]:
    """Of the objects in the job's folder."""
    listed = store.list_objects_v2(Bucket="maskq", Prefix=f"maskq/{job.id}/").get("Contents", [])
    return sorted(entry["Key"].rpartition("/")[2] for entry in listed)
