"""A Celery application as people write them: a client made, and used, at import."""

from __future__ import annotations

import os

from celery import Celery

from maskq import Client, JobFailed
from maskq.contract.locations import S3Uri

client = Client.from_env()
client.list(limit=1)
URL = client.settings.redis_url.get_secret_value()
app = Celery("prefork", broker=URL, backend=URL)
app.conf.task_default_queue = f"{client.key_prefix}-prefork"
app.conf.worker_enable_remote_control = False


@app.task
def process(name: str) -> list[object]:
    """Its process, the bytes it stored and read back, and the metadata of its own job."""
    place = S3Uri(client.settings.s3_bucket, client.settings.output_prefix) / name
    client.objects.put(place, name.encode() * 1000, "text/plain")
    body = client.objects.get(place).decode()
    job = client.submit(str(place), metadata={"name": name})
    job.cancel()
    try:
        job.wait(timeout=10)
    except JobFailed as error:
        return [os.getpid(), body == name * 1000, error.record.request.metadata["name"]]
    return []
