"""What `tenant` keeps apart in the object store, and what it erases."""

from __future__ import annotations

import asyncio
import io
import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from integration.client.test_cli_edges import run as command
from integration.worker.test_pipeline import Bench
from PIL import Image
from support.damaged import damaged
from support.s3_front import Rule, S3Front

from maskq import AsyncClient, Client, FailureCode, InvalidRequest, Job, JobFailed, JobNotFound
from maskq.contract.locations import S3Uri

if TYPE_CHECKING:
    from maskq_standalone.servers.s3 import S3Server

PHOTO = Image.new("RGB", (60, 40), "teal")


@pytest.fixture
def keep_on_s() -> float:
    return 0.0  # one job a message


def ran(bench: Bench, client: Client, image: Any, **options: Any) -> Job:
    job = client.submit(image, **options)
    bench.pipeline.run("smallest")
    return job


def refused(bench: Bench, client: Client, image: Any, **options: Any) -> None:
    with pytest.raises(JobFailed) as failed:
        ran(bench, client, image, **options).wait(timeout=60)
    assert failed.value.code is FailureCode.BUCKET_NOT_ALLOWED
    assert "another tenant" in failed.value.message


def request_of(job: Job) -> Any:
    assert job.record or job.refresh()
    assert job.record
    return job.record.request


def test_a_tenant_s_uploads_and_outputs_are_its_own(bench: Bench, client: Client) -> None:
    acme = ran(bench, client, PHOTO, tenant="acme")
    mask = acme.wait(timeout=60).uri("mask")
    upload = request_of(acme).image_uri
    folder = str(client.session.layout.tenant("acme"))
    assert mask.startswith(f"{folder}/{acme.id}/")
    assert upload == f"{folder}/{acme.id}/input"
    for uri in (mask, upload):
        for other in ({"tenant": "other"}, {"tenant": "acm"}, {}):
            refused(bench, client, uri, **other)
        # Its own jobs go on from it
        assert ran(bench, client, uri, tenant="acme").wait(timeout=60).mask().size == (60, 40)
    # And nobody else's outputs go there
    refused(bench, client, mask, tenant="other", output_prefix=folder)
    refused(bench, client, PHOTO, tenant="other", output_prefix=folder)
    refused(bench, client, PHOTO, output_prefix=f"{folder}/deeper/..")


def test_without_tenants_jobs_go_on_from_each_other(bench: Bench, client: Client) -> None:
    first = ran(bench, client, PHOTO)
    for uri in (first.wait(timeout=60).uri("mask"), request_of(first).image_uri):
        assert ran(bench, client, uri).wait(timeout=60).mask().size == (60, 40)
    # Not those of a tenant, which are other people's
    refused(bench, client, request_of(first).image_uri, tenant="acme")


def test_a_tenant_s_uploaded_image_is_retried_and_deleted(
    bench: Bench, client: Client, s3_server: S3Server
) -> None:
    job = client.submit(PHOTO, tenant="acme")
    job.cancel()
    again = client.retry(job.id)
    client.delete(job.id)
    bench.pipeline.run("smallest")
    bench.pipeline.run("smallest")  # the first ticket's job is gone
    assert again.wait(timeout=60).mask().size == (60, 40)
    batch = client.submit_many([PHOTO], tenant="acme")
    bench.pipeline.run("smallest")
    (one,) = batch.as_completed(timeout=60)
    assert request_of(one).image_uri == str(client.session.layout.job(one.id, tenant="acme").upload)
    client.delete(again.id)
    client.delete(one.id)
    assert client.objects.list_under(client.session.layout.tenant("acme")) == []


def test_an_upload_of_a_client_from_before_tenants_had_folders_is_read(
    bench: Bench, client: Client
) -> None:
    job = client.submit("s3://photos/x.png", tenant="acme")
    before = client.session.layout.home / job.id / "input"
    client.objects.put(before, _png(), "image/png")
    name = f"{bench.prefix}:job:{job.id}"
    asked = json.loads(bench.ledger.redis.hget(name, "request") or "")
    bench.ledger.redis.hset(name, "request", json.dumps({**asked, "image_uri": str(before)}))
    bench.pipeline.run("smallest")
    assert job.wait(timeout=60).mask().size == (60, 40)
    client.delete(job.id)
    assert client.objects.list_under(client.session.layout.home / job.id) == []


def _png() -> bytes:
    buffer = io.BytesIO()
    PHOTO.save(buffer, "PNG")
    return buffer.getvalue()


# --- erasure ------------------------------------------------------------------------------------------


