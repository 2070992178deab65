"""Many jobs, and lists of jobs, models and workers, on the fake and on a real stack."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.worlds import SIZE, World, end_of_events

from maskq import (
    Client,
    InvalidRequest,
    JobFailed,
    JobStatus,
    WaitTimeout,
)
from maskq.contract.ids import new_id
from maskq.testing import damaged_image_bytes, image_bytes

# --- many ---------------------------------------------------------------------------------------------


def test_a_batch_completes_with_one_event(world: World, client: Client) -> None:
    start = end_of_events(client)
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
