"""One job, top to bottom, in this process: real Redis, real S3 server, the smallest model."""

from __future__ import annotations

import io
import json
import threading
import time
from typing import TYPE_CHECKING, Any

import obstore
import pytest
from celery.exceptions import Ignore
from PIL import Image
from support.waiting import until

from maskq import FailureCode, JobRecord, JobStatus, Output
from maskq.contract import JobFailure, JobResult, SegmentRequest
from maskq.contract.locations import S3Uri
from maskq.errors import SegmentRefused, StoreUnavailable
from maskq.ledger import Ledger, calls
from maskq_worker.batching.batcher import MicroBatcher
from maskq_worker.broker import celery_callers
from maskq_worker.decoding import DecodeLimits, ThreadDecoder
from maskq_worker.jobs.leases import Leases
from maskq_worker.jobs.manifest import manifest_of
from maskq_worker.jobs.runner import JobRunner
from maskq_worker.model import ModelInput, PendingOutput, Segmenter
from maskq_worker.settings import WorkerSettings
from maskq_worker.storage import boto3_requests
from maskq_worker.storage.object_store import ObjectStore

if TYPE_CHECKING:
    from maskq_standalone.servers.s3 import S3Server

TOKEN = "a-dead-attempt-s"


class Bench:
    """A worker's inside without Celery, and a caller's view of the same ledger and store."""

    def __init__(self, segmenter: Segmenter, **changes: object) -> None:
        self.settings = WorkerSettings.load(**changes)
        self.prefix = self.settings.key_prefix
        self.ledger = Ledger.of(self.settings)
        self.store = ObjectStore(
            self.settings.s3_endpoint_url,
            connections=4,
            allowed=self.settings.locations(),
            home=self.settings.layout.home,
        )
        self.batcher: MicroBatcher[ModelInput, PendingOutput] = MicroBatcher(
            segmenter, max_batch_size=2, name="model"
        )
        self.batcher.start()
        self.pipeline = JobRunner(
            self.settings,
            ledger=self.ledger,
            store=self.store,
            decoder=ThreadDecoder(DecodeLimits.of(self.settings)),
            segmenter=segmenter,
            batcher=self.batcher,
            leases=Leases(self.ledger, self.settings.lease_s),
            owner="here:1",
        )
        self.ledger.run(calls.register_model("smallest", {}))

    def submit(self, job_id: str, *, image: str = "", **request: object) -> None:
        buffer = io.BytesIO()
        Image.new("RGB", (60, 40), "teal").save(buffer, "PNG")
        place = S3Uri(self.settings.s3_bucket, f"{self.prefix}/in/{image or job_id}.png")
        self.store.put(place, buffer.getvalue(), "image/png")
        asked = SegmentRequest.model_validate({"image_uri": str(place), **request})
        self.ledger.run(calls.submit(job_id, asked, calls.Limits()))

    def record(self, job_id: str) -> JobRecord:
        record = self.ledger.run(calls.get(job_id))
        assert record is not None
        return record

    def place(self, job_id: str) -> S3Uri:
        return self.settings.layout.job(job_id).outputs

    def close(self) -> None:
        self.pipeline.stop_claiming()
        self.batcher.close()
        self.ledger.close()


@pytest.fixture
def keep_on_s() -> float:
    return 60.0  # however slow this machine is


def names_under(server: S3Server, place: S3Uri) -> set[str]:
    listed = server.client().list_objects_v2(Bucket=place.bucket, Prefix=f"{place.key}/")
    return {entry["Key"].rpartition("/")[2] for entry in listed.get("Contents", [])}


def test_a_job_ends_with_its_outputs_under_its_own_place(bench: Bench, s3_server: S3Server) -> None:
    bench.submit("a", outputs=["mask", "stats"])
    bench.pipeline.run("smallest")
    record = bench.record("a")
    assert record.status is JobStatus.SUCCEEDED
    assert record.result is not None
    assert (record.result.width, record.result.height) == (60, 40)
    assert names_under(s3_server, bench.place("a")) == {"mask.png", "stats.json", "result.json"}