def test_what_is_old_of_a_tenant_is_erased_and_the_rest_is_counted(
    bench: Bench, client: Client
) -> None:
    # Given jobs of two tenants, of which one is waiting, and objects whose record is gone
    folder = client.session.layout.tenant("acme")
    old = [ran(bench, client, PHOTO, tenant="acme"), client.submit(PHOTO, tenant="acme")]
    elsewhere = f"s3://{folder.bucket}/{bench.prefix}/out"
    old.append(ran(bench, client, PHOTO, tenant="acme", output_prefix=elsewhere))
    bench.pipeline.run("smallest")
    gone = ran(bench, client, PHOTO, tenant="acme")
    bench.ledger.redis.delete(f"{bench.prefix}:job:{gone.id}")
    theirs = folder / "notes.txt"
    client.objects.put(theirs, b"not ours", "text/plain")
    others = ran(bench, client, PHOTO, tenant="acme2")
    time.sleep(1.1)  # S3 tells time in seconds
    began = time.time()
    new = ran(bench, client, PHOTO, tenant="acme")

    # When those are erased that are older than the last one
    erased = client.delete_tenant("acme", older_than=time.time() - began)

    # Then it is there with its objects, and all others are not
    assert (erased.jobs, erased.objects) == (3, 3)  # input, manifest and mask
    assert (erased.jobs_left, erased.objects_left, erased.refused) == (1, 4, {})
    for job in old:
        with pytest.raises(JobNotFound):
            job.refresh()
    assert client.objects.list_under(S3Uri.parse(elsewhere)) == []
    for job in (new, others):
        assert job.wait(timeout=60).mask().size == (60, 40)
    assert client.delete_tenant("acme", older_than=0).jobs == 1
    assert [one.place for one in client.objects.list_under(folder)] == [theirs]
    assert client.delete_tenant("nobody", older_than=0).jobs_left == 0


def test_more_jobs_than_a_page_has_are_erased(client: Client, bench: Bench) -> None:
    client.submit_many(["s3://photos/a.jpg"] * 230, tenant="acme")
    client.submit("s3://photos/a.jpg")
    assert client.delete_tenant("acme", older_than=0).jobs == 230
    assert len(client.list(limit=10).records) == 1


def test_a_job_whose_objects_the_store_keeps_is_left_and_named(
    bench: Bench, client: Client, s3_server: S3Server
) -> None:
    bucket = s3_server.bucket
    bad = client.submit("s3://photos/a.jpg", tenant="acme", output_prefix=f"s3://{bucket}/kept")
    for prefix in (None, "s3://no-such-bucket/x"):
        client.submit("s3://photos/a.jpg", tenant="acme", output_prefix=prefix)
    with S3Front(s3_server.port) as front, Client.from_env(s3_endpoint_url=front.url) as behind:
        front.rules = [Rule(r"GET .*prefix=kept", status=403, code="AccessDenied")]
        erased = behind.delete_tenant("acme", older_than=0)
    assert (erased.jobs, erased.jobs_left, [*erased.refused]) == (2, 1, [bad.id])
    assert "AccessDenied" in erased.refused[bad.id]
    assert [record.id for record in client.list(tenant="acme").records] == [bad.id]


def test_a_tenant_is_named_to_be_erased(client: Client) -> None:
    for tenant, older_than in (("", 1.0), ("acme", -1.0), ("acme", float("nan")), ("../x", 0.0)):
        with pytest.raises(InvalidRequest):
            client.delete_tenant(tenant, older_than=older_than)


def test_an_async_client_erases_as_well(client: Client) -> None:
    async def erase() -> int:
        async with AsyncClient.from_env() as other:
            return (await other.delete_tenant("acme", older_than=0)).jobs

    client.submit("s3://photos/a.jpg", tenant="acme")
    assert asyncio.run(erase()) == 1


def test_a_shell_erases_and_says_what_is_left(client: Client) -> None:
    for _ in range(2):
        client.submit(damaged("image"), tenant="acme")
    ran = command("delete", "--tenant", "acme", "--older-than", "30d")
    assert ran.returncode == 0, ran.stderr
    assert "0 jobs" in ran.stdout.splitlines()[0]
    assert ran.stdout.splitlines()[1] == "remaining: 2 jobs, 2 objects in its folder"
    ran = command("delete", "--tenant", "acme", "--older-than", "0s", "--json")
    assert json.loads(ran.stdout) == {
        "jobs": 2, "objects": 0, "jobs_left": 0, "objects_left": 0, "refused": {}
    }  # fmt: skip


@pytest.mark.parametrize(
    "arguments",
    [
        [], ["--tenant", "acme"], ["--older-than", "3d"], ["id", "--tenant", "a", "--older-than", "3d"],
        ["--tenant", "acme", "--older-than", "30"], ["--tenant", "acme", "--older-than", "-3d"],
        ["--tenant", "acme", "--older-than", "3y"], ["--tenant", "..", "--older-than", "3d"],
    ],
)  # fmt: skip
def test_what_a_shell_asks_for_wrongly_erases_nothing(
    client: Client, environment: dict[str, str], arguments: list[str]
) -> None:
    job = client.submit("s3://photos/a.jpg", tenant="acme")
    ran = command("delete", *arguments)
    assert ran.returncode != 0
    assert len(ran.stderr.strip().splitlines()) == 1
    assert not job.refresh().ended


def test_both_kinds_of_allowed_places_end_a_worker_with_78(environment: dict[str, str]) -> None:
    places = {"MASKQ_ALLOWED_BUCKETS": "photos", "MASKQ_ALLOWED_LOCATIONS": "s3://photos/a"}
    ran = command("worker", **places)
    assert ran.returncode == 78
    (line,) = ran.stderr.strip().splitlines()
    assert "MASKQ_ALLOWED_BUCKETS" in line
    assert "MASKQ_ALLOWED_LOCATIONS" in line
