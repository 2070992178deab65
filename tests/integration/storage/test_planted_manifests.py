"""A manifest that somebody else wrote where a job's own belongs: not believed, by worker or client."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from integration.worker.test_pipeline import Bench
from PIL import Image

from maskq import Client, FailureCode, InvalidRequest, JobRecord, JobStatus
from maskq.contract import JobFailure
from maskq.contract.ids import new_id, new_token
from maskq.contract.jobs import Manifest
from maskq.contract.locations import S3Uri
from maskq.contract.locations.allowed import AllowedLocations, Location
from maskq.contract.storage_layout import MAX_MANIFEST_BYTES, StorageLayout
from maskq.ledger import calls
from maskq_worker.errors import PermanentError
from maskq_worker.jobs.retention import Retention
from maskq_worker.storage.object_store import ObjectStore, TooLarge

if TYPE_CHECKING:
    from maskq_standalone.servers.s3 import S3Server


@pytest.fixture
def keep_on_s() -> float:
    return 0.0  # one job a message


@pytest.fixture
def victim(bench: Bench, s3_server: S3Server) -> S3Uri:
    """Somebody else's image, in a place that the worker may use and the job's caller may not."""
    place = S3Uri(s3_server.bucket, f"{bench.prefix}/payroll/salaries.png")
    buffer = io.BytesIO()
    Image.new("P", (60, 40), 7).save(buffer, "PNG")
    s3_server.client().put_object(Bucket=place.bucket, Key=place.key, Body=buffer.getvalue())
    return place


def keys_under(server: S3Server, place: S3Uri) -> set[str]:
    listed = server.client().list_objects_v2(Bucket=place.bucket, Prefix=place.key)
    return {entry["Key"] for entry in listed.get("Contents", [])}


def plant(bench: Bench, job_id: str, body: bytes, output_prefix: str) -> S3Uri:
    place = bench.settings.layout.job(job_id, output_prefix=output_prefix).manifest
    bench.store.put(place, body, "application/json")
    return place


def manifest(**outputs: str) -> bytes:
    made = Manifest(width=60, height=40, model="smallest", outputs=outputs)
    return made.model_dump_json(exclude_defaults=True).encode()


def second_attempt(bench: Bench, job_id: str) -> None:
    """The first one died before it wrote anything."""
    token = new_token()
    bench.ledger.run(calls.claim("smallest", token, owner="x:1", lease_s=1))
    died = JobFailure(code=FailureCode.WORKER_LOST, message="died")
    bench.ledger.run(calls.release(job_id, token, died, charged=False, delay_s=0))


def failed(record: JobRecord) -> str:
    assert record.status is JobStatus.FAILED, record
    assert record.error
    assert record.error.code is FailureCode.INVALID_REQUEST
    assert "did not write it" in record.error.message
    assert "output_prefix" in record.error.message
    return record.error.message


FOREIGN: list[Callable[[S3Uri], bytes]] = [
    lambda victim: manifest(mask=str(victim)),
    lambda victim: manifest(mask=f"{victim}?…"),
    lambda victim: manifest(mask="https://elsewhere.example/mask.png"),
    lambda victim: manifest(),
    lambda victim: manifest(mask=str(victim)).replace(b'"mask":', b'"binary":').replace(b".png", b"/"),
    lambda victim: b"{}",
    lambda victim: b"no manifest",
    lambda victim: b"\xff" * 10,
    lambda victim: b"[" * 5000,
    lambda victim: manifest(mask=str(victim)) + b" " * MAX_MANIFEST_BYTES,
]  # fmt: skip


@pytest.mark.parametrize("attempt", [1, 2])
@pytest.mark.parametrize("body", FOREIGN, ids=range(len(FOREIGN)))
def test_a_planted_manifest_ends_the_job_and_nothing_else(
    bench: Bench, victim: S3Uri, s3_server: S3Server, body: Any, attempt: int
) -> None:
    prefix = f"s3://{s3_server.bucket}/{bench.prefix}/chosen"
    job_id = new_id()
    bench.submit(job_id, output_prefix=prefix)
    planted = plant(bench, job_id, body(victim), prefix)
    if attempt == 2:
        second_attempt(bench, job_id)
    bench.pipeline.run("smallest")
    failed(bench.record(job_id))
    # What it named is there still; of the attempt nothing is left, not even a row that says to look.
    assert keys_under(s3_server, victim) == {victim.key}
    assert keys_under(s3_server, S3Uri.parse(prefix)) == {planted.key}
    assert bench.ledger.redis.zcard(f"{bench.prefix}:orphans") == 0


def test_a_job_that_is_canceled_then_deletes_nothing_that_the_manifest_names(
    bench: Bench, victim: S3Uri, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a manifest that lies there before the commit
    prefix = f"s3://{s3_server.bucket}/{bench.prefix}/chosen"
    job_id = new_id()
    bench.submit(job_id, output_prefix=prefix)
    plant(bench, job_id, manifest(mask=str(victim)), prefix)
    create = bench.store.create

    def create_then_cancel(*args: Any, **options: Any) -> None:
        try:
            create(*args, **options)
        finally:
            bench.ledger.run(calls.cancel(job_id))

    # When the job is canceled while its worker commits
    monkeypatch.setattr(bench.store, "create", create_then_cancel)
    bench.pipeline.run("smallest")
    # Then
    assert bench.record(job_id).status is JobStatus.CANCELED
    assert keys_under(s3_server, victim) == {victim.key}


def test_a_manifest_of_an_earlier_job_with_the_same_id_is_not_this_one_s(bench: Bench) -> None:
    """A raw Celery caller may use a task id again after the record's retention."""
    job_id = new_id()
    bench.submit(job_id)
    bench.pipeline.run("smallest")
    first = bench.record(job_id)
    assert first.status is JobStatus.SUCCEEDED
    bench.ledger.run(calls.delete(job_id))  # its objects stay, as after its retention
    bench.submit(job_id)
    bench.pipeline.run("smallest")
    assert "earlier job with the same id" in failed(bench.record(job_id))


