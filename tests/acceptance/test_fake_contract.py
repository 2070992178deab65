"""What a program sees of a client, on the fake and on a real stack: the same tests run on both.

`test_every_public_operation_is_in_the_contract` finds an operation of the real classes that no test
here calls.
"""

from __future__ import annotations

import ast
import asyncio
import hashlib
import io
import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.pages import blocks
from support.waiting import until
from support.worlds import SIZE, FakeWorld, RealWorld, World

from maskq import (
    AsyncClient,
    Batch,
    Client,
    Event,
    EventsLost,
    FailureCode,
    IdempotencyConflict,
    InvalidRequest,
    Job,
    JobFailed,
    JobNotFound,
    JobStatus,
    Output,
    Result,
    StoreRefused,
    UnknownModel,
    WaitTimeout,
)
from maskq.contract.ids import new_id
from maskq.contract.locations import S3Uri
from maskq.contract.webhooks import Delivery, DeliveryState
from maskq.testing import FakeClient, damaged_image_bytes, image_bytes
from maskq_standalone.pytest_plugin import (
    maskq_fake,
    maskq_session_stack,
    maskq_stack,
    maskq_stack_options,
)

__all__ = ["maskq_fake", "maskq_session_stack", "maskq_stack"]  # fixtures of the plugin
UNKNOWN = "0199d3c0-0000-7000-8000-000000000000"
ALL = {"mask", "overlay", "stats", "confidence", "logits", "rle", "binary", "uncertain"}
# They need access to Redis and S3; a fake refuses them, as a client over HTTP does.
DIRECT = {
    "api_keys", "create_api_key", "delete_tenant", "key_prefix", "objects", "retire_model",
    "revoke_api_key", "set_default_model", "set_tenant", "settings", "tenant", "tenants",
    "unset_tenant",
}  # fmt: skip
# Tests of the fixture `maskq_fake` call it.
ELSEWHERE = {"from_env"}


@pytest.fixture(scope="session")
def maskq_stack_options(smallest_model: Path) -> dict[str, Any]:  # noqa: F811 - as users override it
    return {"model": str(smallest_model)}


