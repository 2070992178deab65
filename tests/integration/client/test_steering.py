"""What a caller does with jobs beside waiting for them: retry, delete, list, wait for room, be safe."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from support.damaged import damaged
from support.transports import TRANSPORTS, connected

from maskq import (
    Client,
    FailureCode,
    InvalidRequest,
    Job,
    JobNotFound,
    JobStatus,
    QueueFull,
    StoreUnavailable,
    UnknownModel,
)
from maskq.contract import JobFailure, JobResult
from maskq.contract.ids import new_token
from maskq.contract.locations import S3Uri
from maskq.ledger import calls

if TYPE_CHECKING:
    from maskq_standalone.servers.redis import RedisServer
    from maskq_standalone.servers.s3 import S3Server

MODEL = "demo"
IMAGE = "s3://photos/a.png"
BROKEN = JobFailure(code=FailureCode.INVALID_IMAGE, message="not an image")


class Service:
    """A client, and by hand what a worker does."""

    def __init__(self, client: Client, direct: Client) -> None:
        self.client = client
        self.direct = direct
        self.prefix = direct.settings.key_prefix
        self.ledger = direct.session.ledger
        self.ledger.run(calls.register_model(MODEL, {}))

    def claim(self) -> tuple[str, str]:
        token = new_token()
        call = calls.claim(MODEL, token, owner="x:1", lease_s=60)
        record = self.ledger.run(call).record
        assert record is not None
        return record.id, token

    def fail_next(self) -> None:
        self.ledger.run(calls.fail(*self.claim(), JobStatus.FAILED, BROKEN))

    def succeed_next(self) -> None:
        result = JobResult(width=1, height=1, model=MODEL)
        self.ledger.run(calls.succeed(*self.claim(), result))

    def keys_under(self, server: S3Server, prefix: str) -> set[str]:
        listed = server.client().list_objects_v2(Bucket=server.bucket, Prefix=prefix)
        return {entry["Key"] for entry in listed.get("Contents", [])}


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def service(
    environment: dict[str, str], transport: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Service]:
    with connected(transport, monkeypatch) as (client, direct):
        yield Service(client, direct)


@pytest.fixture
def small_service(
    environment: dict[str, str], transport: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Service]:
    """Room for two jobs, one of each tenant."""
    monkeypatch.setenv("MASKQ_MAX_QUEUED", "2")
    monkeypatch.setenv("MASKQ_MAX_QUEUED_PER_TENANT", "1")
    with connected(transport, monkeypatch) as (client, direct):
        yield Service(client, direct)


# --- retry ------------------------------------------------------------------------------------------


def test_a_failed_job_is_submitted_again_as_it_was(service: Service) -> None:
    first = service.client.submit(IMAGE, priority="low", tenant="acme", metadata={"a": "1"})
    service.fail_next()

    again = service.client.retry(first.id)

    record = again.refresh()
    assert record.id != first.id
    assert (record.status, record.retry_of) == (JobStatus.QUEUED, first.id)
    assert record.request == first.refresh().request
    assert first.refresh().status is JobStatus.FAILED  # what ended stays ended


def test_a_retry_asked_for_twice_is_one_job(service: Service) -> None:
    job = service.client.submit(IMAGE)
    service.fail_next()
    assert service.client.retry(job.id).id == service.client.retry(job.id).id


def test_a_retry_has_its_own_copy_of_an_uploaded_image(
    service: Service, s3_server: S3Server
) -> None:
    first = service.client.submit(damaged("the image"))
    service.fail_next()
    again = service.client.retry(first.id)
    service.client.delete(first.id)

    place = S3Uri.parse(again.refresh().request.image_uri)
    assert service.direct.objects.get(place) == damaged("the image")


@pytest.mark.parametrize("end", [None, "canceled", "expired"])
def test_what_may_be_tried_again(service: Service, end: str | None) -> None:
    job = service.client.submit(IMAGE, queue_ttl=0.001 if end == "expired" else None)
    if end == "canceled":
        job.cancel()
    if end == "expired":
        time.sleep(0.01)
        service.ledger.run(calls.sweep(lease_s=9))
    if end:
        assert job.refresh().status == end
        assert service.client.retry(job.id).refresh().retry_of == job.id
        return
    with pytest.raises(InvalidRequest, match="queued"):
        service.client.retry(job.id)
    service.succeed_next()
    with pytest.raises(InvalidRequest, match="succeeded"):
        service.client.retry(job.id)


def test_an_unknown_job_cannot_be_retried_or_deleted(service: Service) -> None:
    for steer in (service.client.retry, service.client.delete):
        with pytest.raises(JobNotFound, match="nobody"):
            steer("nobody")


# --- delete -----------------------------------------------------------------------------------------


def test_delete_leaves_neither_record_nor_objects(service: Service, s3_server: S3Server) -> None:
    elsewhere = f"{service.prefix}/albums"
    job = service.client.submit(
        damaged("an image"), output_prefix=f"s3://{s3_server.bucket}/{elsewhere}"
    )
    neighbour = service.client.submit(damaged("another"))
    service.succeed_next()
    chosen = S3Uri(s3_server.bucket, f"{elsewhere}/{job.id}")
    service.direct.objects.put(chosen / new_token() / "mask.png", b"a mask", "image/png")

    job.delete()

    with pytest.raises(JobNotFound):
        job.refresh()
    assert service.keys_under(s3_server, elsewhere) == set()
    own = service.keys_under(s3_server, service.direct.settings.output_prefix)
    assert {key for key in own if job.id in key} == set()
    assert {key for key in own if neighbour.id in key} != set()
    assert [record.id for record in service.client.list().records] == [neighbour.id]
    left = [
        name for name in service.ledger.redis.scan_iter(f"{service.prefix}:*") if job.id in name
    ]
    assert left == []


def test_delete_takes_a_running_job_from_its_worker(service: Service) -> None:
    job = service.client.submit(IMAGE)
    job_id, token = service.claim()
    job.delete()
    lost = service.ledger.run(calls.renew([(job_id, token)], 9))
    assert lost == {token}


def test_a_deleted_job_s_idempotency_key_is_free_again(service: Service) -> None:
    first = service.client.submit(IMAGE, idempotency_key="k")
    first.delete()
    assert service.client.submit(IMAGE, idempotency_key="k").id != first.id


# --- list -------------------------------------------------------------------------------------------


def test_list_finds_by_what_is_known_of_a_job(service: Service) -> None:
    client = service.client
    failed = client.submit(IMAGE, tenant="acme", priority="high")
    service.fail_next()
    batch = client.submit_many([IMAGE, IMAGE], tenant="zeta")

    def ids(**wanted: str) -> set[str]:
        return {record.id for record in client.list(**wanted).records}

    in_batch = {job.id for job in batch.jobs}
    assert ids(status="failed") == ids(code="invalid_image") == ids(tenant="acme") == {failed.id}
    assert ids(batch_id=batch.id) == ids(tenant="zeta") == ids(status="queued") == in_batch
    assert ids(code="timeout") == ids(model="another") == set()
    with pytest.raises(InvalidRequest, match="not a valid failure code"):
        client.list(code="nonsense")


def test_list_catches_up_with_what_ended(service: Service) -> None:
    jobs = [service.client.submit(IMAGE) for _ in range(5)]
    service.client.submit(IMAGE, priority="low")  # goes on waiting
    for job in reversed(jobs):
        job.cancel()
        time.sleep(0.002)
    since = jobs[3].refresh().ended_ms
    assert since is not None

    first = service.client.list(ended_since=since / 1000, limit=2)
    rest = service.client.list(ended_since=since / 1000, limit=10, cursor=first.cursor)

    found = [record.id for record in (*first.records, *rest.records)]
    assert found == [jobs[n].id for n in (3, 2, 1, 0)]


def test_a_batch_is_canceled_at_once(service: Service) -> None:
    batch = service.client.submit_many([IMAGE] * 3)
    service.succeed_next()
    assert batch.cancel() == 2
    counts = batch.progress().counts
    assert counts == {JobStatus.SUCCEEDED: 1, JobStatus.CANCELED: 2}


# --- events -----------------------------------------------------------------------------------------


def test_events_can_be_asked_for_by_type_and_job(service: Service) -> None:
    first = service.client.submit(IMAGE)
    time.sleep(0.002)  # jobs of one millisecond are taken in the order of their names
    second = service.client.submit(IMAGE)
    service.succeed_next()
    second.cancel()

    def told(**wanted: list[str]) -> list[tuple[str, str]]:
        found = service.client.events(since="0", idle=0.2, **wanted)
        return [(event.subject, event.type.removeprefix("maskq.job.")) for event in found]

    assert told(types=["job.succeeded", "maskq.job.canceled"]) == [
        (first.id, "succeeded"),
        (second.id, "canceled"),
    ]
    assert told(job_ids=[second.id]) == [(second.id, "queued"), (second.id, "canceled")]
    assert told(job_ids=[first.id], types=["job.canceled"]) == []
    with pytest.raises(InvalidRequest, match="a list"):
        next(service.client.events(types="job.succeeded"))


# --- room -------------------------------------------------------------------------------------------


def test_a_full_queue_refuses_or_is_waited_for(small_service: Service) -> None:
    client = small_service.client
    first: Job = client.submit(IMAGE)
    client.submit(IMAGE)
    with pytest.raises(QueueFull, match=r"MASKQ_MAX_QUEUED|too many jobs"):
        client.submit(IMAGE)
    with pytest.raises(QueueFull):
        client.submit(IMAGE, queue_full_timeout=0.2)
    threading.Timer(0.3, first.cancel).start()
    waited = client.submit(IMAGE, queue_full_timeout=30)
    assert waited.refresh().status is JobStatus.QUEUED


@pytest.mark.parametrize("why", ["full", "out of memory", "unknown model"])
def test_what_is_refused_leaves_no_upload(
    small_service: Service, s3_server: S3Server, why: str
) -> None:
    # Given a failed job with an upload, and a service that takes no more
    client = small_service.client
    failed = client.submit(damaged("failed"))
    small_service.fail_next()
    kept = small_service.keys_under(s3_server, small_service.prefix)
    redis = small_service.ledger.redis
    if why == "full":
        client.submit_many([IMAGE, IMAGE])
    elif why == "unknown model":
        redis.delete(f"{small_service.prefix}:models")

    # When one is submitted, and the failed one is tried again
    redis.config_set("maxmemory", "1" if why == "out of memory" else "0")
    try:
        for ask in (lambda: client.submit(damaged("another")), lambda: client.retry(failed.id)):
            with pytest.raises((QueueFull, UnknownModel)):
                ask()
    finally:
        redis.config_set("maxmemory", "0")

    # Then the store holds what it held
    assert small_service.keys_under(s3_server, small_service.prefix) == kept


def test_a_batch_that_finds_no_room_leaves_nothing_queued(small_service: Service) -> None:
    with pytest.raises(QueueFull):
        small_service.client.submit_many([IMAGE] * 3)
    statuses = {record.status for record in small_service.client.list().records}
    assert statuses == {JobStatus.CANCELED}


def test_a_tenant_s_quota_is_its_own(small_service: Service) -> None:
    client = small_service.client
    client.submit(IMAGE, tenant="acme")
    with pytest.raises(QueueFull, match=r"'acme'.*MASKQ_MAX_QUEUED_PER_TENANT|too many jobs"):
        client.submit(IMAGE, tenant="acme")
    client.submit(IMAGE, tenant="zeta")


# --- durable ----------------------------------------------------------------------------------------


def test_a_durable_job_is_on_disk_when_submit_returns(
    service: Service, redis_server: RedisServer
) -> None:
    job = service.client.submit(IMAGE, durable=True)
    batch = service.client.submit_many([IMAGE] * 3, durable=True)
    written = b"".join(file.read_bytes() for file in redis_server.directory.rglob("*.aof"))
    for job_id in (job.id, *(one.id for one in batch.jobs)):
        assert job_id.encode() in written


def test_where_redis_keeps_no_file_a_durable_job_is_refused_before_it_is_one(
    service: Service,
) -> None:
    service.ledger.redis.config_set("appendonly", "no")
    try:
        with pytest.raises(StoreUnavailable, match=r"appendonly|ledger"):
            service.client.submit(IMAGE, durable=True)
        assert service.client.list().records == ()
    finally:
        service.ledger.redis.config_set("appendonly", "yes")
