"""Outputs and uploads go when their time is over, and nobody else's."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from support.damaged import damaged

from maskq import Client
from maskq.contract import JobResult
from maskq.contract.locations import S3Uri
from maskq.ledger import Ledger, calls
from maskq.ledger.scripts import script
from maskq_worker.jobs.retention import Retention
from maskq_worker.storage.object_store import ObjectStore

if TYPE_CHECKING:
    from maskq_standalone.servers.s3 import S3Server

TOKEN = "the-second-one-s"
OUTPUT_RETENTION_S = 3600


@pytest.fixture
def client(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.setenv("MASKQ_OUTPUT_RETENTION_S", str(OUTPUT_RETENTION_S))
    monkeypatch.setenv("MASKQ_RETENTION_S", "0.05")  # the record may go first
    with Client.from_env() as made:
        made.session.ledger.run(calls.register_model("demo", {}))
        yield made


@pytest.fixture
def retention(client: Client) -> Iterator[Retention]:
    settings = client.settings
    ledger = Ledger.of(settings)
    store = ObjectStore(settings.s3_endpoint_url, connections=2)
    yield Retention(ledger, store, client.session.layout)
    store.close()
    ledger.close()


def retention_passes(client: Client) -> None:
    redis, name = client.session.ledger.redis, f"{client.key_prefix}:outputs"
    for row in redis.zrange(name, 0, -1):
        redis.zincrby(name, -OUTPUT_RETENTION_S * 1000, row)


def keys_in(server: S3Server, prefix: str) -> set[str]:
    listed = server.client().list_objects_v2(Bucket=server.bucket, Prefix=prefix)
    return {entry["Key"] for entry in listed.get("Contents", [])}


def test_objects_of_an_ended_job_go_after_their_time_and_not_before(
    client: Client, retention: Retention, s3_server: S3Server
) -> None:
    elsewhere = f"{client.key_prefix}/albums"
    ended = client.submit(damaged("image"), output_prefix=f"s3://{s3_server.bucket}/{elsewhere}")
    open_still = client.submit(damaged("another"))
    mask = S3Uri(s3_server.bucket, f"{elsewhere}/{ended.id}/{TOKEN}/mask.png")
    client.objects.put(mask, b"mask", "image/png")
    ended.cancel()

    retention.remove_due()
    before = keys_in(s3_server, client.key_prefix)
    retention_passes(client)
    retention.remove_due()
    after = keys_in(s3_server, client.key_prefix)

    assert {key for key in before if ended.id in key} == set(before - after)
    assert len(before - after) == 2
    assert {key for key in after if open_still.id in key} == after != set()
    assert client.session.ledger.redis.zcard(f"{client.key_prefix}:outputs") == 0


def test_however_many_are_due_all_go(client: Client, retention: Retention) -> None:
    # Given more than the ledger tells of at once
    redis, name = client.session.ledger.redis, f"{client.key_prefix}:outputs"
    redis.zadd(name, {f"job-{number}": number for number in range(250)})
    # When
    retention.remove_due()
    # Then
    assert redis.zcard(name) == 0


def test_an_outage_of_the_store_only_delays_it(
    client: Client, retention: Retention, monkeypatch: pytest.MonkeyPatch
) -> None:
    from maskq.contract import FailureCode
    from maskq_worker.errors import TransientError

    def away(_: ObjectStore, place: S3Uri, job: object) -> None:
        raise TransientError(FailureCode.STORE_UNAVAILABLE, f"{place} is away")

    client.submit(damaged("image")).cancel()
    retention_passes(client)
    with monkeypatch.context() as patch:
        patch.setattr(ObjectStore, "list_of", away)
        retention.remove_due()
    assert client.session.ledger.redis.zcard(f"{client.key_prefix}:outputs") == 1


@pytest.mark.parametrize(
    ("output", "left_by_first"),
    [("mask", set()), ("depth", {"the-first-attemp/depth.png"})],
    ids=["known", "of a newer worker, which deletes it"],
)
def test_what_a_cut_off_attempt_left_goes_and_the_result_stays(
    client: Client, retention: Retention, s3_server: S3Server, output: str, left_by_first: set[str]
) -> None:
    # Given a job whose first attempt died after it had written a mask, and whose second succeeded
    ledger, prefix = retention._ledger, client.key_prefix
    job = client.submit(damaged("image"))
    home = S3Uri(s3_server.bucket, client.settings.output_prefix) / job.id

    def attempt(token: str) -> str:
        record = ledger.run(calls.claim("demo", token, owner="h:1", lease_s=60)).record
        assert record is not None
        made = home / token / f"{output}.png"
        client.objects.put(made, b"made", "image/png")
        return str(made)

    attempt("the-first-attemp")
    ledger.redis.zadd(f"{prefix}:leases", {job.id: 1})
    ledger.redis.hset(f"{prefix}:sweeper", "swept_ms", int(time.time() * 1000) - 1000)
    ledger.redis.script_load(script("sweep").text)  # this server has swept before
    assert ledger.run(calls.sweep(lease_s=60)).reaped == 1
    ledger.redis.hdel(f"{prefix}:job:{job.id}", "alone")
    result = JobResult(width=1, height=1, model="demo", outputs={output: attempt(TOKEN)})
    body = result.model_dump_json().encode()
    client.objects.put(home / "result.json", body, "application/json")

    # When it is looked after while it still runs, nothing goes
    ledger.redis.zadd(f"{prefix}:orphans", {job.id: 1})
    retention.remove_due()
    assert len(keys_in(s3_server, home.key)) == 4

    # And once it has ended, what no result names
    assert ledger.run(calls.succeed(job.id, TOKEN, result))
    ledger.redis.zrem(f"{prefix}:outputs", job.id)
    ledger.redis.zadd(f"{prefix}:orphans", {job.id: 1})
    retention.remove_due()
    left = {key.removeprefix(f"{home.key}/") for key in keys_in(s3_server, home.key)}
    assert left == {"input", "result.json", f"{TOKEN}/{output}.png"} | left_by_first
    assert ledger.redis.zcard(f"{prefix}:orphans") == 0


def test_a_failed_job_keeps_its_upload_and_nothing_else(
    client: Client, retention: Retention, s3_server: S3Server
) -> None:
    job = client.submit(damaged("image"))
    home = S3Uri(s3_server.bucket, client.settings.output_prefix) / job.id
    client.objects.put(home / TOKEN / "mask.png", b"mask", "image/png")
    job.cancel()
    retention._ledger.redis.zrem(f"{client.key_prefix}:outputs", job.id)
    retention._ledger.redis.zadd(f"{client.key_prefix}:orphans", {job.id: 1})
    retention.remove_due()
    assert keys_in(s3_server, home.key) == {f"{home.key}/input"}