def test_a_result_too_large_to_be_read_again_is_not_committed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maskq_worker.jobs.manifest.MAX_MANIFEST_BYTES", 100)
    job_id = new_id()
    bench.submit(job_id)
    bench.pipeline.run("smallest")
    error = bench.record(job_id).error
    assert error
    assert "at most 100 are allowed" in error.message


# --- the client ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("output", ["mask", "binary", "rle"])
def test_a_client_reads_nothing_outside_the_job_s_own_folder(
    bench: Bench, client: Client, victim: S3Uri, output: str
) -> None:
    # Given a record whose result names somebody else's object, as a worker before this one adopted it
    job_id = new_id()
    bench.submit(job_id, outputs=[output])
    bench.pipeline.run("smallest")
    name = f"{bench.prefix}:job:{job_id}"
    result = json.loads(bench.ledger.redis.hget(name, "result") or "")
    folder = str(victim).rpartition("/")[0]
    result["outputs"][output] = f"{folder}/" if output == "binary" else str(victim)
    bench.ledger.redis.hset(name, "result", json.dumps(result))
    # When / Then
    stolen = client.get(job_id).result()
    label = next(iter(stolen.labels))
    read = {"mask": stolen.mask, "rle": stolen.rle, "binary": lambda: stolen.binary(label)}[output]
    with pytest.raises(InvalidRequest, match=r"outside the job's own folder.*MASKQ_OUTPUT_PREFIX"):
        read()


# --- the store ----------------------------------------------------------------------------------------


def test_every_method_of_the_store_asks_where_the_job_may_go(
    s3_server: S3Server, environment: dict[str, str]
) -> None:
    layout = StorageLayout(S3Uri(s3_server.bucket, environment["MASKQ_OUTPUT_PREFIX"]))
    allowed = AllowedLocations(layout, inputs=[Location(s3_server.bucket, "shared")])
    # No request is made: nothing answers there.
    store = ObjectStore("http://127.0.0.1:9", connections=1, allowed=allowed, home=layout.home)
    places = (
        S3Uri("payroll", "salaries.csv"),
        S3Uri(s3_server.bucket, "share/x"),
        layout.job(new_id(), tenant="other").upload,
    )
    for place in places:
        theirs = layout.job(new_id(), tenant="acme", output_prefix="s3://payroll/x")
        for job in (None, theirs):
            refused(lambda at=place, job=job: store.get(at, max_bytes=1, job=job))
            refused(lambda at=place, job=job: store.find(at, max_bytes=1, job=job))
            refused(lambda at=place, job=job: store.put(at, b"", "text/plain", job=job))
            refused(lambda at=place, job=job: store.create(at, b"", "text/plain", job=job))
            refused(lambda at=place, job=job: store.delete(at, job=job))
        refused(lambda job=theirs: store.list_of(job.outputs, job))
        refused(lambda job=theirs: store.check_writable(job))
    store.close()