@pytest.fixture(params=["fake", "real"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    tenant = f"t-{new_id()}"
    if request.param == "fake":
        yield FakeWorld(request.getfixturevalue("maskq_fake"), tenant)
        return
    request.getfixturevalue("maskq_stack")
    with Client.from_env() as client:
        yield RealWorld(client, AsyncClient.from_env(), tenant)


@pytest.fixture
def client(world: World) -> Client:
    return world.client


def new_prefix(world: World) -> str:
    """An output_prefix that no other job has, in the bucket of the deployment."""
    mask = world.submit().wait(60).uri("mask")
    return f"s3://{S3Uri.parse(mask).bucket}/masks/{new_id()}"


def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


# --- one job ------------------------------------------------------------------------------------------


def test_every_output_of_a_job_can_be_read(world: World, client: Client) -> None:
    result = client.segment(image_bytes(SIZE), outputs=ALL, timeout=60, tenant=world.tenant)

    assert result.size == SIZE
    mask = result.mask()
    assert (mask.mode, mask.size) == ("P", SIZE)
    present = set(mask.tobytes())
    assert set(result.labels) == present == {entry.id for entry in result.stats}
    assert sum(entry.pixels for entry in result.stats) == SIZE[0] * SIZE[1]
    assert [entry.share for entry in result.stats] == sorted(
        (entry.share for entry in result.stats), reverse=True
    )
    assert (result.overlay().mode, result.overlay().size) == ("RGB", SIZE)
    assert (result.confidence().mode, result.confidence().size) == ("L", SIZE)
    assert result.logits().ndim == 3
    uncertain = result.uncertain()
    assert (uncertain.mode, uncertain.size, uncertain.getextrema()) == ("1", SIZE, (0, 0))
    assert (result.details.precision, result.details.uncertain_share) == ("exact", 0.0)
    for entry in result.stats:
        binary = result.binary(entry.label)
        assert binary.mode == "1"
        assert binary.histogram()[-1] == entry.pixels
        assert result.read("binary", entry.id)
        assert entry.bbox is not None
        assert entry.regions is not None
    assert Image.open(io.BytesIO(result.read("mask"))).format == "PNG"
    assert result.mask_uri == result.uri("mask")
    with pytest.raises(InvalidRequest, match="no class 'zebra'"):
        result.binary("zebra")
    with pytest.raises(InvalidRequest, match="one file per class"):
        result.read("binary")


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_rle_is_read_back_by_pycocotools_as_the_mask(world: World, client: Client) -> None:
    from pycocotools import mask as coco

    result = client.segment(image_bytes(SIZE), outputs={"mask", "rle"}, timeout=60)
    mask = result.mask().tobytes()
    for one in result.rle()["annotations"]:
        decoded = coco.decode(one["segmentation"]).tobytes(order="C")
        assert [value == one["class_id"] for value in mask] == [bool(value) for value in decoded]
        assert one["area"] == sum(decoded)
        assert one["bbox"] == coco.toBbox(one["segmentation"]).tolist()


def test_chosen_classes_are_alone_in_the_mask(world: World, client: Client) -> None:
    first = client.segment(image_bytes(SIZE), timeout=60)
    label = next(iter(first.labels.values()))
    result = client.segment(image_bytes(SIZE), classes=[label], timeout=60)
    assert list(result.labels.values()) == [label]
    assert set(result.mask().tobytes()) - {255} == set(result.labels)
    with pytest.raises(JobFailed) as raised:
        client.segment(image_bytes(SIZE), classes=["zebra crossing"], timeout=60)
    assert raised.value.code is FailureCode.INVALID_REQUEST


def test_an_output_that_was_not_asked_for_is_an_error(world: World, client: Client) -> None:
    result = world.submit().wait(60)
    with pytest.raises(InvalidRequest, match="has no output 'overlay'"):
        result.overlay()
    assert result.stats == []


def test_a_job_that_fails_raises_and_says_why(world: World, client: Client) -> None:
    job = client.submit(damaged_image_bytes(), tenant=world.tenant)
    with pytest.raises(JobFailed, match="invalid_image") as raised:
        job.wait(60)
    assert raised.value.code is FailureCode.INVALID_IMAGE
    assert (job.status, job.done()) == (JobStatus.FAILED, True)
    assert client.list(code="invalid_image", tenant=world.tenant).records == (job.record,)
    with pytest.raises(JobFailed):
        job.result()


def test_a_job_that_waits_can_be_waited_for_and_canceled(world: World, client: Client) -> None:
    with world.queued_jobs() as options:
        job = world.submit(**options)
        assert (job.record, job.status) == (None, JobStatus.QUEUED)
        with pytest.raises(WaitTimeout, match="still queued"):
            job.wait(0.05)
        with pytest.raises(WaitTimeout):
            job.result()
        assert not job.done()
        assert job.cancel() is True
        assert job.status is JobStatus.CANCELED
        assert job.cancel() is True
        with pytest.raises(JobFailed, match="canceled"):
            job.wait(5)


def test_a_job_says_what_it_waits_for(world: World, client: Client) -> None:
    with world.queued_jobs() as options:
        jobs = [world.submit(**options) for _ in range(3)]
        jobs.append(world.submit(priority="high", **options))
        found = [client.why(job.id) for job in jobs]
        for job in jobs:
            job.cancel()
    canceled = client.why(jobs[0].id)
    ended = world.submit()
    ended.wait(60)

    assert {(one.reason, one.status, one.workers) for one in found} == {("no_worker", "queued", 0)}
    assert [one.position_in_tenant for one in found] == [1, 2, 3, 0]
    assert {one.tenant for one in found} == {world.tenant}
    assert found[0].text == (
        f"job {jobs[0].id} waits for a worker: none serves model {found[0].model} now"
    )
    assert (canceled.reason, canceled.position) == ("ended", None)
    assert client.why(ended.id).text == f"job {ended.id} waits for nothing: it has succeeded"


def test_a_job_names_its_source(world: World, client: Client, tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    photo.write_bytes(image_bytes(SIZE))
    job = client.submit(photo, outputs={"mask", "rle"}, tenant=world.tenant)
    result = job.wait(60)
    assert job.source == result.source == str(photo)
    assert result.rle()["images"][0]["file_name"] == "photo.png"
    assert client.list(source=str(photo), tenant=world.tenant).records == (job.record,)
    with world.queued_jobs() as options:
        again = client.submit("s3://photos/a.jpg", **options).refresh()
    assert again.source == "s3://photos/a.jpg"


def test_a_result_has_the_digests_of_its_image_and_files(world: World, client: Client) -> None:
    photo = image_bytes(SIZE)
    result = client.segment(photo, outputs=ALL, timeout=60, tenant=world.tenant)
    assert result.details.source_sha256 == sha256(photo)
    stated = dict(result.details.output_sha256)
    lines = [
        f"{sha256(result.read('binary', one))}  {one:03d}.png\n" for one in sorted(result.labels)
    ]
    assert stated.pop(Output.BINARY) == sha256("".join(lines).encode())
    assert stated == {one: sha256(result.read(one)) for one in ALL - {"binary"}}


def test_a_result_names_its_copies(world: World, client: Client) -> None:
    prefix = new_prefix(world)
    result = client.segment(
        image_bytes(SIZE),
        outputs={"mask", "binary"},
        output_prefix=prefix,
        output_name="{job_id}.{output}",
        timeout=60,
    )
    files = ["mask.png", *(f"binary/{one:03d}.png" for one in sorted(result.labels))]
    assert result.copies == {file: f"{prefix}/{result.job_id}.{file}" for file in files}


def test_a_copy_of_another_job_stays_unless_it_may_be_replaced(
    world: World, client: Client
) -> None:
    options: Any = {"output_prefix": new_prefix(world), "output_name": "all.{output}"}
    first = world.submit(**options)
    first.wait(60)
    with pytest.raises(JobFailed, match=f"job {first.id} wrote it") as raised:
        world.submit(**options).wait(60)
    assert raised.value.code is FailureCode.OUTPUT_EXISTS
    last = world.submit(output_replace=True, **options)
    last.wait(60)
    last.delete()
    assert world.submit(**options).wait(60).copies


@pytest.mark.parametrize(
    ("file_name", "output_name", "message"),
    [
        ("a\nb.png", "{stem}.{output}", "control character"),
        ("a.png", "{output}", "has the form of maskq's own names"),
    ],
)
def test_a_name_that_output_name_must_not_give_fails_the_job(
    world: World, client: Client, tmp_path: Path, file_name: str, output_name: str, message: str
) -> None:
    photo = tmp_path / file_name
    photo.write_bytes(image_bytes(SIZE))
    job = client.submit(photo, output_prefix=new_prefix(world), output_name=output_name)
    with pytest.raises(JobFailed, match=message) as raised:
        job.wait(60)
    assert raised.value.code is FailureCode.INVALID_REQUEST


def test_a_job_that_has_ended_is_not_canceled(world: World) -> None:
    job = world.submit()
    job.wait(60)
    assert job.cancel() is False
    assert job.status is JobStatus.SUCCEEDED


def test_a_job_that_does_not_start_in_time_expires(world: World) -> None:
    with world.queued_jobs() as options:
        job = world.submit(queue_ttl=0.2, **options)
        with pytest.raises(JobFailed) as raised:
            job.wait(60)
    assert raised.value.code is FailureCode.EXPIRED


def test_a_canceled_job_is_retried_once(world: World, client: Client) -> None:
    with world.queued_jobs() as options:
        job = world.submit(metadata={"order": "7"}, **options)
        job.cancel()
        again = client.retry(job.id)
        assert client.retry(job.id).id == again.id
        record = again.refresh()
        assert (record.retry_of, record.request.metadata) == (job.id, {"order": "7"})
        again.cancel()
    done = world.submit()
    done.wait(60)
    with pytest.raises(InvalidRequest, match="only a job that is failed"):
        client.retry(done.id)


def test_a_deleted_job_is_gone_with_its_files(world: World, client: Client) -> None:
    job = world.submit()
    result = job.wait(60)
    job.delete()
    with pytest.raises(JobNotFound):
        job.refresh()
    with pytest.raises(StoreRefused) as raised:
        result.mask()
    assert raised.value.code is FailureCode.NOT_FOUND
    other = world.submit()
    client.delete(other.id)
    with pytest.raises(JobNotFound):
        client.get(other.id)


def test_an_unknown_job_is_not_found(client: Client) -> None:
    for operation in (client.get, client.delete, client.retry, client.why):
        with pytest.raises(JobNotFound, match=UNKNOWN):
            operation(UNKNOWN)


def test_an_unknown_batch_or_delivery_is_not_found(client: Client) -> None:
    with pytest.raises(JobNotFound, match="batch"):
        client.batch(UNKNOWN, [UNKNOWN]).progress()
    with pytest.raises(JobNotFound, match="delivery"):
        client.redeliver("nothing")


# --- refused ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "options"),
    [
        (Path("no such file.jpg"), {}),
        (5, {}),
        ("s3://Photos/a.jpg", {}),
        ("s3://photos/a.jpg", {"otuputs": {"mask"}}),
        ("s3://photos/a.jpg", {"outputs": {"masks"}}),
        ("s3://photos/a.jpg", {"overlay_alpha": 0.5}),
        ("s3://photos/a.jpg", {"image_etag": ""}),
    ],
)
def test_what_is_not_valid_is_refused(client: Client, image: Any, options: Any) -> None:
    with pytest.raises(InvalidRequest):
        client.submit(image, **options)


def test_an_unknown_model_is_refused_with_the_known_ones(client: Client) -> None:
    (model, *_) = client.models()
    with pytest.raises(UnknownModel, match=f"did you mean {model.name!r}"):
        client.submit("s3://photos/a.jpg", model=f"{model.name}s")
    with pytest.raises(UnknownModel):
        list(client.submit_each(["s3://photos/a.jpg"], model=f"{model.name}s"))


def test_an_idempotency_key_names_one_request(world: World, client: Client) -> None:
    key = new_id()
    job = world.submit(idempotency_key=key)
    assert world.submit(idempotency_key=key).id == job.id
    with pytest.raises(IdempotencyConflict, match=key):
        world.submit(idempotency_key=key, priority="high")
    job.wait(60)
    job.delete()
    assert world.submit(idempotency_key=key).id != job.id


def test_handles_cannot_be_pickled(world: World) -> None:
    with pytest.raises(InvalidRequest, match="cannot be pickled"):
        pickle.dumps(world.submit())


# --- many ---------------------------------------------------------------------------------------------


def test_a_batch_completes_with_one_event(world: World, client: Client) -> None:
    start = _cursor(client)
    images = [image_bytes(SIZE), damaged_image_bytes(), image_bytes(SIZE, colour="red")]
    batch = client.submit_many(images, tenant=world.tenant)
    ended = list(batch.as_completed(60))

    assert len(batch) == len(batch.jobs) == 3
    assert {job.id for job in ended} == {job.id for job in batch.jobs}
    progress = batch.progress()
    assert progress.total == 3
    assert progress.counts == {JobStatus.SUCCEEDED: 2, JobStatus.FAILED: 1}
    (event,) = client.events(start, types=["batch.completed"], idle=0.5)
    assert (event.subject, event.batch().total, event.batch().succeeded) == (batch.id, 3, 2)
    assert event.batch().tenant == world.tenant
    assert len(client.list(batch_id=batch.id).records) == 3
    again = client.batch(batch.id, [job.id for job in batch.jobs])
    assert {job.id for job in again.as_completed(5)} == {job.id for job in batch.jobs}


def test_a_batch_is_canceled(world: World, client: Client) -> None:
    with world.queued_jobs() as options:
        batch = client.submit_many([image_bytes(SIZE)] * 2, **options)
        with pytest.raises(WaitTimeout, match="2 of 2 jobs"):
            next(batch.as_completed(0.05))
        assert batch.cancel() == 2


def test_a_batch_with_an_image_that_cannot_be_read_is_refused_as_a_whole(
    world: World, client: Client
) -> None:
    with world.queued_jobs() as options:
        with pytest.raises(InvalidRequest):
            client.submit_many([image_bytes(SIZE), 5], tenant=world.tenant, **options)  # type: ignore[list-item]
        statuses = {one.status for one in client.list(tenant=world.tenant).records}
    assert statuses <= {JobStatus.CANCELED}
    with pytest.raises(InvalidRequest, match="no images"):
        client.submit_many([])


def test_each_image_gets_a_job_or_an_error_and_a_run_submits_once(
    world: World, client: Client
) -> None:
    run_id = new_id()
    images = [image_bytes(SIZE), "s3://Photos/a.jpg", image_bytes(SIZE, colour="red")]

    def submissions() -> list[str]:
        each = client.submit_each(images, run_id=run_id, tenant=world.tenant)
        return [job.id if job else type(error).__name__ for _, job, error in each]

    first = submissions()
    assert first.count("InvalidRequest") == 1
    assert sorted(submissions()) == sorted(first)
    assert len(client.list(batch_id=run_id).records) == 2


def test_a_batch_is_waited_for_as_a_whole(world: World, client: Client) -> None:
    told: list[int] = []
    batch = client.submit_many([image_bytes(SIZE), image_bytes(SIZE, colour="red")])
    progress = batch.wait(60, on_progress=lambda one: told.append(sum(one.counts.values())))
    assert progress.counts == {JobStatus.SUCCEEDED: 2}
    assert (told[0], told[-1]) == (0, 2)
    assert [result.job_id for result in batch.results(5)] == [job.id for job in batch]
    batch = client.submit_many([image_bytes(SIZE), damaged_image_bytes()])
    with pytest.raises(JobFailed, match="invalid_image"):
        batch.results(60)


def test_a_result_is_saved_as_files(world: World, client: Client, tmp_path: Path) -> None:
    outputs = {"mask", "overlay", "binary"}
    result = client.segment(image_bytes(SIZE), outputs=outputs, timeout=60)
    paths = result.save(tmp_path, name="photo")
    assert len(paths) == 2 + len(result.labels)
    assert (tmp_path / "photo.mask.png").read_bytes() == result.read("mask")


def test_all_jobs_are_listed(world: World, client: Client) -> None:
    ids = {world.submit().id for _ in range(3)}
    assert {record.id for record in client.list_all(tenant=world.tenant)} == ids


# --- lists --------------------------------------------------------------------------------------------


def test_jobs_are_listed_newest_first_and_page_by_page(world: World, client: Client) -> None:
    jobs = [world.submit() for _ in range(3)]
    for job in jobs:
        job.wait(60)
    newest = [job.id for job in reversed(jobs)]

    page = client.list(tenant=world.tenant, limit=2)
    rest = client.list(tenant=world.tenant, limit=2, cursor=page.cursor)
    assert [one.id for one in (*page.records, *rest.records)] == newest
    assert rest.cursor == ""
    assert client.list(tenant=world.tenant, status="failed").records == ()
    since = page.records[0].ended_ms
    assert since is not None
    ended = client.list(tenant=world.tenant, ended_since=since / 1000 - 60)
    assert {one.id for one in ended.records} == set(newest)
    assert client.list(tenant=world.tenant, ended_since=since / 1000 + 60).records == ()
    with pytest.raises(InvalidRequest, match="not a valid job status"):
        client.list(status="done")


def test_a_client_that_was_closed_is_used_again(client: Client) -> None:
    with client as same:
        assert same is client
    client.close()
    assert client.models()


def test_models_and_the_default_one(client: Client) -> None:
    known = {model.name: model for model in client.models()}
    default = client.default_model()
    assert default.name in known
    assert default.known
    assert known[default.name].workers[0].labels > 1


def test_workers_and_the_deployment_at_a_glance(client: Client) -> None:
    (worker,) = client.workers()
    assert worker.model == client.default_model().name
    assert worker.in_hand is not None
    assert worker.beat_age_s is not None
    overview = client.overview()
    (queue,) = [one for one in overview.queues if one.default]
    assert (queue.model, queue.workers) == (worker.model, 1)
    assert sum(queue.ready.values()) <= queue.queued
    assert overview.limits.max_attempts >= 1


# --- events -------------------------------------------------------------------------------------------


def _cursor(client: Client) -> str:
    """The cursor of the newest event."""
    last = "0"
    for event in client.events("0", idle=0.1):
        last = event.cursor
    return last


def kinds(events: Sequence[Event]) -> list[str]:
    return [event.type for event in events]


def test_events_tell_a_job_s_life(world: World, client: Client) -> None:
    start = _cursor(client)
    job = world.submit(metadata={"order": "7"})
    job.wait(60)
    events = list(client.events(start, job_ids=[job.id], idle=0.5))
    assert kinds(events) == ["maskq.job.queued", "maskq.job.running", "maskq.job.succeeded"]
    data = events[-1].job()
    assert (data.tenant, data.metadata) == (world.tenant, {"order": "7"})
    assert data.result is not None
    assert data.result.width == SIZE[0]
    (running,) = client.events(start, job_ids=[job.id], types=["job.running"], idle=0.5)
    assert running.id == f"{job.id}:running:1"
    assert list(client.events(events[-1].cursor, job_ids=[job.id], idle=0.1)) == []


def test_a_cursor_that_is_not_in_the_stream_is_an_error(client: Client) -> None:
    with pytest.raises(EventsLost, match="ahead of the stream"):
        next(client.events("9999999999999-0", idle=0.1))
    with pytest.raises(InvalidRequest, match="not a valid cursor"):
        next(client.events("yesterday", idle=0.1))
    with pytest.raises(InvalidRequest, match="not a valid event type"):
        next(client.events(types=["job.done"], idle=0.1))


def test_a_group_shares_events_and_takes_over_what_is_not_confirmed(
    world: World, client: Client
) -> None:
    start, group = _cursor(client), new_id()
    with world.queued_jobs() as options:
        ids = [world.submit(**options).id for _ in range(4)]
        one, other = (
            client.events(start, group=group, types=["job.queued"], idle=20, take_over=0.2)
            for _ in range(2)
        )
        got = [next(one).subject, next(other).subject, next(one).subject]
        one.close()  # type: ignore[attr-defined]  # without a confirmation of its last event
        while set(got) < set(ids) or got.count(got[2]) < 2:
            got.append(next(other).subject)
        other.close()  # type: ignore[attr-defined]
    assert set(got) == set(ids)
    with pytest.raises(InvalidRequest, match="group is empty"):
        next(client.events(group="", idle=0.1))


def test_a_deleted_group_begins_anew(world: World, client: Client) -> None:
    start, group = _cursor(client), new_id()
    with world.queued_jobs() as options:
        ids = [world.submit(**options).id for _ in range(2)]
        for _ in range(2):
            reading = client.events(start, group=group, types=["job.queued"], idle=20)
            assert [next(reading).subject, next(reading).subject] == ids
            assert client.delete_event_group(group) is True
            with pytest.raises(EventsLost, match="was deleted"):
                next(reading)
    assert client.delete_event_group(group) is False


# --- webhooks -----------------------------------------------------------------------------------------


def _delivered(world: World, subject: str) -> Sequence[Delivery]:
    world.deliver()
    if world.client.deliveries(subject, state="pending"):
        return ()
    return world.client.deliveries(subject, state="delivered")


def test_webhooks_are_signed_and_recorded(world: World, client: Client) -> None:
    with world.receiver() as (url, received):
        job = world.submit(webhook=url, webhook_events={"job.running", "job.succeeded"})
        job.wait(60)
        deliveries = until(lambda: _delivered(world, job.id), within_s=30)
        assert [one.type for one in deliveries] == ["maskq.job.succeeded", "maskq.job.running"]
        assert [one.attempts for one in deliveries] == [1, 1]
        assert deliveries[0].log[0].status == 204
        assert deliveries[0].url == url
        assert {event.type for event in received} == {one.type for one in deliveries}
        client.redeliver(deliveries[0].id)
        until(lambda: _delivered(world, job.id), within_s=30)
        assert client.deliveries(job.id)[0].attempts == 2
        assert client.deliveries(job.id, state=DeliveryState.FAILED) in ([], ())
        job.delete()
        assert list(client.deliveries(job.id)) == []


def test_the_end_of_a_batch_is_a_webhook(world: World, client: Client) -> None:
    with world.receiver() as (url, received):
        batch = client.submit_many([image_bytes(SIZE)] * 2, batch_webhook=url)
        list(batch.as_completed(60))
        until(lambda: _delivered(world, batch.id), within_s=30)
        (event,) = [event for event in received if event.subject == batch.id]
    assert (event.type, event.batch().total) == ("maskq.batch.completed", 2)


# --- awaited ------------------------------------------------------------------------------------------


def test_awaited_it_does_the_same(world: World) -> None:
    async def all_of_it() -> None:
        async with world.awaited as client:
            start = "0"
            async for event in client.events("0", idle=0.1):
                start = event.cursor
            result = await client.segment(image_bytes(SIZE), timeout=60, tenant=world.tenant)
            assert (await result.mask()).size == SIZE
            job = await client.get(result.job_id)
            assert await job.done()
            assert await job.cancel() is False
            batch = await client.submit_many([image_bytes(SIZE)] * 2)
            assert len([one async for one in batch.as_completed(60)]) == 2
            assert (await batch.progress()).total == 2
            each = client.submit_each([image_bytes(SIZE), "s3://Photos/a.jpg"])
            assert sum([bool(error) async for _, _, error in each]) == 1
            ids = [result.job_id]
            events = [one async for one in client.events(start, job_ids=ids, idle=0.5)]
            assert len(events) == 3
            with pytest.raises(JobNotFound):
                await client.get(UNKNOWN)
            page = await client.list(tenant=world.tenant)
            assert [one.id for one in page.records] == ids
            await job.delete()

    asyncio.run(all_of_it())


# --- both at once -------------------------------------------------------------------------------------


def shape(value: Any) -> Any:
    """Names and types of a JSON document. Names that are data (ids, stages) are left out."""
    match value:
        case dict() if all(isinstance(key, str) and key.isidentifier() for key in value):
            return {key: shape(one) for key, one in value.items() if key != "timings_ms"}
        case dict():
            return "dict"
        case list():
            return [shape(value[0])] if value else []
        case float() | int():
            return "number"
    return type(value).__name__


def documents(client: Client, url: str) -> dict[str, Any]:
    outputs = {"mask", "stats"}
    job = client.submit(image_bytes(SIZE), outputs=outputs, tenant="t", webhook=url)
    job.wait(60)
    broken = client.submit(damaged_image_bytes(), metadata={"a": "b"})
    with pytest.raises(JobFailed):
        broken.wait(60)
    assert job.record is not None
    assert broken.record is not None
    ids = [job.id, broken.id]
    events = {
        f"{event.type} of {ids.index(event.subject)}": event.model_dump(mode="json")
        for event in client.events("0", job_ids=ids, idle=0.5)
    }
    found = {
        "record": job.record.public(),
        "broken": broken.record.public(),
        "delivery": client.deliveries(job.id)[0].public() | {"log": [], "next_ms": 0},
        **events,
    }
    return {name: shape(document) for name, document in found.items()}


def test_records_events_and_deliveries_have_the_same_fields(
    maskq_stack: object,
) -> None:
    fake = documents(FakeClient(), "http://127.0.0.1:9/")
    with Client.from_env() as client:
        real = documents(client, "http://127.0.0.1:9/")
    # The fake reads no ETag.
    for result in (real["record"]["result"], real["maskq.job.succeeded of 0"]["data"]["result"]):
        result.pop("source_etag", None)
    assert fake == real


def test_stack_block_of_the_testing_page(maskq_stack: object) -> None:
    (block,) = [one for one in blocks("docs/testing.md") if one.kind == "stack"]
    names: dict[str, Any] = {"Client": Client, "image_bytes": image_bytes}
    exec(block.text, names)
    names["test_on_a_real_stack"](maskq_stack)


# --- the surface --------------------------------------------------------------------------------------


def public(owner: type) -> set[str]:
    return {name for name in dir(owner) if not name.startswith("_")}


def called(owner: type) -> set[str]:
    """Attributes that this file reads of variables called `client`, `job`, `batch` and `result`."""
    tree, found = ast.parse(Path(__file__).read_text(encoding="utf-8")), set()
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id=name), attr=attribute):
                if name == owner.__name__.lower():
                    found.add(attribute)
    return found


@pytest.mark.parametrize("owner", [Client, Job, Batch, Result])
def test_every_public_operation_is_in_the_contract(owner: type) -> None:
    missing = public(owner) - called(owner) - DIRECT - ELSEWHERE
    assert not missing, f"add a test here that calls {owner.__name__}.{', '.join(sorted(missing))}"
