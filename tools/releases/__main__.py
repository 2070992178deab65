"""Write what the present version leaves in Redis and S3: `python -m tools.releases VERSION`.

It runs a stack with one worker, submits jobs of every kind, stops the worker, and submits more. The
files go to tests/fixtures/releases/VERSION. Files of a former release are never written again.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench.checkpoints import write_smallest
from celery import Celery
from PIL import Image
from tools.releases import FIXTURES, ROOT
from tools.releases.state import dump_bucket, dump_redis, now_ms, write_json

from maskq import Client, JobNotFound
from maskq.contract.ids import new_token
from maskq.ledger import Ledger, calls
from maskq_standalone.stack import Stack

BUCKET = "maskq"
HOOK = "https://receiver.example/hook"
IMAGE = f"s3://{BUCKET}/photos/teal.png"


def main() -> int:
    (version,) = sys.argv[1:]
    directory = FIXTURES / version
    if directory.exists():
        print(f"{directory} exists: a release's files stay as they are", file=sys.stderr)
        return 1
    # So long that nothing runs out while the files are read by a person, or by a test.
    env = {"MASKQ_RETENTION_S": "2592000", "MASKQ_OUTPUT_RETENTION_S": "2592000"}
    with tempfile.TemporaryDirectory() as place:
        model = write_smallest(Path(place) / "smallest")
        with Stack(workers=1, pinned=True, model=str(model), env=env, http_api=True) as stack:
            os.environ.update(stack.environment)
            with Client.from_env(transport="direct") as client:
                Release(stack, client).write(directory, version)
    return 0


class Release:
    """A deployment of the present version, and what callers did with it."""

    def __init__(self, stack: Stack, client: Client) -> None:
        self._stack = stack
        self._client = client
        self._store = stack.s3.client()
        self._ledger = Ledger(stack.redis.url, "maskq")
        self.jobs: dict[str, str] = {}  # what a job shows → its id

    def write(self, directory: Path, version: str) -> None:
        buffer = io.BytesIO()
        Image.new("RGB", (64, 48), "teal").save(buffer, "PNG")
        self._put("photos/teal.png", buffer.getvalue())
        self._put("photos/broken.png", b"not an image")
        self._settings()
        self._ended()
        self._celery("answered")
        self._ends(self.jobs["celery answered"])
        self._stop_worker()
        self._queued()
        self._running()
        self._celery("waiting")
        upload = self._upload(buffer.getvalue())
        key = self._client.create_api_key(["submit", "read"], name="shop", tenant="acme").text
        self._read_events()
        server = self._ledger.redis
        about = {
            "version": version,
            "commit": _commit(),
            "written_ms": now_ms(server),
            "bucket": BUCKET,
            "jobs": self.jobs,
            "api_key": key,
            "upload_id": upload,
        }
        write_json(directory / "about.json", about)
        write_json(directory / "redis.json", dump_redis(server))
        write_json(directory / "bucket.json", dump_bucket(self._store, BUCKET))

    def _put(self, key: str, body: bytes) -> None:
        self._store.put_object(Bucket=BUCKET, Key=key, Body=body, ContentType="image/png")

    def _submit(self, shows: str, image: str = IMAGE, **options: Any) -> None:
        self.jobs[shows] = self._client.submit(image, **options).id

    def _settings(self) -> None:
        self._client.set_default_model("smallest")
        self._client.set_tenant("acme", weight=2, max_running=2, max_queued=50, submit_rate=600)

    def _ended(self) -> None:
        outputs = ["mask", "overlay", "stats"]
        self._submit("succeeded", outputs=outputs, metadata={"order": "7"}, webhook=HOOK)
        self._submit("succeeded of a tenant", tenant="acme", priority="high", outputs=["mask"])
        self._submit("failed", f"s3://{BUCKET}/photos/broken.png", tenant="acme")
        batch = self._client.submit_many([IMAGE, IMAGE], batch_webhook=HOOK)
        self.jobs["batch"] = batch.id
        for shows in ("succeeded", "succeeded of a tenant", "failed"):
            self._ends(self.jobs[shows])
        for job in batch.jobs:
            self._ends(job.id)
        self.jobs["in a batch"] = batch.jobs[0].id

    def _ends(self, job_id: str) -> None:
        end = time.monotonic() + 60
        while not self._has_ended(job_id):
            if time.monotonic() > end:
                raise SystemExit(f"job {job_id} did not end within a minute")
            time.sleep(0.1)

    def _has_ended(self, job_id: str) -> bool:
        with suppress(JobNotFound):  # a Celery caller's job, which a worker has yet to submit
            record = self._client.get(job_id).record
            return record is not None and record.ended
        return False

    def _stop_worker(self) -> None:
        (worker,) = self._stack.workers
        worker.terminate()
        worker.child.wait_ended(60)

    def _queued(self) -> None:
        self._submit("queued", webhook=HOOK, idempotency_key="order-1")
        self._submit("queued of a tenant", tenant="acme", priority="low")
        self._submit("queued high", priority="high")
        self._submit("to cancel")
        self._submit("canceled")
        self._client.get(self.jobs["canceled"]).cancel()
        batch = self._client.submit_many([IMAGE, IMAGE, IMAGE])
        self.jobs["queued batch"], self.jobs["queued in a batch"] = batch.id, batch.jobs[0].id

    def _running(self) -> None:
        """Jobs of a worker that dies, one of them after its commit."""
        for shows in ("running", "committed"):
            self._submit(shows)
            token = new_token()
            job_id = self.jobs[shows]
            call = calls.claim("smallest", token, owner="gone:1", lease_s=15, job_id=job_id)
            self._ledger.run(call)
        self._commit_as(self.jobs["committed"], token)

    def _commit_as(self, job_id: str, token: str) -> None:
        """Store the outputs and the manifest of a job that has succeeded as those of another one."""
        like = self._client.get(self.jobs["in a batch"]).refresh()
        record = self._client.get(job_id).refresh()
        result = like.result
        if result is None:
            raise SystemExit(f"job {like.id} has no result")
        manifest = f"maskq/{like.id}/result.json"
        text = self._store.get_object(Bucket=BUCKET, Key=manifest)["Body"].read().decode()
        for uri in result.outputs.values():
            at = uri.removeprefix(f"s3://{BUCKET}/")
            body = self._store.get_object(Bucket=BUCKET, Key=at)["Body"].read()
            name = f"maskq/{job_id}/{token}/{Path(at).name}"
            self._put(name, body)
            text = text.replace(uri, f"s3://{BUCKET}/{name}")
        text = text.replace(like.id, job_id).replace(str(like.created_ms), str(record.created_ms))
        self._store.put_object(
            Bucket=BUCKET,
            Key=f"maskq/{job_id}/result.json",
            Body=text.encode(),
            ContentType="application/json",
        )

    def _celery(self, shows: str) -> None:
        with Celery("shop", broker=self._stack.redis.url, backend=self._stack.redis.url) as app:
            sent = app.send_task("maskq.segment", args=[{"image_uri": IMAGE}], queue="maskq")
            self.jobs[f"celery {shows}"] = sent.id

    def _upload(self, body: bytes) -> str:
        import httpx2

        headers = {"Authorization": f"Bearer {os.environ['MASKQ_API_KEY']}"}
        url = f"{os.environ['MASKQ_GATEWAY_URL']}/v1/uploads"
        begun = httpx2.post(
            url, json={"bytes": len(body), "tenant": "acme"}, headers=headers
        ).json()
        httpx2.put(begun["url"], content=body).raise_for_status()
        return str(begun["upload_id"])

    def _read_events(self) -> None:
        """A group has confirmed two events and holds a third."""
        for number, _ in enumerate(self._client.events(since="0", group="billing", idle=1)):
            if number == 2:
                return


def _commit() -> str:
    command = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