def refused(method: Callable[[], Any]) -> None:
    with pytest.raises(PermanentError) as raised:
        method()
    assert raised.value.code is FailureCode.BUCKET_NOT_ALLOWED


def test_no_more_of_a_manifest_is_read_than_fits(bench: Bench) -> None:
    place = bench.settings.layout.job(new_id()).manifest
    bench.store.put(place, b"x" * (MAX_MANIFEST_BYTES + 1), "application/json")
    with pytest.raises(TooLarge):
        bench.store.find(place, max_bytes=MAX_MANIFEST_BYTES)


# --- deletion -----------------------------------------------------------------------------------------

STRANGE = ("photo.jpg", "input.txt", "a-dead-attempt-s/photo.png", "a-dead-attempt-s/binary/x.png")


@pytest.mark.parametrize("way", ["delete", "outputs", "orphans"])
def test_what_maskq_did_not_write_stays(
    bench: Bench, client: Client, s3_server: S3Server, way: str
) -> None:
    prefix = f"s3://{s3_server.bucket}/{bench.prefix}/chosen"
    image = Image.new("RGB", (60, 40), "teal")
    for options in ({}, {"tenant": "acme"}, {"output_prefix": prefix}):
        # Given a job, and objects of other names in its folders
        outputs = {"mask", "binary", "stats"}
        job = client.submit(image, outputs=outputs, **options)
        bench.pipeline.run("smallest")
        record = job.refresh()
        assert record.status is JobStatus.SUCCEEDED, record.error
        storage = client.session.layout.of(record)
        for place in storage.folders:
            for name in STRANGE:
                client.objects.put(place / name, b"theirs", "text/plain")
        left_over = storage.file("a-dead-attempt-s", "mask.png")
        client.objects.put(left_over, b"left", "image/png")
        written = {
            key for place in storage.folders for key in keys_under(s3_server, place)
            if storage.has(S3Uri(place.bucket, key))
        }  # fmt: skip
        assert len(written) >= 6
        # When its own go
        if way == "delete":
            client.delete(job.id)
        else:
            member = " ".join(filter(None, (job.id, *options.values())))
            bench.ledger.redis.zadd(f"{bench.prefix}:{way}", {member: 1})
            layout = bench.settings.layout
            Retention(bench.ledger, bench.store, layout).remove_due()
            assert bench.ledger.redis.zcard(f"{bench.prefix}:{way}") == 0
        # Then theirs stay
        found = {key for place in storage.folders for key in keys_under(s3_server, place)}
        theirs = {(place / name).key for place in storage.folders for name in STRANGE}
        assert found - theirs == (written - {left_over.key} if way == "orphans" else set())
        assert theirs <= found


def test_retention_leaves_the_outputs_of_a_job_whose_manifest_cannot_be_read(
    bench: Bench, client: Client, s3_server: S3Server
) -> None:
    job_id = new_id()
    bench.submit(job_id)
    bench.pipeline.run("smallest")
    bench.store.put(bench.place(job_id) / "result.json", b"rubbish", "text/plain")
    before = keys_under(s3_server, bench.place(job_id))
    retention = Retention(bench.ledger, bench.store, bench.settings.layout)
    for record_is_gone in (False, True):
        if record_is_gone:
            bench.ledger.run(calls.delete(job_id))
        bench.ledger.redis.zadd(f"{bench.prefix}:orphans", {job_id: 1})
        retention.remove_due()
        assert keys_under(s3_server, bench.place(job_id)) == before
        assert bench.ledger.redis.zcard(f"{bench.prefix}:orphans") == 0