def test_a_thread_that_is_done_goes_on_with_the_next_job(bench: Bench) -> None:
    # Given three jobs, and the ticket of the first taken by Celery
    for job_id in "abc":
        bench.submit(job_id)
    tickets = bench.ledger.redis
    tickets.rpop(f"{bench.prefix}.smallest")
    # When
    bench.pipeline.run("smallest")
    # Then all are done, by one message, and no ticket is left over
    assert {bench.record(job_id).status for job_id in "abc"} == {JobStatus.SUCCEEDED}
    assert tickets.llen(f"{bench.prefix}.smallest") == 0


def test_the_next_job_is_claimed_in_the_trip_that_ends_the_last(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    trips: list[str] = []
    for name in ("run", "run_many"):
        real = getattr(bench.ledger, name)
        monkeypatch.setattr(
            bench.ledger, name, lambda asked, n=name, r=real: trips.append(n) or r(asked)
        )
    for job_id in "ab":
        bench.submit(job_id)
    bench.ledger.redis.rpop(f"{bench.prefix}.smallest")
    trips.clear()
    bench.pipeline.run("smallest")
    assert {bench.record(job_id).status for job_id in "ab"} == {JobStatus.SUCCEEDED}
    assert trips[:3] == ["run", "run_many", "run_many"]  # all else are our own looks


def test_a_job_is_three_requests_to_the_store(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a worker that has learnt from one job that the bucket creates an object only once
    bench.submit("first")
    bench.pipeline.run("smallest")
    sent: list[str] = []
    for name in ("get", "put"):
        real = getattr(obstore, name)
        monkeypatch.setattr(
            obstore, name, lambda *a, n=name, r=real, **o: sent.append(n) or r(*a, **o)
        )
    for name in ("get", "put", "head"):  # which is asked where obstore cannot
        monkeypatch.setattr(boto3_requests, name, lambda *_, n=name: sent.append(f"boto3 {n}"))
    # When
    bench.submit("second")
    sent.clear()  # our own upload
    bench.pipeline.run("smallest")
    # Then: the image, the mask, the manifest
    assert bench.record("second").status is JobStatus.SUCCEEDED
    assert sent == ["get", "put", "put"]


@pytest.mark.parametrize("end", ["canceled", "failed"])
def test_after_a_job_that_came_to_nothing_it_goes_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    get = bench.store.get

    def troubled(place: S3Uri, **options: Any) -> Any:
        if place.key.endswith("/a.png"):
            if end == "failed":
                return get(place / "no-such-object", **options)
            bench.ledger.run(calls.cancel("a"))
            for held in bench.pipeline._leases.holding():
                held.mark_lost()
        return get(place, **options)

    monkeypatch.setattr(bench.store, "get", troubled)
    for job_id in "ab":
        bench.submit(job_id)
    bench.ledger.redis.rpop(f"{bench.prefix}.smallest")
    bench.pipeline.run("smallest")
    assert bench.record("a").status is JobStatus(end)
    assert bench.record("b").status is JobStatus.SUCCEEDED
    assert bench.pipeline._leases.holding() == []


@pytest.mark.parametrize("trouble", [False, True])
def test_the_next_job_is_held_while_the_last_one_s_outputs_are_removed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, trouble: bool
) -> None:
    """Else its lease would run out, should the store take long."""
    # Given a job that is canceled when its outputs are there already
    create, delete = bench.store.create, bench.store.delete
    held: list[set[str]] = []

    def create_then_cancel(*args: Any, **options: Any) -> None:
        create(*args, **options)
        bench.ledger.run(calls.cancel("a"))

    def look_and_delete(*args: Any, **options: Any) -> None:
        held.append({one.job_id for one in bench.pipeline._leases.holding()})
        if trouble:
            raise RuntimeError("a fault of ours")
        delete(*args, **options)

    monkeypatch.setattr(bench.store, "create", create_then_cancel)
    monkeypatch.setattr(bench.store, "delete", look_and_delete)
    for job_id in "ab":
        bench.submit(job_id)
    bench.ledger.redis.rpop(f"{bench.prefix}.smallest")
    # When
    bench.pipeline.run("smallest")
    # Then it goes on with the next one, whatever became of the removal
    assert bench.record("a").status is JobStatus.CANCELED
    assert held[0] == {"a", "b"}
    assert bench.record("b").status is JobStatus.SUCCEEDED
    assert bench.pipeline._leases.holding() == []


def test_a_suspect_that_comes_next_is_run_alone_and_nothing_after_it(bench: Bench) -> None:
    for job_id in "abc":
        bench.submit(job_id)
    bench.ledger.redis.hset(f"{bench.prefix}:job:b", "alone", "1")
    tickets = f"{bench.prefix}.smallest"
    bench.ledger.redis.rpop(tickets)
    bench.pipeline.run("smallest")
    assert [bench.record(job_id).status for job_id in "abc"] == [
        JobStatus.SUCCEEDED, JobStatus.SUCCEEDED, JobStatus.QUEUED,
    ]  # fmt: skip
    assert bench.ledger.redis.llen(tickets) == 1  # for the third
    with bench.pipeline._process_lock.alone():  # nobody holds it any more
        pass


def test_who_wants_to_run_alone_does_not_wait_for_all_jobs(bench: Bench) -> None:
    # Given a thread with jobs ahead of it, and another that waits to run one alone
    for job_id in "ab":
        bench.submit(job_id)
    put, asking = bench.store.put, threading.Thread(target=lambda: hold_alone(bench))

    def put_then_ask(*args: Any, **options: Any) -> None:
        put(*args, **options)
        asking.start()
        until(lambda: bench.pipeline._process_lock.is_wanted_alone)

    bench.store.put = put_then_ask  # type: ignore[method-assign]
    # When / Then the thread ends the job it has, and makes room
    bench.pipeline.run("smallest")
    asking.join(10)
    assert bench.record("a").status is JobStatus.SUCCEEDED
    assert bench.record("b").status is JobStatus.QUEUED


def hold_alone(bench: Bench) -> None:
    with bench.pipeline._process_lock.alone():
        pass


def test_the_stages_are_all_of_a_job(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.submit("a")
    monkeypatch.setattr(
        "maskq_worker.jobs.stages.manifest_of",
        lambda *args, **named: time.sleep(0.05) or manifest_of(*args, **named),
    )
    began = time.perf_counter()
    bench.pipeline.run("smallest")
    took_ms = (time.perf_counter() - began) * 1e3
    result = bench.record("a").result
    assert result is not None
    assert [*result.timings_ms] == [
        "fetch", "decode", "prepare", "model", "encode", "store", "commit",
    ]  # fmt: skip
    assert 0 < sum(result.timings_ms.values()) < took_ms
    assert result.timings_ms["commit"] >= 50  # what lies between two stages is of the second
    # The manifest was written before it was known how long that takes.
    manifest = json.loads(
        bench.store.find(bench.place("a") / "result.json", max_bytes=10**6) or b""
    )
    assert "commit" not in manifest["timings_ms"]


def test_after_a_while_a_thread_goes_back_to_celery(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other messages wait there."""
    monkeypatch.setattr("maskq_worker.jobs.runner._KEEP_ON_S", 0.0)
    bench.submit("a")
    bench.submit("b")
    bench.pipeline.run("smallest")
    assert bench.record("a").status is JobStatus.SUCCEEDED
    assert bench.record("b").status is JobStatus.QUEUED


def test_a_worker_that_stops_goes_on_with_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a worker that is told to stop while it has a job in hand
    bench.submit("a")
    bench.submit("b")
    put = bench.store.put

    def stop_then_put(*args: Any, **options: Any) -> None:
        bench.pipeline.stop_claiming()
        put(*args, **options)

    monkeypatch.setattr(bench.store, "put", stop_then_put)
    # When / Then that job ends, and the other is left to others
    bench.pipeline.run("smallest")
    assert bench.record("a").status is JobStatus.SUCCEEDED
    assert bench.record("b").status is JobStatus.QUEUED


def test_outputs_go_where_the_caller_wants_them(bench: Bench, s3_server: S3Server) -> None:
    wanted = S3Uri(bench.settings.s3_bucket, f"{bench.prefix}/albums/2026")
    bench.submit("a", output_prefix=str(wanted))
    bench.pipeline.run("smallest")
    written = bench.settings.layout.of(bench.record("a")).outputs
    assert str(written).startswith(f"{wanted}/")
    assert names_under(s3_server, written) == {"mask.png", "result.json"}


def test_a_later_attempt_adopts_what_an_earlier_one_committed(
    bench: Bench, s3_server: S3Server
) -> None:
    # Given a first attempt that wrote its manifest and died before it could say so
    bench.submit("a")
    dead = bench.ledger.run(calls.claim("smallest", TOKEN, owner="x:1", lease_s=0.001))
    assert dead.record is not None
    earlier = JobResult(
        width=60,
        height=40,
        model="smallest",
        outputs={Output.MASK: f"{bench.place('a')}/{TOKEN}/mask.png"},
    )
    body = earlier.model_dump_json(exclude_defaults=True).encode()
    bench.store.create(bench.place("a") / "result.json", body, "application/json")
    error = JobFailure(code=FailureCode.WORKER_LOST, message="died")
    bench.ledger.run(calls.release("a", TOKEN, error, charged=False, delay_s=0))

    # When the job is run again
    bench.pipeline.run("smallest")

    # Then that result is the job's, and nothing was written twice
    assert bench.record("a").result == earlier
    assert names_under(s3_server, bench.place("a")) == {"result.json"}


def test_a_job_that_is_canceled_before_its_commit_leaves_no_result(
    bench: Bench, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a job that is canceled in the moment its manifest is written
    bench.submit("a")
    create = bench.store.create

    def cancel_then_create(*args: Any, **options: Any) -> None:
        bench.ledger.run(calls.cancel("a"))
        create(*args, **options)

    monkeypatch.setattr(bench.store, "create", cancel_then_create)

    # When it is run
    bench.pipeline.run("smallest")

    # Then it stays canceled, and what was written is gone
    assert bench.record("a").status is JobStatus.CANCELED
    assert names_under(s3_server, bench.place("a")) == set()


def test_an_outage_of_the_store_is_waited_out_uncharged(
    bench: Bench, segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a worker whose store does not answer
    from maskq_standalone.ports import free_port

    bench.submit("a")
    nowhere = Bench(segmenter, s3_endpoint_url=f"http://127.0.0.1:{free_port()}")

    # When it runs a job
    nowhere.pipeline.run("smallest")
    nowhere.close()

    # Then the job waits for its next attempt, uncharged, and says why
    record = bench.record("a")
    assert (record.status, record.attempt, record.charges) == (JobStatus.QUEUED, 1, 0)
    assert record.error is not None
    assert record.error.code is FailureCode.STORE_UNAVAILABLE
    assert record.not_before_ms is not None


def test_the_memory_an_image_takes_is_given_back(
    segmenter: Segmenter, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(segmenter, max_decoded_bytes=1)  # every image is larger: one at a time
    budget, taken = bench.pipeline._stages._memory_budget, []
    real = segmenter.prepare
    monkeypatch.setattr(
        segmenter, "prepare", lambda *a, **k: taken.append(budget.reserved) or real(*a, **k)
    )
    for job_id in ("a", "b"):
        bench.submit(job_id)
        bench.pipeline.run("smallest")
        assert bench.record(job_id).status is JobStatus.SUCCEEDED
    assert taken == [8 * 60 * 40] * 2
    assert budget.reserved == 0
    bench.close()


def test_a_fault_of_ours_fails_its_job_alone(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.submit("a")
    with monkeypatch.context() as broken:
        broken.setattr("maskq_worker.outputs.encode", lambda *_, **__: 1 / 0)
        bench.pipeline.run("smallest")
    error = bench.record("a").error
    assert error is not None
    assert (error.code, "ZeroDivisionError" in error.message) == (FailureCode.INTERNAL, True)
    bench.submit("b")
    bench.pipeline.run("smallest")
    assert bench.record("b").status is JobStatus.SUCCEEDED


def test_messages_for_jobs_that_are_not_there_to_run_are_dropped(bench: Bench) -> None:
    bench.pipeline.run("smallest")
    bench.submit("a")
    bench.pipeline.run("smallest")
    ended = bench.record("a")
    bench.pipeline.run("smallest")
    assert bench.record("a") == ended


def test_a_suspect_is_run_alone(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    exclusive: list[object] = []
    real = bench.store.get

    def seen(*args: Any, **options: Any) -> Any:
        exclusive.append(bench.ledger.redis.hget(f"{bench.prefix}:job:a", "exclusive"))
        return real(*args, **options)

    monkeypatch.setattr(bench.store, "get", seen)
    bench.submit("a")
    bench.ledger.redis.hset(f"{bench.prefix}:job:a", "alone", "1")
    bench.pipeline.run("smallest")
    assert (bench.record("a").status, exclusive) == (JobStatus.SUCCEEDED, ["1"])


def test_what_a_newer_client_asks_for_is_left_to_a_newer_worker(bench: Bench) -> None:
    # Given a job with an option that this version does not know
    bench.submit("a", priority="high")
    name = f"{bench.prefix}:job:a"
    asked = json.loads(bench.ledger.redis.hget(name, "request") or "{}")
    bench.ledger.redis.hset(name, "request", json.dumps({**asked, "tiles": 4}))
    bench.submit("b")
    # When a worker of this version meets it
    bench.pipeline.run("smallest")
    # Then it waits, uncharged, can be looked at, and holds up nobody
    record = bench.record("a")
    assert (record.status, record.charges) == (JobStatus.QUEUED, 0)
    assert record.error is not None
    assert "tiles" in record.error.message
    bench.pipeline.run("smallest")
    assert bench.record("b").status is JobStatus.SUCCEEDED


@pytest.mark.parametrize("body", [b"no manifest", b"{}"])
def test_a_stranger_s_object_in_the_manifest_s_place_is_told(bench: Bench, body: bytes) -> None:
    bench.submit("a")
    bench.store.put(bench.place("a") / "result.json", body, "text/plain")
    bench.pipeline.run("smallest")
    error = bench.record("a").error
    assert error is not None
    assert "output_prefix" in error.message


# --- raw Celery callers -----------------------------------------------------------------------------


def test_an_answer_that_finds_no_record_starts_no_job(bench: Bench) -> None:
    # Given a raw caller's job, which is canceled, so that the caller's own message is sent again
    request = {"image_uri": "s3://photos/a.png"}
    with pytest.raises(Ignore):
        celery_callers.answer(bench.pipeline.persist, bench.settings, {"id": "a"}, [request], {})
    bench.ledger.run(calls.cancel("a"))
    message = json.loads(bench.ledger.redis.rpop(bench.prefix))
    # When the record is deleted before that message is read
    bench.ledger.run(calls.delete("a"))
    args = json.loads(message["body"])[0]
    with pytest.raises(SegmentRefused, match="not_found"):
        celery_callers.answer(bench.pipeline.persist, bench.settings, message["headers"], args, {})
    # Then the job is not run after all
    assert bench.ledger.run(calls.get("a")) is None


def test_an_answer_waits_for_a_redis_that_is_away(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.submit("a")
    bench.pipeline.run("smallest")
    run, away = bench.ledger.run, [StoreUnavailable("away"), StoreUnavailable("away")]

    def troubled(call: calls.Call[Any]) -> Any:
        if away:
            raise away.pop()
        return run(call)

    monkeypatch.setattr(bench.ledger, "run", troubled)
    answer = celery_callers.answer(bench.pipeline.persist, bench.settings, {"id": "a"}, [], {})
    assert answer["job_id"] == "a"
