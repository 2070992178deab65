"""Jobs on a whole stack: their images, who runs them, and what they leave in the store."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Callable
from typing import Any

from PIL import Image
from support.waiting import until

from maskq import Job, JobRecord, JobStatus


def jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG")
    return buffer.getvalue()


def stopped_mid_run(submit: Callable[[], Job]) -> tuple[Job, int]:
    """A job that runs, and the process id of its worker, which stands still until it gets SIGCONT.

    A job that ended before its worker could be stopped is submitted again.
    """

    def stopped() -> tuple[Job, int] | None:
        job = submit()
        until(lambda: job.refresh().status is not JobStatus.QUEUED, every_s=0.01)
        if not is_running(job):
            return None
        assert job.record
        pid = pid_of(job.record)
        os.kill(pid, signal.SIGSTOP)
        if is_running(job):
            return job, pid
        os.kill(pid, signal.SIGCONT)
        return None

    return until(stopped)


def is_running(job: Job) -> bool:
    return job.refresh().status is JobStatus.RUNNING


def pid_of(record: JobRecord) -> int:
    assert record.owner
    return int(record.owner.rpartition(":")[2])


def names_of(store: Any, job: Job) -> list[str]:
    """Of the objects in the job's folder."""
    listed = store.list_objects_v2(Bucket="maskq", Prefix=f"maskq/{job.id}/").get("Contents", [])
    return sorted(entry["Key"].rpartition("/")[2] for entry in listed)
