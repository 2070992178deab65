"""Copies of outputs under names of the caller's choice: crashes, second jobs, removal."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from integration.worker.test_pipeline import Bench
from support.transports import TRANSPORTS, connected
from typer.testing import CliRunner

from maskq import Client, FailureCode, InvalidRequest, JobRecord, JobStatus, cli
from maskq.contract import JobFailure, SegmentRequest
from maskq.contract.ids import new_id, new_token
from maskq.contract.locations import S3Uri
from maskq.contract.locations.allowed import AllowedLocations, Location
from maskq.contract.options import Options
from maskq.ledger import calls
from maskq_worker.errors import StoreAway
from maskq_worker.jobs.memory_budget import MemoryBudget
from maskq_worker.jobs.retention import Retention
from maskq_worker.storage.object_store import ObjectStore, WholeObject

if TYPE_CHECKING:
    from maskq_standalone.servers.s3 import S3Server

NAME = "masks/{stem}.{output}"


@pytest.fixture
def keep_on_s() -> float:
    return 0.0  # one job a message


class Bucket:
    """The objects that a test sees, below the output_prefix of its jobs."""

    def __init__(self, server: S3Server, prefix: str) -> None:
        self.client = server.client()
        self.name, self.prefix = server.bucket, f"{prefix}/out"

    @property
    def uri(self) -> str:
        return f"s3://{self.name}/{self.prefix}"

    def names(self) -> set[str]:
        """Of the objects outside the folders of jobs."""
        listed = self.client.list_objects_v2(Bucket=self.name, Prefix=f"{self.prefix}/")
        found = {one["Key"].removeprefix(f"{self.prefix}/") for one in listed.get("Contents", [])}
        return {name for name in found if name.startswith("masks/")}

    def count(self) -> int:
        listed = self.client.list_objects_v2(Bucket=self.name, Prefix=f"{self.prefix}/")
        return len(listed.get("Contents", []))

    def get(self, name: str) -> dict[str, Any]:
        found = self.client.get_object(Bucket=self.name, Key=f"{self.prefix}/{name}")
        return {**found, "Body": found["Body"].read()}

    def put(self, name: str, body: bytes, **metadata: str) -> None:
        self.client.put_object(
            Bucket=self.name,
            Key=f"{self.prefix}/{name}",
            Body=body,
            Metadata={key.replace("_", "-"): value for key, value in metadata.items()},
        )


@pytest.fixture
def bucket(bench: Bench, s3_server: S3Server) -> Bucket:
    return Bucket(s3_server, bench.prefix)


@pytest.fixture
def run(bench: Bench, bucket: Bucket) -> Callable[..., JobRecord]:
    """Submit a job for `in/{image}.png` and run it."""

    def run(job_id: str, image: str = "", **options: Any) -> JobRecord:
        submit(bench, bucket, job_id, image, **options)
        bench.pipeline.run("smallest")
        return bench.record(job_id)

    return run


def submit(bench: Bench, bucket: Bucket, job_id: str, image: str = "", **options: Any) -> None:
    named = {"output_prefix": bucket.uri, "output_name": NAME, **options}
    bench.submit(job_id, image=image, **named)


def failed(record: JobRecord, code: FailureCode) -> str:
    assert record.status is JobStatus.FAILED, record
    assert record.error
    assert record.error.code is code, record.error
    return record.error.message


def test_outputs_are_copied_to_their_names(run: Callable[..., JobRecord], bucket: Bucket) -> None:
    record = run("a", outputs=["mask", "stats", "binary"])
    assert record.result
    assert record.status is JobStatus.SUCCEEDED
    classes = {f"masks/a.binary/{number:03d}.png" for number in record.result.labels}
    assert bucket.names() == {"masks/a.mask.png", "masks/a.stats.json"} | classes
    assert set(record.result.copies.values()) == {f"{bucket.uri}/{one}" for one in bucket.names()}
    # The outputs stay where the attempt wrote them, and the copy is of the same bytes and type
    original = S3Uri.parse(record.result.outputs["mask"])
    assert "masks" not in original.key
    copy = bucket.get("masks/a.mask.png")
    whole = bucket.client.get_object(Bucket=original.bucket, Key=original.key)
    assert copy["Body"] == whole["Body"].read()
    assert copy["ContentType"] == "image/png"
    assert copy["Metadata"]["maskq-job"] == "a"


def test_a_class_can_be_part_of_the_name(run: Callable[..., JobRecord], bucket: Bucket) -> None:
    record = run("a", outputs=["binary"], output_name="masks/{class}/{stem}")
    assert record.result
    assert bucket.names() == {f"masks/{number:03d}/a.png" for number in record.result.labels}


def test_the_folder_of_the_image_can_be_part_of_the_name(
    run: Callable[..., JobRecord], bucket: Bucket, bench: Bench
) -> None:
    run("a", output_name="masks/{dir}/{job_id}-{stem}")
    folder = bench.settings.layout.job("a").outputs.key.rpartition("/")[2]
    assert bucket.names() == {f"masks/{bench.prefix}/in/{folder}-a.png"}


def test_a_second_job_with_the_name_fails_and_leaves_the_first_ones_copy(
    run: Callable[..., JobRecord], bucket: Bucket
) -> None:
    run("a", "photo")
    before = bucket.get("masks/photo.mask.png"), bucket.count()
    message = failed(run("b", "photo"), FailureCode.OUTPUT_EXISTS)
    assert "masks/photo.mask.png exists, and job a wrote it" in message
    assert "output_replace" in message
    after = bucket.get("masks/photo.mask.png"), bucket.count()
    assert after[0]["Metadata"] == before[0]["Metadata"]
    assert after[1] == before[1]  # of the second job nothing is left


def test_a_second_job_replaces_the_copy_if_it_may(
    run: Callable[..., JobRecord], bucket: Bucket
) -> None:
    run("a", "photo")
    assert run("b", "photo", output_replace=True).status is JobStatus.SUCCEEDED
    assert bucket.get("masks/photo.mask.png")["Metadata"]["maskq-job"] == "b"


def test_an_earlier_job_that_ends_later_does_not_replace_the_later_one_s_copy(
    bench: Bench, bucket: Bucket
) -> None:
    # Given a job, and the copy of another that was submitted later
    submit(bench, bucket, "early", "photo", output_replace=True)
    later = bench.record("early").created_ms + 1
    bucket.put("masks/photo.mask.png", b"late", maskq_job="late", maskq_submitted=str(later))
    # When
    bench.pipeline.run("smallest")
    # Then
    message = failed(bench.record("early"), FailureCode.OUTPUT_EXISTS)
    assert "job late, which was submitted later, wrote it" in message
    assert bucket.get("masks/photo.mask.png")["Body"] == b"late"


@pytest.mark.parametrize("replace", [False, True])
def test_an_object_of_somebody_else_is_never_overwritten(
    run: Callable[..., JobRecord], bucket: Bucket, replace: bool
) -> None:
    bucket.put("masks/a.stats.json", b"mine")
    record = run("a", outputs=["mask", "stats"], output_replace=replace)
    assert "no job of maskq wrote it" in failed(record, FailureCode.OUTPUT_EXISTS)
    assert bucket.names() == {"masks/a.stats.json"}
    assert bucket.get("masks/a.stats.json")["Body"] == b"mine"
    assert bucket.count() == 1


def test_an_object_that_appears_after_the_commit_fails_the_job_and_takes_its_copies_back(
    run: Callable[..., JobRecord], bucket: Bucket, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = bench.store.create

    def create_and_collide(*args: Any, **options: Any) -> None:
        create(*args, **options)
        bucket.put("masks/a.stats.json", b"mine")

    monkeypatch.setattr(bench.store, "create", create_and_collide)
    failed(run("a", outputs=["mask", "stats"]), FailureCode.OUTPUT_EXISTS)
    assert bucket.names() == {"masks/a.stats.json"}
    assert bucket.count() == 1


def dying(store: ObjectStore, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """The store fails once `after` copies are written, as for a worker that loses its network."""
    put, written = store.put_named, []

    def put_or_die(place: S3Uri, *args: Any, **options: Any) -> None:
        if len(written) == after:
            raise StoreAway(FailureCode.STORE_UNAVAILABLE, "the store is away")
        put(place, *args, **options)
        written.append(place)

    monkeypatch.setattr(store, "put_named", put_or_die)


@pytest.mark.parametrize("after", [0, 1])
def test_a_later_attempt_completes_the_copies(
    run: Callable[..., JobRecord],
    bucket: Bucket,
    bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
    after: int,
) -> None:
    with monkeypatch.context() as patch:
        dying(bench.store, patch, after)
        record = run("a", outputs=["mask", "stats"])
    assert record.status is JobStatus.QUEUED
    assert len(bucket.names()) == after
    again(bench, "a")
    record = bench.record("a")
    assert record.status is JobStatus.SUCCEEDED
    assert bucket.names() == {"masks/a.mask.png", "masks/a.stats.json"}
    assert record.result
    assert len(record.result.copies) == 2


@pytest.mark.parametrize("is_adopted", [False, True])
def test_an_output_is_read_within_the_memory_budget(
    run: Callable[..., JobRecord],
    bucket: Bucket,
    bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
    is_adopted: bool,
) -> None:
    if is_adopted:
        with monkeypatch.context() as patch:
            dying(bench.store, patch, 0)
            run("a", outputs=["mask", "stats"])
    reserve, read_whole = MemoryBudget.reserve, bench.store.read_whole
    seen: list[tuple[str, int]] = []

    def reserved(budget: MemoryBudget, wanted: int) -> None:
        seen.append(("reserved", wanted))
        reserve(budget, wanted)

    def read(*args: Any, **named: Any) -> WholeObject:
        whole = read_whole(*args, **named)
        seen.append(("read", len(whole.body)))
        return whole

    monkeypatch.setattr(MemoryBudget, "reserve", reserved)
    monkeypatch.setattr(bench.store, "read_whole", read)
    if is_adopted:
        again(bench, "a")
    else:
        run("a", outputs=["mask", "stats"])
    sizes = [len(bucket.get(f"masks/a.{file}")["Body"]) for file in ("mask.png", "stats.json")]
    expected = [(what, size) for size in sizes for what in ("reserved", "read")]
    assert seen[-4:] == expected


def again(bench: Bench, job_id: str) -> None:
    """Run a job that was released, without its back-off."""
    redis = bench.ledger.redis
    redis.zadd(f"{bench.prefix}:waiting", {job_id: 1})
    redis.hset(f"{bench.prefix}:sweeper", "swept_ms", int(time.time() * 1000) - 5000)
    bench.ledger.run(calls.sweep(lease_s=60))
    bench.pipeline.run("smallest")


def test_an_attempt_that_was_canceled_while_it_copied_leaves_nothing(
    run: Callable[..., JobRecord], bucket: Bucket, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = bench.store.put_named

    def put_and_cancel(*args: Any, **options: Any) -> None:
        put(*args, **options)
        bench.ledger.run(calls.cancel("a"))

    monkeypatch.setattr(bench.store, "put_named", put_and_cancel)
    assert run("a", outputs=["mask", "stats"]).status is JobStatus.CANCELED
    assert bucket.count() == 0


def test_copies_of_an_attempt_that_died_are_removed_if_the_job_ends_without_a_result(
    run: Callable[..., JobRecord], bucket: Bucket, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        dying(bench.store, patch, after=1)
        run("a", outputs=["mask", "stats"])
    assert len(bucket.names()) == 1
    # and is claimed again by a worker that dies
    redis = bench.ledger.redis
    redis.zadd(f"{bench.prefix}:waiting", {"a": 1})
    redis.hset(f"{bench.prefix}:sweeper", "swept_ms", int(time.time() * 1000) - 5000)
    bench.ledger.run(calls.sweep(lease_s=60))
    claimed = bench.ledger.run(calls.claim("smallest", new_token(), owner="x:1", lease_s=60))
    assert claimed.job_id == "a"
    bench.ledger.run(calls.cancel("a"))
    assert redis.zrange(f"{bench.prefix}:orphans", 0, -1) == [f"a {bucket.uri}"]
    bench.ledger.redis.zadd(f"{bench.prefix}:orphans", {f"a {bucket.uri}": 1})
    Retention(bench.ledger, bench.store, bench.settings.layout).remove_due()
    assert bucket.count() == 0


@pytest.mark.parametrize("owner", ["a", "another"])
def test_retention_removes_copies_that_are_still_the_job_s(
    run: Callable[..., JobRecord], bucket: Bucket, bench: Bench, owner: str
) -> None:
    run("a", outputs=["mask", "binary"])
    bucket.put("masks/a.mask.png", b"replaced", maskq_job=owner)
    bench.ledger.run(calls.delete("a"))  # the record may be gone first
    bench.ledger.redis.zadd(f"{bench.prefix}:outputs", {f"a {bucket.uri}": 1})
    Retention(bench.ledger, bench.store, bench.settings.layout).remove_due()
    assert bucket.names() == ({"masks/a.mask.png"} if owner == "another" else set())
    assert bucket.count() == len(bucket.names())


@pytest.mark.parametrize("owner", ["the job", "another"])
def test_delete_removes_copies_that_are_still_the_job_s(
    run: Callable[..., JobRecord], bucket: Bucket, client: Client, owner: str
) -> None:
    job_id = new_id()
    run(job_id, "photo", outputs=["mask", "stats"])
    if owner == "another":
        bucket.put("masks/photo.mask.png", b"replaced", maskq_job=new_id())
    client.delete(job_id)
    assert bucket.names() == ({"masks/photo.mask.png"} if owner == "another" else set())


def test_a_copy_goes_only_where_the_job_may_write(
    bench: Bench, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = [Location(bucket.name, f"{bench.prefix}/in"), Location(bucket.name, bucket.prefix)]
    allowed = AllowedLocations(bench.settings.layout, inputs=places)
    monkeypatch.setattr(bench.store, "_allowed", allowed)
    submit(bench, bucket, "a")
    submit(bench, bucket, "b", output_prefix=f"{bucket.uri}-elsewhere")
    bench.pipeline.run("smallest")
    bench.pipeline.run("smallest")
    assert bench.record("a").status is JobStatus.SUCCEEDED
    failed(bench.record("b"), FailureCode.BUCKET_NOT_ALLOWED)


def test_nobody_writes_into_another_tenant_s_folder_by_a_name(bench: Bench, bucket: Bucket) -> None:
    home = bench.settings.layout.home
    victim = new_id()
    submit(
        bench,
        bucket,
        "a",
        outputs=["stats"],
        tenant="acme",
        output_prefix=str(home),
        output_name=f"tenants/other/{victim}/result",
    )
    bench.pipeline.run("smallest")
    failed(bench.record("a"), FailureCode.BUCKET_NOT_ALLOWED)


def test_a_name_that_has_the_form_of_maskq_s_own_is_refused(
    run: Callable[..., JobRecord], bucket: Bucket
) -> None:
    record = run("a", outputs=["stats"], output_name=f"{new_id()}/result")
    assert "form of maskq's own names" in failed(record, FailureCode.INVALID_REQUEST)
    assert bucket.count() == 0


def test_a_manifest_that_names_other_copies_is_not_believed(
    bench: Bench, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put("masks/victim.png", b"mine", maskq_job="a")
    with monkeypatch.context() as patch:
        dying(bench.store, patch, after=0)
        submit(bench, bucket, "a")
        bench.pipeline.run("smallest")
    place = bench.settings.layout.job("a", output_prefix=bucket.uri).manifest
    body = bench.store.find(place, max_bytes=2**20)
    assert body
    document = json.loads(body)
    document["copies"]["mask.png"] = f"{bucket.uri}/masks/victim.png"
    bench.store.put(place, json.dumps(document).encode(), "application/json")
    again(bench, "a")
    assert "other copies" in failed(bench.record("a"), FailureCode.INVALID_REQUEST)
    assert bucket.get("masks/victim.png")["Body"] == b"mine"


def test_a_failed_job_leaves_an_error_file(
    run: Callable[..., JobRecord], bucket: Bucket, bench: Bench
) -> None:
    record = run("a", output_error_file=True, image_etag="other")
    failed(record, FailureCode.SOURCE_CHANGED)
    assert bucket.names() == {"masks/a.error.json"}
    found = bucket.get("masks/a.error.json")
    document = json.loads(found["Body"])
    assert document["error"] == record.error.model_dump(mode="json") if record.error else None
    assert (document["job_id"], document["status"]) == ("a", "failed")
    assert document["image_uri"] == record.request.image_uri
    assert found["Metadata"]["maskq-job"] == "a"
    assert found["ContentType"] == "application/json"
    assert bench.ledger.redis.zcard(f"{bench.prefix}:error-files") == 0


def test_a_job_that_no_worker_ended_leaves_an_error_file_too(bench: Bench, bucket: Bucket) -> None:
    submit(bench, bucket, "a", output_error_file=True)
    token = new_token()
    bench.ledger.run(calls.claim("smallest", token, owner="x:1", lease_s=60))
    gone = JobFailure(code=FailureCode.WORKER_LOST, message="its worker died")
    bench.ledger.run(calls.fail("a", token, JobStatus.FAILED, gone))
    bench.ledger.redis.zadd(f"{bench.prefix}:error-files", {"a": 1})
    Retention(bench.ledger, bench.store, bench.settings.layout).remove_due()
    assert json.loads(bucket.get("masks/a.error.json")["Body"])["error"]["code"] == "worker_lost"
    assert bench.ledger.redis.zcard(f"{bench.prefix}:error-files") == 0


def test_an_error_file_is_removed_with_its_job(
    run: Callable[..., JobRecord], bucket: Bucket, bench: Bench, client: Client
) -> None:
    for job_id in ("a", new_id()):
        run(job_id, output_error_file=True, image_etag="other")
        assert bucket.names() == {f"masks/{job_id}.error.json"}
        if job_id == "a":
            bench.ledger.redis.zadd(f"{bench.prefix}:outputs", {f"a {bucket.uri}": 1})
            Retention(bench.ledger, bench.store, bench.settings.layout).remove_due()
        else:
            client.delete(job_id)
        assert bucket.count() == 0


def test_the_next_job_that_may_replace_it_removes_the_error_file(
    run: Callable[..., JobRecord], bucket: Bucket
) -> None:
    run("a", "photo", output_error_file=True, image_etag="other")
    run("b", "photo", output_error_file=True, output_replace=True)
    assert bucket.names() == {"masks/photo.mask.png"}


def test_a_job_that_failed_because_the_name_is_taken_says_so_beside_it(
    run: Callable[..., JobRecord], bucket: Bucket
) -> None:
    run("a", "photo")
    run("b", "photo", output_error_file=True)
    assert bucket.names() == {"masks/photo.mask.png", "masks/photo.error.json"}
    assert json.loads(bucket.get("masks/photo.error.json")["Body"])["job_id"] == "b"


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_every_way_to_submit_takes_the_options(
    bench: Bench, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, transport: str
) -> None:
    submit(bench, bucket, "first", "photo")  # puts the image
    image = f"s3://{bucket.name}/{bench.prefix}/in/photo.png"
    options: Options = {
        "output_prefix": bucket.uri,
        "output_name": NAME,
        "output_replace": True,
        "output_error_file": True,
    }
    with connected(transport, monkeypatch) as (client, _):
        one = client.submit(image, **options)
        many = client.submit_many([image, image], **options)
        flags = ["--output-prefix", bucket.uri, "--output-name", NAME, "--output-replace"]
        typed = CliRunner().invoke(cli.build(), ["submit", image, *flags])
        assert typed.exit_code == 0, typed.output
        for _ in range(5):
            bench.pipeline.run("smallest")
        expected = {"mask.png": f"{bucket.uri}/masks/photo.mask.png"}
        for job_id in (one.id, *(job.id for job in many.jobs), typed.output.strip()):
            assert client.get(job_id).result().copies == expected
        told = CliRunner().invoke(cli.build(), ["status", one.id])
        assert expected["mask.png"] in told.output
        # A key may contain anything
        with pytest.raises(InvalidRequest, match=r"output_name: the name .* has a part"):
            client.submit("s3://photos/../a.jpg", **{**options, "output_name": "{dir}/{stem}"})
        with pytest.raises(InvalidRequest, match=r"\{name\} is not a placeholder"):
            client.submit(image, **{**options, "output_name": "{name}"})


def test_the_objects_of_a_job_with_an_error_file_are_due_after_their_retention(
    bench: Bench, bucket: Bucket
) -> None:
    asked = SegmentRequest(
        image_uri="s3://photos/a.jpg",
        output_prefix=bucket.uri,
        output_name=NAME,
        output_error_file=True,
    )
    for job_id, request in (
        ("with", asked),
        ("without", asked.model_copy(update={"output_error_file": False})),
    ):
        bench.ledger.run(calls.submit(job_id, request, calls.Limits(output_retention_s=60)))
        token = new_token()
        claimed = bench.ledger.run(calls.claim("smallest", token, owner="x:1", lease_s=60))
        assert claimed.job_id == job_id
        gone = JobFailure(code=FailureCode.INVALID_IMAGE, message="no image")
        assert bench.ledger.run(calls.fail(job_id, token, JobStatus.FAILED, gone))
    redis = bench.ledger.redis
    assert redis.zrange(f"{bench.prefix}:outputs", 0, -1) == [f"with {bucket.uri}"]
    assert redis.zrange(f"{bench.prefix}:error-files", 0, -1) == ["with"]
