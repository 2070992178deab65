"""A ledger on a Redis of its own, filled to a size, without workers that run."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from maskq.contract import JobResult, SegmentRequest
from maskq.contract.ids import new_id, new_token
from maskq.contract.models import ServingWorker
from maskq.ledger import Ledger, calls
from maskq.ledger.calls import models, submission
from maskq.ledger.calls.queueing import tenants
from maskq_standalone.servers.redis import RedisServer, find

PREFIX: Final = "maskq"
LEASE_S: Final = 3600.0  # of the jobs that fill the ledger: no sweep takes them
CHUNK: Final = 500  # calls in one round trip
WORKER: Final = ServingWorker(
    owner="gpu-0000:1",
    model="",
    revision="sha256:" + "5" * 64,
    labels=150,
    labels_digest="0123456789abcdef",
    backend="native",
    device="NVIDIA H200",
    dtype="float16",
    since_ms=1_790_000_000_000,
    version="0.2.0",
    max_batch_size=32,
    concurrency=64,
)


@dataclass(frozen=True, slots=True)
class Size:
    """What a deployment holds."""

    queued: int = 0
    running: int = 0
    workers: int = 1  # of the first model
    tenants: int = 0
    models: int = 1

    @property
    def names(self) -> list[str]:
        """Of the models."""
        return [f"model-{number:03d}" for number in range(self.models)]

    def tenant(self, number: int) -> str | None:
        """The tenant of a job, by turns."""
        return f"tenant-{number % self.tenants:04d}" if self.tenants else None

    def model(self, number: int) -> str:
        """The model of a job: every tenant comes to have jobs of every model."""
        return self.names[number // max(self.tenants, 1) % self.models]


@contextmanager
def server() -> Iterator[RedisServer]:
    """A Redis whose data are in memory and in an append-only file, as in production."""
    with tempfile.TemporaryDirectory() as folder:
        one = RedisServer(Path(folder), password=secrets.token_urlsafe(), binary=find(pinned=True))
        one.start()
        try:
            yield one
        finally:
            one.stop()


@contextmanager
def filled(size: Size) -> Iterator[Ledger]:
    """The ledger of such a deployment."""
    with server() as one:
        ledger = Ledger(one.url, PREFIX)
        try:
            fill(ledger, size)
            yield ledger
        finally:
            ledger.close()


def fill(ledger: Ledger, size: Size) -> None:
    register_workers(ledger, size)
    for number in range(size.tenants):
        ledger.run(tenants.change(f"tenant-{number:04d}", {"weight": 1 + number % 4}))
    in_chunks(ledger, [submission_of(size, number) for number in range(size.running)])
    share = -(-size.running // size.models)
    in_chunks(ledger, [claim(name) for name in size.names for _ in range(share)])
    in_chunks(ledger, [submission_of(size, number) for number in range(size.queued)])


def register_workers(ledger: Ledger, size: Size) -> None:
    """Every worker of the first model, and one of each other model."""
    in_chunks(ledger, [models.register(worker(size, number)) for number in range(size.workers)])
    in_chunks(ledger, [models.register(other(name)) for name in size.names[1:]])


def worker(size: Size, number: int) -> ServingWorker:
    return WORKER.model_copy(
        update={"model": size.names[0], "owner": f"gpu-{number:04d}.example.internal:1"}
    )


def other(model: str) -> ServingWorker:
    return WORKER.model_copy(update={"model": model})


def submission_of(size: Size, number: int) -> calls.Call[Any]:
    return submit(size.model(number), size.tenant(number))


def submit(model: str, tenant: str | None = None, webhook: str | None = None) -> calls.Call[Any]:
    """A job as a backend submits it: an image in S3, some metadata."""
    job_id = new_id()
    request = SegmentRequest(
        image_uri=f"s3://photos/2026/{job_id}.jpg",
        metadata={"order": "12345"},
        model=model,
        tenant=tenant,
        webhook=webhook,
    )
    return submission.submit(job_id, request, submission.Limits(max_queued=0))


def claim(model: str, *, with_ticket: bool = False) -> calls.Call[calls.Claimed]:
    return calls.claim(
        model, new_token(), owner=WORKER.owner, lease_s=LEASE_S, with_ticket=with_ticket
    )


def result(job_id: str, model: str) -> JobResult:
    """Of a mask with eight classes."""
    names = ("sky", "building", "tree", "road", "grass", "person", "car", "water")
    return JobResult.model_validate(
        {
            "width": 640,
            "height": 480,
            "model": model,
            "model_revision": WORKER.revision,
            "outputs": {"mask": f"s3://maskq/maskq/{job_id}/{new_token()}/mask.png"},
            "labels": dict(enumerate(names)),
            "source_etag": '"0123456789abcdef0123456789abcdef"',
            "timings_ms": dict.fromkeys(
                ("fetch", "decode", "prepare", "model", "encode", "store"), 12.34
            ),
        }
    )


def in_chunks(ledger: Ledger, each: Sequence[calls.Call[Any]]) -> list[Any]:
    """The answers of calls that are sent some hundred in a round trip."""
    return [
        answer
        for first in range(0, len(each), CHUNK)
        for answer in ledger.run_many(each[first : first + CHUNK])
    ]
