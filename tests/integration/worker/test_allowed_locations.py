"""Images and outputs lie where the worker's settings allow; anything else fails the job."""

from __future__ import annotations

import io
from typing import Any

import pytest
from integration.worker.test_pipeline import Bench
from PIL import Image

from maskq import Client, FailureCode, Job, JobFailed
from maskq_standalone.servers.s3 import S3Server

PHOTO = Image.new("RGB", (60, 40), "teal")
BUCKET = "maskq-test"  # of the fixture s3_server


@pytest.fixture
def keep_on_s() -> float:
    return 0.0  # one job a message


def put(server: S3Server, bucket: str, key: str) -> str:
    """An image there; its URI."""
    body = io.BytesIO()
    PHOTO.save(body, "PNG")
    server.client().put_object(Bucket=bucket, Key=key, Body=body.getvalue())
    return f"s3://{bucket}/{key}"


def ran(bench: Bench, client: Client, image: Any, **options: Any) -> Job:
    job = client.submit(image, **options)
    bench.pipeline.run("smallest")
    return job


def refused(bench: Bench, client: Client, image: Any, **options: Any) -> None:
    with pytest.raises(JobFailed) as failed:
        ran(bench, client, image, **options).wait(timeout=60)
    assert failed.value.code == FailureCode.BUCKET_NOT_ALLOWED


@pytest.mark.parametrize("bench_settings", [{"allowed_buckets": BUCKET}])
def test_a_bucket_that_is_not_allowed_is_refused(
    bench: Bench, client: Client, s3_server: S3Server, key_prefix: str
) -> None:
    # Given a worker that may use one bucket, and an image in another
    assert s3_server.bucket == BUCKET
    s3_server.client().create_bucket(Bucket=f"private-{key_prefix}")
    private = put(s3_server, f"private-{key_prefix}", "x.png")

    # Then neither its images nor a place in it can be had
    refused(bench, client, private)
    refused(bench, client, PHOTO, output_prefix=f"s3://private-{key_prefix}/out")
    assert ran(bench, client, PHOTO).wait(timeout=60).mask().size == PHOTO.size


@pytest.mark.parametrize("bench_settings", [{"allowed_locations": f"s3://{BUCKET}/of/{{tenant}}"}])
def test_a_location_is_a_tenant_s_and_uploads_need_none(
    bench: Bench, client: Client, s3_server: S3Server
) -> None:
    # Given a worker whose tenants have a folder each, and an image of one of them
    image = put(s3_server, BUCKET, "of/acme/x.png")

    # Then it is that tenant's alone, as is what becomes of it
    acme = ran(bench, client, image, tenant="acme").wait(timeout=60)
    uploaded = ran(bench, client, PHOTO, tenant="acme").wait(timeout=60)
    for uri in (image, acme.uri("mask"), uploaded.uri("mask")):
        for tenant in ("other", None):
            refused(bench, client, uri, tenant=tenant)
    again = ran(bench, client, uploaded.uri("mask"), tenant="acme").wait(timeout=60)
    assert again.mask().size == PHOTO.size
