"""A bucket that never answers holds up its own jobs only."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image
from support.s3_front import Rule, S3Front

from maskq import Client, JobStatus
from maskq_standalone.stack import Stack

IMAGE = Image.new("RGB", (64, 48), "teal")
WAIT_S = 12.0  # less than the 20 s after which the request for the silent bucket fails


def test_another_tenant_s_job_runs_while_the_only_thread_waits_for_a_silent_bucket(
    smallest_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Stack(workers=0, model=str(smallest_model)) as stack, S3Front(stack.s3.port) as front:
        for name, value in stack.environment.items():
            monkeypatch.setenv(name, value)
        buffer = io.BytesIO()
        IMAGE.save(buffer, "PNG")
        store = stack.s3.client()
        store.create_bucket(Bucket="photos")
        store.put_object(Bucket="photos", Key="photo.png", Body=buffer.getvalue())
        front.rules = [Rule("/photos/", do="hang")]
        # Given a worker whose only job thread waits for a bucket that does not answer
        stack.start_worker({"MASKQ_S3_ENDPOINT_URL": front.url, "MASKQ_CONCURRENCY": "1"})
        with Client.from_env() as client:
            stuck = client.submit("s3://photos/photo.png", tenant="silent")
            good = client.submit(IMAGE, tenant="good")
            # When another tenant's job is next, then it runs all the same
            good.wait(timeout=WAIT_S)
            record = stuck.refresh()
            assert (record.status, record.attempt) == (JobStatus.RUNNING, 1)
            # And the first one goes on when its bucket answers, uncharged
            front.rules = []
            front.released.set()
            stuck.wait(timeout=60)
            done = stuck.refresh()
            assert (done.status, done.charges) == (JobStatus.SUCCEEDED, 0)
