"""A caller's day: submit in every way, wait, read every output."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from demo_scenes.scenes import draw
from PIL import Image
from support.stack_jobs import jpeg, names_of, stopped_mid_run
from support.waiting import until

from maskq import (
    AsyncClient,
    Client,
    IdempotencyConflict,
    JobNotFound,
    JobStatus,
    Result,
    WaitTimeout,
)

if TYPE_CHECKING:
    from maskq_standalone.stack import Stack


@pytest.fixture(scope="module")
def scene() -> Image.Image:
    return draw(4242, size=(320, 240)).image


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("source", ["path", "bytes", "pil"])
def test_an_image_is_taken_from_wherever_it_is(
    source: str, either_client: Client, scene: Image.Image, tmp_path: Path
) -> None:
    # Given the same scene in one of three places
    image: Path | bytes | Image.Image
    match source:
        case "path":
            image = tmp_path / "scene.png"
            image.write_bytes(png(scene))
        case "bytes":
            image = png(scene)
        case _:
            image = scene

    # When it is submitted and waited for, its mask is right
    check_mask(either_client.submit(image).wait(timeout=60), scene)


def test_an_image_in_s3_is_read_there(
    either_client: Client, stack: Stack, scene: Image.Image
) -> None:
    key = "tests/a photo with späces.png"
    stack.s3.client().put_object(Bucket="maskq", Key=key, Body=png(scene))
    check_mask(either_client.submit(f"s3://maskq/{key}").wait(timeout=60), scene)


def check_mask(result: Result, scene: Image.Image) -> None:
    """At the image's own size, an index image of known classes."""
    mask = result.mask()
    assert mask.mode == "P"
    assert mask.size == scene.size == result.size
    present = set(np.unique(np.asarray(mask)).tolist())
    assert present == set(result.labels)
    assert len(present) > 2
    assert "sky" in result.labels.values()


def test_every_output_that_was_asked_for_can_be_read(
    either_client: Client, scene: Image.Image
) -> None:
    result = either_client.segment(
        scene, outputs={"mask", "overlay", "stats", "logits"}, timeout=60
    )

    assert result.overlay().size == scene.size
    logits = result.logits()
    assert logits.dtype == np.float32
    assert logits.shape[0] == 150
    assert sum(entry.pixels for entry in result.stats) == scene.width * scene.height
    assert json.loads(result.read("stats"))
    counts = np.bincount(np.asarray(result.mask()).ravel(), minlength=150)
    assert {entry.id: entry.pixels for entry in result.stats} == {
        int(i): int(counts[i]) for i in np.flatnonzero(counts)
    }


def test_different_images_give_different_masks(either_client: Client) -> None:
    first, second = (draw(seed, size=(320, 240)).image for seed in (7001, 7002))
    masks = [
        np.asarray(either_client.segment(image, timeout=60).mask()) for image in (first, second)
    ]
    assert (masks[0] != masks[1]).mean() > 0.05


def test_a_batch_gives_its_jobs_as_they_end_and_one_event(
    either_client: Client, scene: Image.Image
) -> None:
    # Given a place in the stream
    since = next(iter(either_client.events(since="0", idle=1))).cursor

    # When a batch is submitted
    batch = either_client.submit_many([scene] * 5, metadata={"album": "holiday"})
    ended = list(batch.as_completed(timeout=60))

    # Then each job comes once, and the batch's one event tells the sum
    assert sorted(job.id for job in ended) == sorted(job.id for job in batch.jobs)
    assert all(job.status is JobStatus.SUCCEEDED for job in ended)
    events = list(either_client.events(since=since, idle=1))
    completed = [e for e in events if e.type == "maskq.batch.completed" and e.subject == batch.id]
    assert [e.data["succeeded"] for e in completed] == [5]
    of_jobs = [
        e for e in events if e.type == "maskq.job.succeeded" and e.data["batch_id"] == batch.id
    ]
    assert sorted(e.subject for e in of_jobs) == sorted(job.id for job in batch.jobs)
    assert {e.data["metadata"]["album"] for e in of_jobs} == {"holiday"}


def test_the_same_idempotency_key_gives_the_same_job(
    either_client: Client, scene: Image.Image
) -> None:
    first = either_client.submit(scene, idempotency_key="order-17")
    again = either_client.submit(scene, idempotency_key="order-17")
    assert again.id == first.id
    with pytest.raises(IdempotencyConflict, match="order-17"):
        either_client.submit(scene, idempotency_key="order-17", outputs={"stats"})


def test_an_unknown_id_is_an_error(either_client: Client) -> None:
    with pytest.raises(JobNotFound):
        either_client.get("01890000-0000-7000-8000-000000000000")


def test_a_wait_that_is_too_short_says_so_and_leaves_the_job(
    either_client: Client, scene: Image.Image
) -> None:
    job = either_client.submit(scene.resize((2400, 1800)))
    with pytest.raises(WaitTimeout, match="still"):
        job.wait(timeout=0.01)
    assert job.wait(timeout=60).size == (2400, 1800)


def test_the_async_client_does_the_same(either_client: Client, scene: Image.Image) -> None:
    async def many() -> tuple[list[tuple[int, int]], int]:
        async with AsyncClient.from_env() as awaited:
            jobs = await asyncio.gather(*(awaited.submit(scene) for _ in range(4)))
            results = await asyncio.gather(*(job.wait(timeout=60) for job in jobs))
            masks = await asyncio.gather(*(result.mask() for result in results))
            batch = await awaited.submit_many([scene] * 3)
            ended = [job async for job in batch.as_completed(timeout=60)]
            with pytest.raises(JobNotFound):
                await awaited.get("nobody")
            return [mask.size for mask in masks], len(ended)

    assert asyncio.run(many()) == ([scene.size] * 4, 3)


def test_list_pages_through_the_newest_first(either_client: Client, scene: Image.Image) -> None:
    ids = [either_client.submit(scene).id for _ in range(5)]
    page = either_client.list(limit=2)
    found = [record.id for record in page.records]
    while page.cursor and len(found) < 5:
        page = either_client.list(limit=2, cursor=page.cursor)
        found += [record.id for record in page.records]
    assert found[:5] == ids[::-1]
    for job_id in ids:
        either_client.get(job_id).wait(timeout=60)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's batch policy is Linux's")
def test_a_worker_on_a_cpu_lets_others_go_first(
    client: Client, stack: Stack, scene: Image.Image
) -> None:
    # When it has run a job
    client.submit(scene).wait(timeout=60)

    # Then its threads are scheduled as ones that compute, but for the one that watches its parent
    threads = Path(f"/proc/{stack.workers[0].pid}/task").iterdir()
    policies = [os.sched_getscheduler(int(thread.name)) for thread in threads]
    assert policies.count(os.SCHED_BATCH) == len(policies) - 1
    assert len(policies) > 5


def test_a_canceled_job_leaves_nothing_behind(
    client: Client, stack: Stack, scene: Image.Image
) -> None:
    # Given a running job
    large = jpeg(scene.resize((4800, 3600)))
    job, holder = stopped_mid_run(lambda: client.submit(large))

    # When it is canceled
    try:
        assert job.cancel() is True
    finally:
        os.kill(holder, signal.SIGCONT)

    # Then its record says so for good, the worker goes on, and no result is in the store
    after = client.submit(scene)
    after.wait(timeout=60)
    assert job.refresh().status is JobStatus.CANCELED

    store = stack.s3.client()
    until(
        lambda: names_of(store, job) == ["input"],
        within_s=15,
        otherwise=lambda: names_of(store, job),
    )
