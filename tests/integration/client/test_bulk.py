"""Many images by the client: each with its job or its error, also over and over."""

from __future__ import annotations

import asyncio
import io
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.damaged import damaged

from maskq import (
    AsyncClient,
    Client,
    IdempotencyConflict,
    InvalidRequest,
    JobStatus,
    QueueFull,
    StoreUnavailable,
    UnknownModel,
)
from maskq.contract.locations import S3Uri
from maskq.ledger import calls
from maskq.process.stop_signal import StopSignal
from maskq.settings import Settings
from maskq_standalone.servers.redis import RedisServer, find

if TYPE_CHECKING:
    pass
from support import bulk
from support.bulk import Service, objects_of, places

service = bulk.service

# --- the client -------------------------------------------------------------------------------------


def test_each_image_comes_back_with_its_job_or_its_error(service: Service, tmp_path: Path) -> None:
    (tmp_path / "good.png").write_bytes(damaged("an image"))
    missing = tmp_path / "missing.png"
    images: list[Any] = ["s3://photos/a.jpg", "s3://Photos/b.jpg", missing, damaged("bytes"), 5]
    images += [tmp_path / "good.png", io.BytesIO(damaged("file")), io.BytesIO(b"no image")]

    came = {id(image): (job, error) for image, job, error in service.client.submit_each(images)}

    jobs = [came[id(image)][0] for image in images]
    errors = [came[id(image)][1] for image in images]
    assert [bool(job) for job in jobs] == [True, False, False, True, False, True, True, False]
    assert [type(error).__name__ for error in errors[1:3]] == ["InvalidRequest"] * 2
    assert "cannot read" in str(errors[2])
    assert "is not an image" in str(errors[7])
    for job, text in ((jobs[5], "an image"), (jobs[6], "file")):
        uploaded = S3Uri.parse(job.refresh().request.image_uri)
        assert service.direct.objects.get(uploaded) == damaged(text)


@pytest.mark.parametrize("run_id", [None, "may"])
def test_a_file_object_is_read_once(service: Service, run_id: str | None) -> None:
    files = [io.BytesIO(damaged(str(number))) for number in range(3)]
    submissions = list(service.client.submit_each(files, run_id=run_id))
    assert [one.image for one in submissions] == files
    for number, one in enumerate(submissions):
        assert one.job
        uploaded = S3Uri.parse(one.job.refresh().request.image_uri)
        assert service.direct.objects.get(uploaded) == damaged(str(number))


def test_images_are_taken_as_they_are_needed(service: Service) -> None:
    taken: list[str] = []

    def source() -> Iterator[str]:
        for place in places(1000):
            taken.append(place)
            yield place

    each = service.client.submit_each(source(), chunk=10)
    assert next(each).job is not None
    assert len(taken) == 10
    assert len(list(each)) == 999
    assert service.images() == Counter(places(1000))


