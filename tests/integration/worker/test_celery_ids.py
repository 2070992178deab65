"""Task ids of Celery callers that are no UUIDs: aliases of jobs, and never part of a path."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from celery.exceptions import Ignore
from integration.worker.test_pipeline import Bench
from support.damaged import damaged

from maskq import AsyncClient, Client, FailureCode, JobNotFound, JobStatus
from maskq.contract.ids import is_own_id, new_id
from maskq.contract.locations import S3Uri
from maskq.errors import SegmentRefused
from maskq.ledger import calls
from maskq_worker.broker import celery_callers
from maskq_worker.jobs.retention import Retention
from maskq_worker.settings import WorkerSettings

if TYPE_CHECKING:
    from maskq_standalone.servers.s3 import S3Server

ODD_IDS = ["incoming", "..", ".", "2026", "order-7", "a/b", "ünï code", "x:y", "A" * 255]


@pytest.fixture
def keep_on_s() -> float:
    return 0.0  # one job a message


@pytest.fixture
def environment(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setenv("MASKQ_OUTPUT_RETENTION_S", "1000")
    return environment


def send(bench: Bench, task_id: str, image: str) -> dict[str, Any]:
    """What a worker's task does with a caller's message, or with the ledger's answer to it."""
    args = [{"image_uri": image}]
    return celery_callers.answer(bench.pipeline.persist, bench.settings, {"id": task_id}, args, {})


def accepted(bench: Bench, task_id: str, image: str) -> None:
    with pytest.raises(Ignore):
        send(bench, task_id, image)


def image_of(bench: Bench, s3_server: S3Server) -> str:
    bench.submit("image-only")
    bench.ledger.run(calls.cancel("image-only"))
    return f"s3://{s3_server.bucket}/{bench.prefix}/in/image-only.png"


def rows(bench: Bench) -> list[str]:
    redis = bench.ledger.redis
    return [
        row
        for name in ("outputs", "orphans")
        for row in redis.zrange(f"{bench.prefix}:{name}", 0, -1)
    ]


@pytest.mark.parametrize("task_id", ODD_IDS)
def test_an_odd_task_id_is_an_alias_of_a_job_with_an_id_of_our_own(
    bench: Bench, client: Client, s3_server: S3Server, task_id: str
) -> None:
    image = image_of(bench, s3_server)
    accepted(bench, task_id, image)
    accepted(bench, task_id, image)  # a message that comes twice is one job
    job = client.get(task_id)
    assert is_own_id(job.id)
    assert job.record
    assert (job.record.id, job.record.alias) == (job.id, task_id)
    assert [record.id for record in client.list(status="queued").records] == [job.id]

    bench.pipeline.run("smallest")
    assert send(bench, task_id, image)["job_id"] == job.id
    assert job.wait(timeout=60).details.outputs["mask"].startswith(f"{bench.place(job.id)}/")
    assert job.result().mask().size == (60, 40)
    (event,) = client.events(since="0", types=["job.succeeded"], job_ids=[task_id], idle=0.5)
    assert event.subject == job.id

    # The worker's task says that Celery has the answer
    assert bench.ledger.redis.zcard(f"{bench.prefix}:answers") == 1
    bench.ledger.run(calls.answered(task_id))
    assert bench.ledger.redis.zcard(f"{bench.prefix}:answers") == 0

    client.delete(task_id)
    with pytest.raises(JobNotFound):
        client.get(task_id)
    assert not bench.ledger.redis.exists(f"{bench.prefix}:alias:{task_id}")


def test_an_alias_lives_as_long_as_its_job(
    bench: Bench, client: Client, s3_server: S3Server
) -> None:
    accepted(bench, "order-7", image_of(bench, s3_server))
    name, redis = f"{bench.prefix}:alias:order-7", bench.ledger.redis
    assert redis.pttl(name) == -1
    assert client.get("order-7").cancel()
    record = f"{bench.prefix}:job:{client.get('order-7').id}"
    left_ms = redis.pttl(record)
    assert 0 < redis.pttl(name) <= left_ms + 100
    with pytest.raises(SegmentRefused, match="canceled"):
        send(bench, "order-7", "s3://photos/a.png")
    new = client.retry("order-7")
    assert client.retry("order-7").id == new.id != client.get("order-7").id
    # Once both are gone, the same name is a new job
    redis.delete(name, record)
    accepted(bench, "order-7", "s3://photos/a.png")


