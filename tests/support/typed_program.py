"""A program that uses the whole public surface of the client. Type checkers read it; nobody runs it."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Unpack, assert_type

import numpy as np
import numpy.typing as npt
from PIL import Image

from maskq import (
    AsyncBatch,
    AsyncClient,
    AsyncJob,
    AsyncResult,
    Batch,
    BatchProgress,
    Client,
    Event,
    FailureCode,
    IdempotencyConflict,
    ImageSource,
    InvalidRequest,
    Job,
    JobFailed,
    JobRecord,
    JobStatus,
    MaskqError,
    Mode,
    Options,
    Output,
    Page,
    Priority,
    QueueFull,
    Result,
    ServedModel,
    Submission,
    WaitTimeout,
)
from maskq.contract.deployment.overview import Overview
from maskq.contract.deployment.workers import WorkerState
from maskq.contract.queueing.waiting import Waiting


def clients(session: Any) -> Iterator[Client]:
    yield Client()
    yield Client("https://maskq.example", api_key="key")
    yield Client(redis_url="redis://127.0.0.1:6379/0")
    yield Client(redis_url="redis://127.0.0.1:6379/0", s3=session)
    yield Client.from_env(transport="direct", s3=session.client("s3"), s3_bucket="photos")


def images() -> Iterator[ImageSource]:
    yield "photo.jpg"
    yield Path("photo.jpg")
    yield b"bytes"
    yield io.BytesIO(b"bytes")
    yield Image.new("RGB", (60, 40))
    yield np.zeros((40, 60, 3), np.uint8)
    with Path("photo.jpg").open("rb") as file:
        yield file


def with_options(client: Client, image: ImageSource, **options: Unpack[Options]) -> Result:
    return client.segment(image, timeout=5, idempotency_key="a", durable=True, **options)


def three_lines() -> None:
    with Client() as client:
        client.segment("photo.jpg").save("masks")


def submit(client: Client) -> Job:
    job = client.submit(
        "photo.jpg",
        outputs={"mask", "overlay"},
        mode="tiled",
        priority="high",
        classes=["sky"],
        metadata={"a": "b"},
        queue_ttl=60,
    )
    assert_type(job, Job)
    again = client.submit(b"", outputs=[Output.MASK], mode=Mode.WHOLE, priority=Priority.LOW)
    assert_type(again.status, JobStatus)
    assert_type(again.record, JobRecord | None)
    assert_type(again.done(), bool)
    assert_type(again.cancel(), bool)
    assert_type(again.wait(timeout=None), Result)
    assert_type(again.refresh(), JobRecord)
    again.delete()
    assert_type(again.result(), Result)
    assert_type(client.get(job.id), Job)
    assert_type(client.retry(job.id), Job)
    assert_type(with_options(client, "photo.jpg", outputs={"stats"}, mode="aspect"), Result)
    return job


def read(result: Result) -> None:
    assert_type(result.mask(), Image.Image)
    assert_type(result.overlay(), Image.Image)
    assert_type(result.confidence(), Image.Image)
    assert_type(result.uncertain(), Image.Image)
    assert_type(result.binary("sky"), Image.Image)
    assert_type(result.rle(), dict[str, Any])
    scores: npt.NDArray[np.float32] = result.logits()
    assert_type(scores.shape, tuple[Any, ...])
    assert_type(result.read("mask"), bytes)
    assert_type(result.read(Output.BINARY, 12), bytes)
    assert_type(result.uri("mask"), str)
    assert_type(result.save("masks", name="photo", overwrite=True), list[Path])
    assert_type(result.size, tuple[int, int])
    assert_type(result.labels, dict[int, str])
    for entry in result.stats:
        assert_type(entry.share, float)


def batches(client: Client) -> None:
    batch = client.submit_many(images(), batch_webhook="https://a.example", outputs={"mask"})
    assert_type(batch, Batch)
    assert_type(batch.progress(), BatchProgress)
    assert_type(batch.wait(60, on_progress=told), BatchProgress)
    assert_type(batch.results(), list[Result])
    assert_type(batch.cancel(), int)
    for job in batch:
        assert_type(job, Job)
    for job in batch.as_completed(timeout=5):
        assert_type(job, Job)
    for submission in client.submit_each(images(), run_id="may", outputs={"mask"}):
        assert_type(submission, Submission[Job])
        assert_type(submission.error, MaskqError | None)
    assert_type(client.batch("may", [job.id for job in batch]), Batch)


def told(progress: BatchProgress) -> None:
    assert_type((progress.finished, progress.total), tuple[int, int])
    assert_type(progress.counts, dict[JobStatus, int])


def queries(client: Client) -> None:
    page = client.list(status="failed", code=FailureCode.TIMEOUT, ended_since=datetime.now())
    assert_type(page, Page)
    for record in page:
        assert_type(record, JobRecord)
    for record in client.list_all(tenant="acme"):
        assert_type(record, JobRecord)
    for model in client.models():
        assert_type(model, ServedModel)
        assert_type((model.labels, model.palette), tuple[tuple[str, ...], tuple[str, ...]])
    assert_type(client.default_model().name, str | None)
    for delivery in client.deliveries(state="failed"):
        client.redeliver(delivery.id)
    assert_type(client.delete_event_group("shop"), bool)
    assert_type(client.why("job"), Waiting)
    assert_type(client.workers(), Sequence[WorkerState])
    assert_type(client.overview(), Overview)
    client.delete("job")
    client.close()
    for event in client.events("0", types=["job.succeeded"], idle=1):
        assert_type(event, Event)


def errors(client: Client) -> None:
    try:
        client.segment("photo.jpg")
    except JobFailed as error:
        assert_type(error.code, FailureCode)
        assert_type(error.record, JobRecord)
    except (InvalidRequest, QueueFull, IdempotencyConflict, WaitTimeout) as error:
        assert_type(error.code, FailureCode)


async def awaited() -> AsyncIterator[AsyncResult]:
    async with AsyncClient("https://maskq.example", api_key="key") as client:
        job = await client.submit("photo.jpg", outputs={"mask"}, mode="whole")
        assert_type(job, AsyncJob)
        result = await job.wait()
        assert_type(result, AsyncResult)
        assert_type(await result.mask(), Image.Image)
        assert_type(await result.save("masks"), list[Path])
        assert_type(await client.segment("photo.jpg", priority="low"), AsyncResult)
        batch = await client.submit_many(images())
        assert_type(batch, AsyncBatch)
        assert_type(await batch.results(on_progress=told), list[AsyncResult])
        for one in batch:
            assert_type(one, AsyncJob)
        async for one in batch.as_completed():
            assert_type(one, AsyncJob)
        async for record in client.list_all():
            assert_type(record, JobRecord)
        async for submission in client.submit_each(images()):
            assert_type(submission, Submission[AsyncJob])
        yield result


def mistakes(client: Client, result: Result) -> None:
    """Each line is an error of type checkers; an ignore that is not needed is an error, too."""
    client.submit("photo.jpg", outputs={"masks"})  # type: ignore
    client.submit("photo.jpg", outputs="mask")  # type: ignore
    client.submit("photo.jpg", mode="wide")  # type: ignore
    client.segment("photo.jpg", priority="urgent")  # type: ignore
    client.segment("photo.jpg", otuputs={"mask"})  # type: ignore
    client.submit(7)  # type: ignore
    client.submit(io.StringIO())  # type: ignore
    result.read("masks")  # type: ignore
    Client(redis="redis://")  # type: ignore