def test_under_one_run_id_an_image_is_submitted_once(service: Service, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(damaged("an image"))
    images: list[Any] = [
        *places(3),
        path,
        damaged("bytes"),
        "https://host/x?id=1",
        "https://host/x?id=2",
    ]

    def ids() -> dict[Any, str | None]:
        each = service.client.submit_each(images, run_id="may", priority="low")
        return {image: job and job.id for image, job, _ in each}

    first, before = ids(), objects_of(service)
    assert len({*first.values()} - {None}) == len(images)
    assert ids() == first
    assert objects_of(service) == before, "what is there was not uploaded again"

    # What was changed meanwhile is another image, and said to be.
    path.write_bytes(damaged("another image"))
    (changed,) = service.client.submit_each([path], run_id="may", priority="low")
    assert isinstance(changed.error, IdempotencyConflict)
    assert objects_of(service) == before
    (other,) = service.client.submit_each(places(1), run_id="may", priority="high")
    assert isinstance(other.error, IdempotencyConflict)
    with pytest.raises(InvalidRequest, match="run_id is empty"):
        list(service.client.submit_each(places(1), run_id=""))


def test_a_run_is_waited_for_by_its_name(service: Service) -> None:
    ids = [one.job.id for one in service.client.submit_each(places(30), run_id="r") if one.job]
    batch = service.client.batch("r", [*ids, ids[0]])
    assert len(batch) == 30
    service.work(10, fail="00003")
    first = list(islice(batch.as_completed(timeout=60), 10))
    assert {job.status for job in first} == {JobStatus.SUCCEEDED, JobStatus.FAILED}
    service.work()
    assert {job.id for job in batch.as_completed(timeout=60)} == set(ids)
    listed = service.client.list(batch_id="r", limit=100)
    assert {record.id for record in listed.records} == set(ids)


def test_jobs_of_one_millisecond_run_in_the_order_of_submission(service: Service) -> None:
    images = places(300)
    assert all(one.job for one in service.client.submit_each(images))
    assert service.work() == images


def test_the_async_client_submits_the_same(service: Service, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(damaged("an image"))

    async def main() -> list[tuple[Any, str | None]]:
        async with AsyncClient.from_env() as client:
            each = client.submit_each([*places(20), path, "s3://"], run_id="r", chunk=7)
            came = [(image, job and job.id) async for image, job, _ in each]
            service.work()
            batch = client.batch("r", [job_id for _, job_id in came if job_id])
            ended = [job.id async for job in batch.as_completed(timeout=60)]
            assert len(ended) == 21
            return came

    came = dict(asyncio.run(main()))
    assert came.pop("s3://") is None
    again = service.client.submit_each([*places(20), path], run_id="r")
    assert {image: job and job.id for image, job, _ in again} == came


def test_a_model_nobody_serves_ends_the_run_at_once(service: Service) -> None:
    with pytest.raises(UnknownModel):
        list(service.client.submit_each(places(3), model="nobody"))
    with pytest.raises(InvalidRequest, match="priority"):
        list(service.client.submit_each(places(3), priority="urgent"))


# A gateway has read its limits when it started; test_steering.py fills a queue over HTTP.
@pytest.mark.parametrize("service", ["direct"], indirect=True)
def test_a_full_queue_is_waited_for_or_told(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASKQ_MAX_QUEUED", "5")
    with Client.from_env() as client:
        told = list(client.submit_each([*places(8), damaged("up")], queue_full_timeout=0.0))
        assert [type(one.error) for one in told] == [type(None)] * 5 + [QueueFull] * 4
        assert objects_of(service) == set(), "the upload of a refused image is taken back"

        with ThreadPoolExecutor(1) as pool:
            rest = pool.submit(lambda: list(client.submit_each(places(20, "more"), run_id="r")))
            while not rest.done():
                service.work()
                time.sleep(0.02)
        assert all(one.job for one in rest.result())
    assert service.images() == Counter(places(5) + places(20, "more"))


def test_a_redis_at_its_memory_limit_is_a_full_queue(service: Service) -> None:
    redis = service.ledger.redis
    used = redis.info("memory")["used_memory"]
    redis.config_set("maxmemory", used + 500_000)
    try:
        each = service.client.submit_each(
            places(2000), queue_full_timeout=0.0, run_id="r", chunk=50
        )
        refused = [one.error for one in each]
        accepted = refused.count(None)
        assert 0 < accepted < 2000
        assert all(isinstance(error, QueueFull) for error in refused if error)
        if service.client is service.direct:  # the gateway does not name its Redis
            assert all("memory limit" in str(error) for error in refused if error)
        assert service.images().total() == accepted
    finally:
        redis.config_set("maxmemory", 0)
    assert all(one.job for one in service.client.submit_each(places(2000), run_id="r"))
    assert service.images() == Counter(places(2000))


def test_a_redis_that_is_restarted_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maskq.client.bulk._OUTAGE_PAUSE_S", 0.1)
    server = RedisServer(tmp_path / "redis", password="pw", binary=find(pinned=True))
    server.start()
    restarted = threading.Thread(target=lambda: (time.sleep(2.5), server.restart(StopSignal())))

    def source() -> Iterator[str]:
        for number, place in enumerate(places(40)):
            if number == 20:
                server.kill()
                restarted.start()
            yield place

    try:
        with Client(Settings(redis_url=server.url, key_prefix="bulk")) as client:
            service = Service(client, client)
            came = list(client.submit_each(source(), run_id="r", chunk=10))
            assert all(one.job for one in came)
            assert service.images() == Counter(places(40))
    finally:
        restarted.join()
        server.stop()
    with (
        Client(Settings(redis_url=server.url, key_prefix="bulk")) as client,
        pytest.raises(StoreUnavailable),  # one that was never there is not waited for
    ):
        list(client.submit_each(places(1)))


def test_a_batch_is_in_order_and_all_or_none(service: Service) -> None:
    batch = service.client.submit_many(places(1200))
    records = [service.ledger.run(calls.get(batch.jobs[n].id)) for n in (0, 700)]
    assert [r and r.request.image_uri for r in records] == [places(1200)[0], places(1200)[700]]
    batch.cancel()

    bad = [*places(700, "other"), "s3://Other/bad.jpg", *places(10, "third")]
    with pytest.raises(InvalidRequest, match="bucket name"):
        service.client.submit_many(bad)
    with pytest.raises(UnknownModel):
        service.client.submit_many(places(2), model="nobody")
    assert service.client.list(status="queued").records == ()