async def _get(task_id: str) -> str:
    async with AsyncClient.from_env() as client:
        return (await client.get(task_id)).id


def test_an_async_client_knows_it_too(bench: Bench, client: Client) -> None:
    import asyncio

    accepted(bench, "order-7", "s3://photos/a.png")
    assert asyncio.run(_get("order-7")) == client.get("order-7").id


def test_a_uuid_is_the_job_s_id_as_it_was(bench: Bench, client: Client) -> None:
    task_id = new_id()
    accepted(bench, task_id, "s3://photos/a.png")
    record = client.get(task_id).record
    assert record
    assert (record.id, record.alias) == (task_id, None)


def test_the_ledger_s_answer_carries_the_caller_s_task_id(bench: Bench) -> None:
    accepted(bench, "order-7", "s3://photos/a.png")
    bench.ledger.run(calls.cancel("order-7"))
    message = json.loads(bench.ledger.redis.rpop(bench.prefix) or "")
    assert message["headers"]["id"] == "order-7"


# --- rows that have objects removed -------------------------------------------------------------------


@pytest.mark.parametrize("task_id", ["incoming", "..", "2026"])
def test_a_job_that_wrote_nothing_has_nothing_removed(
    bench: Bench, client: Client, s3_server: S3Server, task_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a folder of that name, and a job that may read nothing
    theirs = S3Uri(s3_server.bucket, f"{bench.settings.output_prefix}/{task_id}/photo.jpg")
    client.objects.put(theirs, b"theirs", "image/jpeg")
    monkeypatch.setenv("MASKQ_ALLOWED_LOCATIONS", "s3://elsewhere")
    bench.store._allowed = WorkerSettings.load().locations()
    accepted(bench, task_id, "s3://photos/a.png")
    bench.pipeline.run("smallest")
    error = client.get(task_id).record
    assert error
    assert error.error
    assert error.error.code is FailureCode.BUCKET_NOT_ALLOWED
    # Then no row says to look for objects of it, and one of an older version removes none
    assert rows(bench) == []
    bench.ledger.redis.zadd(f"{bench.prefix}:outputs", {task_id: 1})
    bench.ledger.redis.zadd(f"{bench.prefix}:orphans", {task_id: 1})
    Retention(bench.ledger, bench.store, bench.settings.layout).remove_due()
    assert rows(bench) == []
    assert client.objects.get(theirs) == b"theirs"


def test_only_jobs_with_objects_have_some_removed(
    bench: Bench, client: Client, s3_server: S3Server
) -> None:
    image = image_of(bench, s3_server)
    for name in ("outputs", "orphans"):
        bench.ledger.redis.delete(f"{bench.prefix}:{name}")

    def run(**options: Any) -> str:
        job = client.submit(options.pop("image", image), **options)
        bench.pipeline.run("smallest")
        assert job.refresh().ended
        return job.id

    run(image="s3://photos/none.jpg")  # fails
    client.submit(image).cancel()  # before it ran
    assert rows(bench) == []
    uploaded = client.submit(damaged("no image"), tenant="acme")
    bench.pipeline.run("smallest")
    assert uploaded.refresh().status is JobStatus.FAILED
    chosen = f"s3://{s3_server.bucket}/{bench.prefix}/cho sen"
    ids = [
        run(),
        run(tenant="acme"),
        run(output_prefix=chosen),
        run(output_prefix=chosen, tenant="x"),
    ]
    assert sorted(rows(bench)) == sorted(
        [
            f"{uploaded.id} acme",
            ids[0],
            f"{ids[1]} acme",
            f"{ids[2]} {chosen}",
            f"{ids[3]} x {chosen}",
        ]
    )
    due = [calls.Objects.of(row) for row in rows(bench)]
    known = {(one.job_id, one.tenant, one.output_prefix) for one in due}
    assert (ids[3], "x", chosen) in known
    assert (ids[2], None, chosen) in known


def test_a_job_that_is_taken_from_its_worker_may_have_written_something(
    bench: Bench, client: Client
) -> None:
    job = client.submit("s3://photos/a.png")
    call = calls.claim("smallest", "t" * 16, owner="x:1", lease_s=60)
    assert bench.ledger.run(call).record
    job.cancel()
    assert {*rows(bench)} == {job.id}
