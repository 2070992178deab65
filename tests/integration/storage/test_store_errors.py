"""What becomes of jobs whose store refuses, fails or hangs; and of those beside them."""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from integration.worker.test_pipeline import Bench
from PIL import Image
from support.damaged import damaged
from support.s3_front import Rule, S3Front
from support.waiting import stays, until

from maskq import Client, FailureCode, JobRecord, JobStatus, StoreRefused
from maskq.backoff import ExponentialBackoff, Jitter
from maskq.contract import SegmentRequest
from maskq.contract.locations import S3Uri
from maskq.ledger import calls
from maskq_standalone.ports import free_port
from maskq_worker.broker.bootstep import ModelStep
from maskq_worker.jobs.retention import Retention
from maskq_worker.model import Segmenter
from maskq_worker.storage.object_store import ObjectStore

if TYPE_CHECKING:
    from maskq_standalone.servers.s3 import S3Server

WAIT_S = 20.0


@pytest.fixture
def front(
    s3_server: S3Server, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[S3Front]:
    with S3Front(s3_server.port) as front:
        monkeypatch.setenv("MASKQ_S3_ENDPOINT_URL", front.url)
        yield front


@pytest.fixture
def bench(segmenter: Segmenter, front: S3Front, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr("maskq_worker.jobs.runner._KEEP_ON_S", 0.0)  # one job at a time
    monkeypatch.setattr("maskq_worker.storage.circuit_breaker._PROBE_EVERY_S", 0.05)
    monkeypatch.setattr("maskq_worker.storage.circuit_breaker._RENEW_EVERY_S", 0.05)
    monkeypatch.setattr(
        "maskq_worker.storage.circuit_breaker.STORE_CIRCUIT",
        ExponentialBackoff(0.05, 0.2, Jitter(0.8, 1.0)),
    )
    monkeypatch.setattr("maskq.s3._RENEW_EVERY_S", 0.2)
    made = Bench(segmenter)
    yield made
    front.rules = []
    made.close()
    made.store.close()


@pytest.fixture
def tenant(s3_server: S3Server, key_prefix: str) -> str:
    """A bucket of somebody else, with an image in it."""
    name, buffer = f"tenant-{key_prefix}", io.BytesIO()
    Image.new("RGB", (60, 40), "teal").save(buffer, "PNG")
    plain = s3_server.client()
    plain.create_bucket(Bucket=name)
    plain.put_object(Bucket=name, Key="photo.png", Body=buffer.getvalue())
    return name


def submit(bench: Bench, job_id: str, image: str, **request: Any) -> None:
    asked = SegmentRequest.model_validate({"image_uri": image, **request})
    bench.ledger.run(calls.submit(job_id, asked, calls.Limits()))


def run(bench: Bench, job_id: str, image: str = "", **request: Any) -> JobRecord:
    """Submit one and run it; its image is in the deployment's own bucket if none is named."""
    if image:
        submit(bench, job_id, image, **request)
    else:
        bench.submit(job_id, **request)
    bench.pipeline.run("smallest")
    return bench.record(job_id)


def again(bench: Bench, job_id: str) -> JobRecord:
    """Its back-off is over: run it."""
    redis, name = bench.ledger.redis, f"{bench.prefix}:job:{job_id}"
    redis.hdel(name, "not_before_ms")
    redis.zrem(f"{bench.prefix}:waiting", job_id)
    created = float(redis.hget(name, "created_ms") or 0)
    redis.zadd(f"{bench.prefix}:ready:smallest:normal:", {job_id: created})
    redis.zadd(f"{bench.prefix}:turns:smallest:normal", {"": 0})  # as version 0.1 had it
    bench.pipeline.run("smallest")
    return bench.record(job_id)


def keys_of(server: S3Server, place: S3Uri) -> set[str]:
    listed = server.client().list_objects_v2(Bucket=place.bucket, Prefix=f"{place.key}/")
    return {entry["Key"].rpartition("/")[2] for entry in listed.get("Contents", [])}


def orphans(bench: Bench) -> list[str]:
    return list(bench.ledger.redis.zrange(f"{bench.prefix}:orphans", 0, -1))


# --- refusals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("client", ["obstore", "boto3"])
@pytest.mark.parametrize(
    ("status", "code", "told"),
    [
        (403, "InvalidObjectState", FailureCode.STORE_REFUSED),
        (400, "KMS.DisabledException", FailureCode.STORE_REFUSED),
        (405, "MethodNotAllowed", FailureCode.STORE_REFUSED),
        (301, "PermanentRedirect", FailureCode.STORE_REFUSED),
        (400, "AuthorizationHeaderMalformed", FailureCode.STORE_REFUSED),
        (403, "AccessDenied", FailureCode.ACCESS_DENIED),
        (404, "NoSuchKey", FailureCode.NOT_FOUND),
    ],
)
def test_a_refusal_ends_its_job_at_once_in_the_store_s_own_words(
    bench: Bench,
    front: S3Front,
    tenant: str,
    client: Any,
    status: int,
    code: str,
    told: FailureCode,
) -> None:
    bench.store._use_obstore = client == "obstore"
    front.rules = [Rule(f"/{tenant}", status=status, code=code, words=f"words of {code}")]
    record = run(bench, "a", f"s3://{tenant}/photo.png")
    assert (record.status, record.attempt) == (JobStatus.FAILED, 1)
    assert record.error is not None
    assert record.error.code is told
    assert code in record.error.message
    assert status == 301 or f"words of {code}" in record.error.message
    assert bench.pipeline.may_claim
    assert run(bench, "b").status is JobStatus.SUCCEEDED


@pytest.mark.parametrize("client", ["obstore", "boto3"])
@pytest.mark.parametrize("code", ["KeyTooLongError", "AccessDenied", "InvalidBucketName"])
def test_a_refused_output_ends_its_job_at_once(
    bench: Bench, front: S3Front, tenant: str, client: Any, code: str
) -> None:
    bench.store._use_obstore = client == "obstore"
    front.rules = [Rule(f"PUT /{tenant}", status=400, code=code)]
    record = run(bench, "a", f"s3://{tenant}/photo.png", output_prefix=f"s3://{tenant}/out")
    assert record.status is JobStatus.FAILED
    assert record.error is not None
    assert f"{code}: words of the store" in record.error.message
    assert run(bench, "b").status is JobStatus.SUCCEEDED


def test_a_prefix_that_leaves_no_room_for_outputs_is_refused_at_submit(
    bench: Bench, tenant: str
) -> None:
    with Client.from_env() as client, pytest.raises(ValueError, match="output_prefix"):
        client.submit("s3://photos/a.png", output_prefix=f"s3://{tenant}/{'x' * 1000}")
    # One that an earlier version accepted can still be read
    longest = "x" * 950
    submit(bench, "a", f"s3://{tenant}/photo.png", output_prefix=f"s3://{tenant}/{longest}")
    name = f"{bench.prefix}:job:a"
    asked = (bench.ledger.redis.hget(name, "request") or "").replace(longest, "x" * 1000)
    bench.ledger.redis.hset(name, "request", asked)
    bench.pipeline.run("smallest")
    assert bench.record("a").ended


def test_a_client_tells_a_refusal_from_an_outage(bench: Bench, front: S3Front) -> None:
    front.rules = [Rule("PUT ", status=400, code="EntityTooLarge")]
    with Client.from_env() as client, pytest.raises(StoreRefused, match="EntityTooLarge") as caught:
        client.submit(damaged("image"))
    assert caught.value.code is FailureCode.STORE_REFUSED


def test_one_image_that_the_store_refuses_does_not_end_a_run(bench: Bench, front: S3Front) -> None:
    front.rules = [Rule("PUT ", status=400, code="EntityTooLarge", times=1)]
    with Client.from_env() as client:
        found = list(client.submit_each([damaged("one"), damaged("two")], chunk=1))
    assert sorted(type(one.error).__name__ for one in found) == ["NoneType", "StoreRefused"]


# --- outages ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rule",
    [
        Rule("", status=503, code="SlowDown"),
        Rule("", status=429, code="TooManyRequests"),
        Rule("", status=500, code="InternalError"),
        Rule("", do="reset"),
        Rule("", do="truncate"),
    ],
    ids=lambda rule: f"{rule.do}-{rule.code if rule.do == 'answer' else ''}",
)
def test_a_tenant_s_store_that_fails_holds_up_its_own_jobs_only(
    bench: Bench, front: S3Front, tenant: str, rule: Rule
) -> None:
    # Given a bucket that fails (boto3 has the last word about it)
    rule.match = f"GET /{tenant}/photo"
    front.rules = [rule]

    # When one of its jobs runs, then it waits, uncharged
    record = run(bench, "a", f"s3://{tenant}/photo.png")
    assert (record.status, record.charges) == (JobStatus.QUEUED, 0)
    assert record.error is not None
    assert record.error.code is FailureCode.STORE_UNAVAILABLE

    # And others do not
    until(lambda: bench.pipeline.may_claim)
    assert run(bench, "good").status is JobStatus.SUCCEEDED

    # And it is done when the bucket is back
    front.rules = []
    until(lambda: again(bench, "a").ended)
    assert bench.record("a").status is JobStatus.SUCCEEDED
    assert bench.record("a").charges == 0


def test_while_a_bucket_is_left_alone_its_jobs_cost_no_request(
    bench: Bench, front: S3Front, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "maskq_worker.storage.circuit_breaker.STORE_CIRCUIT",
        ExponentialBackoff(60.0, 60.0, Jitter(0.8, 1.0)),
    )
    front.rules = [Rule(f"/{tenant}", status=503, code="SlowDown")]
    run(bench, "a", f"s3://{tenant}/photo.png")
    asked = front.asked(f"/{tenant}")
    records = [run(bench, job_id, f"s3://{tenant}/photo.png") for job_id in "bcd"]
    assert front.asked(f"/{tenant}") == asked
    for record in records:
        assert record.status is JobStatus.QUEUED
        assert record.error is not None
        assert "SlowDown" in record.error.message
        assert record.not_before_ms is not None
        assert record.not_before_ms - time.time() * 1000 > 40_000  # it does not come back sooner


def test_a_bucket_for_outputs_that_is_left_alone_costs_no_forward(
    bench: Bench, front: S3Front, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "maskq_worker.storage.circuit_breaker.STORE_CIRCUIT",
        ExponentialBackoff(60.0, 60.0, Jitter(0.8, 1.0)),
    )
    front.rules = [Rule(f"PUT /{tenant}", status=503, code="SlowDown")]
    elsewhere = f"s3://{tenant}/out"
    assert run(bench, "a", output_prefix=elsewhere).status is JobStatus.QUEUED
    read = front.asked("GET .*/in/b.png")
    assert run(bench, "b", output_prefix=elsewhere).status is JobStatus.QUEUED
    assert front.asked("GET .*/in/b.png") == read


def test_a_host_of_urls_that_is_away_is_not_called_by_every_job(
    segmenter: Segmenter, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "maskq_worker.storage.circuit_breaker.STORE_CIRCUIT",
        ExponentialBackoff(60.0, 60.0, Jitter(0.8, 1.0)),
    )
    here = Bench(segmenter, presigned_allowed_hosts="127.0.0.1")
    url = f"http://127.0.0.1:{free_port()}/photo.png?X-Amz-Signature=secret"
    first, second = run(here, "a", url), run(here, "b", url)
    # The first was tried, which is the caller's to pay; the second was not
    assert (first.status, first.charges) == (JobStatus.QUEUED, 1)
    assert (second.status, second.charges) == (JobStatus.QUEUED, 0)
    assert second.error is not None
    assert "could not be reached" in second.error.message
    assert "secret" not in second.error.message
    assert run(here, "good").status is JobStatus.SUCCEEDED
    here.close()
    here.store.close()


def test_where_all_of_the_store_is_away_nothing_is_claimed(
    bench: Bench, front: S3Front, tenant: str
) -> None:
    front.rules = [Rule("", status=503, code="ServiceUnavailable")]
    run(bench, "a", f"s3://{tenant}/photo.png")  # which asks a tenant's bucket first
    until(lambda: front.asked(f"GET /{bench.settings.s3_bucket}/"))
    stays(lambda: not bench.pipeline.may_claim, for_s=0.1)
    front.rules = []
    until(lambda: bench.pipeline.may_claim)


def test_what_expires_says_what_its_last_attempt_met(
    bench: Bench, front: S3Front, tenant: str
) -> None:
    front.rules = [Rule(f"/{tenant}", status=503, code="SlowDown")]
    assert run(bench, "a", f"s3://{tenant}/photo.png").status is JobStatus.QUEUED
    bench.ledger.redis.zadd(f"{bench.prefix}:deadlines", {"a": 1})
    bench.ledger.run(calls.sweep(lease_s=15))
    record = bench.record("a")
    assert record.status is JobStatus.EXPIRED
    assert record.error is not None
    assert record.error.code is FailureCode.EXPIRED
    assert "store_unavailable" in record.error.message
    assert "SlowDown" in record.error.message


# --- the worker's own credentials ---------------------------------------------------------------------


@pytest.fixture
def credentials_file(
    s3_server: S3Server,
    environment: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[str], None]:
    """Credentials as a sidecar rotates them; called with the key to write."""
    file = tmp_path / "credentials"

    def write(key: str) -> None:
        file.write_text(
            f"[default]\naws_access_key_id = {key}\n"
            f"aws_secret_access_key = {s3_server.secret_access_key}\n"
        )

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    write(s3_server.access_key_id)
    return write


@pytest.mark.parametrize("client", ["obstore", "boto3"])
def test_credentials_that_were_rotated_are_read_again(
    credentials_file: Callable[[str], None], bench: Bench, s3_server: S3Server, client: Any
) -> None:
    bench.store._use_obstore = client == "obstore"
    bench.submit("a")
    credentials_file("OLDKEY")
    bench.store._requests.connection.renew()  # a worker that started with the old key
    credentials_file(s3_server.access_key_id)
    bench.pipeline.run("smallest")
    assert bench.record("a").status is JobStatus.SUCCEEDED
    assert bench.record("a").attempt == 1


@pytest.mark.parametrize("client", ["obstore", "boto3"])
def test_while_the_worker_s_credentials_are_refused_it_ends_no_job_and_says_so(
    credentials_file: Callable[[str], None],
    bench: Bench,
    s3_server: S3Server,
    client: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    # Given a worker whose key was withdrawn
    bench.store._use_obstore = client == "obstore"
    bench.submit("a")
    credentials_file("WITHDRAWN")
    bench.store._requests.connection.renew()

    # When it runs a job, then that is given back, and no other is claimed
    bench.pipeline.run("smallest")
    record = bench.record("a")
    assert (record.status, record.charges) == (JobStatus.QUEUED, 0)
    until(lambda: not bench.pipeline.may_claim)
    until(lambda: any(one.levelno == logging.ERROR for one in caplog.records))
    assert any("InvalidAccessKeyId" in one.getMessage() for one in caplog.records)

    # And with a new key it goes on by itself
    credentials_file(s3_server.access_key_id)
    until(lambda: bench.pipeline.may_claim)
    until(lambda: again(bench, "a").ended)
    assert bench.record("a").status is JobStatus.SUCCEEDED


@pytest.mark.parametrize("code", ["InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"])
def test_one_bucket_that_takes_no_good_credentials_ends_its_own_jobs(
    bench: Bench, front: S3Front, tenant: str, code: str
) -> None:
    front.rules = [Rule(f"/{tenant}", status=403, code=code)]
    run(bench, "a", f"s3://{tenant}/photo.png")
    until(lambda: bench.record("a").ended or again(bench, "a").ended)
    error = bench.record("a").error
    assert error is not None
    assert (error.code, code in error.message) == (FailureCode.ACCESS_DENIED, True)
    assert bench.pipeline.may_claim
    # The next one at once
    assert run(bench, "b", f"s3://{tenant}/photo.png").status is JobStatus.FAILED
    assert run(bench, "good").status is JobStatus.SUCCEEDED


# --- the commit ---------------------------------------------------------------------------------------

MANIFEST = "result.json"


def test_outputs_whose_commit_was_refused_are_removed(
    bench: Bench, front: S3Front, s3_server: S3Server
) -> None:
    front.rules = [Rule(f"PUT .*/{MANIFEST}", status=403, code="AccessDenied")]
    record = run(bench, "a", outputs=["mask", "stats", "overlay"])
    assert record.status is JobStatus.FAILED
    assert keys_of(s3_server, bench.place("a")) == set()


def test_outputs_whose_commit_was_not_answered_are_left_to_a_later_look(
    bench: Bench, front: S3Front, s3_server: S3Server
) -> None:
    # Given a commit that may or may not have been carried out
    front.rules = [Rule(f"PUT .*/{MANIFEST}", status=503, code="SlowDown")]
    record = run(bench, "a")
    assert record.status is JobStatus.QUEUED
    assert keys_of(s3_server, bench.place("a")) == {"mask.png"}
    assert orphans(bench) == ["a"]
    # When the next attempt succeeds, and the time has come
    front.rules = []
    until(lambda: again(bench, "a").ended)
    assert bench.record("a").status is JobStatus.SUCCEEDED
    bench.ledger.redis.zadd(f"{bench.prefix}:orphans", {"a": 1})
    Retention(bench.ledger, bench.store, bench.settings.layout).remove_due()
    # Then what the manifest names is all there is
    assert len(keys_of(s3_server, bench.place("a"))) == 2
    assert orphans(bench) == []


def test_a_commit_whose_answer_was_lost_is_the_job_s_result(
    bench: Bench, front: S3Front, s3_server: S3Server
) -> None:
    front.rules = [Rule(f"PUT .*/{MANIFEST}", do="lose_answer", times=9)]
    record = run(bench, "a")
    assert (record.status, record.attempt) == (JobStatus.SUCCEEDED, 1)
    assert keys_of(s3_server, bench.place("a")) == {"mask.png", MANIFEST}
    assert orphans(bench) == []


@pytest.mark.parametrize("client", ["obstore", "boto3"])
def test_a_conflicting_request_is_not_taken_for_a_manifest(
    bench: Bench, front: S3Front, s3_server: S3Server, client: Any
) -> None:
    bench.store._use_obstore = client == "obstore"
    conflict = {"status": 409, "code": "ConditionalRequestConflict"}
    front.rules = [Rule(f"PUT .*/{MANIFEST}", times=2, **conflict)]
    record = run(bench, "a")
    assert record.status is JobStatus.SUCCEEDED
    assert keys_of(s3_server, bench.place("a")) == {"mask.png", MANIFEST}


def test_outputs_that_cannot_be_removed_now_are_removed_later(
    bench: Bench, front: S3Front, s3_server: S3Server
) -> None:
    front.rules = [
        Rule(f"PUT .*/{MANIFEST}", status=403, code="AccessDenied"),
        Rule("DELETE ", status=403, code="AccessDenied", times=1),
    ]
    run(bench, "a", outputs=["mask", "stats"])
    assert len(keys_of(s3_server, bench.place("a"))) == 1
    assert orphans(bench) == ["a"]


def test_a_failed_job_s_late_manifest_is_removed_with_what_it_names(
    bench: Bench, front: S3Front, s3_server: S3Server
) -> None:
    # Given a commit that was carried out after its job had been given up
    record = run(bench, "a")
    assert record.result is not None
    name = f"{bench.prefix}:job:a"
    bench.ledger.redis.hdel(name, "result")
    bench.ledger.redis.hset(name, "status", "failed")
    bench.ledger.redis.zadd(f"{bench.prefix}:orphans", {"a": 1})
    # When its objects are looked at
    Retention(bench.ledger, bench.store, bench.settings.layout).remove_due()
    # Then nobody's result is left
    assert keys_of(s3_server, bench.place("a")) == set()


def test_an_attempt_that_was_taken_away_removes_what_it_wrote(
    bench: Bench, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the job goes on elsewhere."""
    put = bench.store.put

    def lost(*args: Any, **options: Any) -> None:
        put(*args, **options)
        (held,) = bench.pipeline._leases.holding()
        held.mark_lost()

    bench.submit("a")
    monkeypatch.setattr(bench.store, "put", lost)
    bench.pipeline.run("smallest")
    assert bench.record("a").status is JobStatus.RUNNING  # as far as the ledger knows
    assert keys_of(s3_server, bench.place("a")) == set()


def test_a_fault_of_ours_after_outputs_were_written_leaves_none(
    bench: Bench, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_memory(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(bench.pipeline._stages, "_result", out_of_memory)
    assert run(bench, "a").status is JobStatus.FAILED
    assert keys_of(s3_server, bench.place("a")) == set()


# --- a store without conditional writes ------------------------------------------------------------


def test_a_bucket_that_writes_over_a_manifest_takes_no_commit(
    bench: Bench, front: S3Front, s3_server: S3Server, tenant: str
) -> None:
    front.rules = [Rule(f"PUT /{tenant}/.*{MANIFEST}", do="unconditional")]
    record = run(bench, "a", output_prefix=f"s3://{tenant}/out")
    assert record.status is JobStatus.FAILED
    assert record.error is not None
    assert record.error.code is FailureCode.STORE_REFUSED
    assert "If-None-Match" in record.error.message
    assert keys_of(s3_server, S3Uri(tenant, "out")) == set()


def test_the_look_at_the_own_bucket_costs_one_request_and_leaves_one_object(
    bench: Bench, front: S3Front
) -> None:
    bench.store.check_conditional_writes()
    before = front.asked("")
    again = ObjectStore(front.url, connections=2, home=bench.store.home)
    again.check_conditional_writes()
    assert front.asked("") == before + 1
    again.close()


# --- what is left is looked for later -----------------------------------------------------------------


def test_a_drain_that_is_cut_short_has_its_jobs_objects_looked_for(
    bench: Bench, tenant: str
) -> None:
    # Given a worker that has a job when its drain is over, perhaps half written
    submit(bench, "a", f"s3://{tenant}/photo.png", output_prefix=f"s3://{tenant}/out")
    claim = calls.claim("smallest", "token", owner="h:1", lease_s=60)
    assert bench.ledger.run(claim).record
    leases = bench.pipeline._leases
    stopping = SimpleNamespace(_leases=leases, _ledger=bench.ledger, _settings=bench.settings)
    with leases.hold("a", "token") as held:
        # When it gives the job back
        ModelStep._release_rest(stopping)
        # Then the thread stops, the job waits, and somebody looks later
        assert held.is_lost
    assert bench.record("a").status is JobStatus.QUEUED
    assert orphans(bench) == [f"a s3://{tenant}/out"]


def test_objects_of_a_job_that_is_deleted_meanwhile_are_still_looked_for(bench: Bench) -> None:
    bench.ledger.run(calls.leave_orphans("gone", output_prefix="s3://photos/out"))
    bench.ledger.run(calls.leave_orphans("gone-too"))
    assert orphans(bench) == ["gone s3://photos/out", "gone-too"]


def test_a_bucket_that_went_with_its_objects_is_not_asked_for_ever(bench: Bench) -> None:
    bench.ledger.redis.zadd(f"{bench.prefix}:orphans", {"a s3://no-such-bucket/out": 1})
    Retention(bench.ledger, bench.store, bench.settings.layout).remove_due()
    assert orphans(bench) == []
