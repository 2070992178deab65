"""Input and outputs at URLs that a caller presigned, on a real S3 server; their secrets stay secret."""

from __future__ import annotations

import io
import logging
from typing import Any

import boto3
import pytest
from botocore.config import Config
from integration.worker.test_pipeline import Bench
from PIL import Image

from maskq import Client, InvalidRequest, JobStatus
from maskq.contract import FailureCode, SegmentRequest
from maskq.ledger import calls
from maskq_standalone.servers.s3 import S3Server

SIGNATURE = "X-Amz-Signature"


@pytest.fixture
def bench_settings() -> dict[str, Any]:
    return {"presigned_allowed_hosts": "127.0.0.1", "max_image_bytes": 100_000}


class Customer:
    """A bucket that the worker has no rights on: only the URLs that its owner signs."""

    def __init__(self, server: S3Server, name: str) -> None:
        self.s3 = server.client()
        self._signer = boto3.client(
            "s3",
            endpoint_url=server.endpoint_url,
            aws_access_key_id=server.access_key_id,
            aws_secret_access_key=server.secret_access_key,
            region_name="us-east-1",
            config=Config(signature_version="s3v4", s3={"addressing_style": "path"}),
        )
        self.bucket = name
        self.s3.create_bucket(Bucket=name)

    def put_image(self) -> None:
        buffer = io.BytesIO()
        Image.new("RGB", (60, 40), "teal").save(buffer, "PNG")
        self.s3.put_object(Bucket=self.bucket, Key="photo.png", Body=buffer.getvalue())

    def url(self, method: str, key: str, *, seconds: int = 300) -> str:
        place = {"Bucket": self.bucket, "Key": key}
        url: str = self._signer.generate_presigned_url(method, Params=place, ExpiresIn=seconds)
        return url

    def read(self, key: str) -> bytes:
        body: bytes = self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        return body


@pytest.fixture
def customer(s3_server: S3Server, key_prefix: str) -> Customer:
    made = Customer(s3_server, f"customer-{key_prefix}")
    made.put_image()
    return made


def submit(bench: Bench, job_id: str, **request: Any) -> None:
    asked = SegmentRequest.model_validate(request)
    bench.ledger.run(calls.submit(job_id, asked, calls.Limits()))


def everything_in_redis(bench: Bench) -> str:
    redis = bench.ledger.redis
    dumped = []
    for key in redis.scan_iter(f"{bench.prefix}*"):
        kind = redis.type(key)
        if kind == "hash":
            dumped.append(str(redis.hgetall(key)))
        elif kind == "stream":
            dumped.append(str(redis.xrange(key)))
        elif kind == "list":
            dumped.append(str(redis.lrange(key, 0, -1)))
        elif kind == "string":
            dumped.append(str(redis.get(key)))
    return "\n".join(dumped)


def test_a_customer_s_bucket_is_read_and_written_by_its_urls_alone(
    bench: Bench, customer: Customer, caplog: pytest.LogCaptureFixture
) -> None:
    # Given a worker that may use no bucket but its own
    get, put = customer.url("get_object", "photo.png"), customer.url("put_object", "mask.png")
    caplog.set_level(logging.DEBUG)
    submit(bench, "a", image_uri=get, outputs=["mask", "overlay"], output_urls={"mask": put})
    assert SIGNATURE in everything_in_redis(bench)  # the worker needs it, until the job ends

    # When it runs
    bench.pipeline.run("smallest")

    # Then the mask is in the customer's bucket, and what has no URL in ours
    record = bench.record("a")
    assert record.status is JobStatus.SUCCEEDED, record.error
    assert record.result is not None
    assert Image.open(io.BytesIO(customer.read("mask.png"))).size == (60, 40)
    assert record.result.outputs["mask"] == put.partition("?")[0] + "?…"
    assert record.result.outputs["overlay"].startswith(f"s3://{bench.settings.s3_bucket}/")

    # And the secret is nowhere any more
    assert SIGNATURE not in everything_in_redis(bench)
    assert SIGNATURE not in caplog.text
    assert SIGNATURE not in str(record.public())
    manifest = bench.store.find(bench.place("a") / "result.json", max_bytes=10**6)
    assert manifest is not None
    assert SIGNATURE not in manifest.decode()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda c: {"image_uri": c.url("get_object", "nowhere.png")}, FailureCode.NOT_FOUND),
        (
            lambda c: {
                "image_uri": c.url("get_object", "photo.png").replace("Signature=", "Signature=0")
            },
            FailureCode.ACCESS_DENIED,
        ),
        (lambda c: {"image_uri": c.url("put_object", "photo.png")}, FailureCode.ACCESS_DENIED),
        (
            lambda c: {"output_urls": {"mask": c.url("get_object", "mask.png")}},
            FailureCode.ACCESS_DENIED,
        ),
        (lambda c: {"image_uri": "https://169.254.169.254/latest?a=b"}, FailureCode.ACCESS_DENIED),
        (lambda c: {"image_uri": "http://10.0.0.1/photo.png?a=b"}, FailureCode.ACCESS_DENIED),
    ],
    ids=[
        "no object",
        "forged",
        "for another method",
        "output for another method",
        "metadata",
        "http",
    ],
)
def test_a_url_that_does_not_do_is_told_without_its_secret(
    bench: Bench,
    customer: Customer,
    caplog: pytest.LogCaptureFixture,
    change: Any,
    code: FailureCode,
) -> None:
    good = {"image_uri": customer.url("get_object", "photo.png")}
    submit(bench, "a", **{**good, **change(customer)})
    bench.pipeline.run("smallest")
    error = bench.record("a").error
    assert error is not None
    assert error.code is code, error.message
    for text in (everything_in_redis(bench), caplog.text, str(error)):
        assert SIGNATURE not in text
        assert "a=b" not in text


def test_too_many_bytes_are_not_read(bench: Bench, customer: Customer) -> None:
    customer.s3.put_object(Bucket=customer.bucket, Key="large.png", Body=b"x" * 100_001)
    submit(bench, "a", image_uri=customer.url("get_object", "large.png"))
    bench.pipeline.run("smallest")
    error = bench.record("a").error
    assert error is not None
    assert (error.code, "100001 bytes" in error.message) == (FailureCode.IMAGE_TOO_LARGE, True)


def test_a_place_that_is_away_is_tried_again_and_stops_nobody(bench: Bench) -> None:
    submit(bench, "a", image_uri="http://127.0.0.1:1/photo.png?secret")
    bench.submit("b")
    bench.pipeline.run("smallest")
    record = bench.record("a")
    assert (record.status, record.charges) == (JobStatus.QUEUED, 1)
    assert record.error is not None
    assert record.error.code is FailureCode.STORE_UNAVAILABLE
    assert "secret" not in record.error.message
    bench.pipeline.run("smallest")
    assert bench.record("b").status is JobStatus.SUCCEEDED


def test_the_client_takes_urls_and_says_what_it_cannot_do(bench: Bench, customer: Customer) -> None:
    get, put = customer.url("get_object", "photo.png"), customer.url("put_object", "mask.png")
    with Client.from_env() as client:
        first = client.submit(get, output_urls={"mask": put}, idempotency_key="k")
        signed_anew = customer.url("get_object", "photo.png", seconds=200)
        again = client.submit(signed_anew, output_urls={"mask": put}, idempotency_key="k")
        assert again.id == first.id
        with pytest.raises(InvalidRequest, match="output_urls names overlay"):
            client.submit(get, output_urls={"overlay": put})
        with pytest.raises(InvalidRequest) as told:
            client.submit(get, priority="soon")
        assert SIGNATURE not in str(told.value)
        bench.pipeline.run("smallest")
        with pytest.raises(InvalidRequest, match="read it there"):
            first.wait(10).mask()
        failed = client.submit(customer.url("get_object", "nowhere.png"))
        bench.pipeline.run("smallest")
        with pytest.raises(InvalidRequest, match="submit the image again"):
            client.retry(failed.id)


def test_the_state_of_an_object_that_is_meant(bench: Bench, customer: Customer) -> None:
    """`image_etag`: what was overwritten meanwhile is told, not segmented in its stead."""
    etag = customer.s3.head_object(Bucket=customer.bucket, Key="photo.png")["ETag"].strip('"')
    uri = f"s3://{customer.bucket}/photo.png"
    submit(bench, "a", image_uri=uri, image_etag=etag)
    bench.pipeline.run("smallest")
    assert bench.record("a").status is JobStatus.SUCCEEDED
    customer.s3.put_object(Bucket=customer.bucket, Key="photo.png", Body=b"other")
    submit(bench, "b", image_uri=uri, image_etag=etag)
    bench.pipeline.run("smallest")
    error = bench.record("b").error
    assert error is not None
    assert error.code is FailureCode.SOURCE_CHANGED


def test_the_version_of_an_object_that_is_meant(bench: Bench, customer: Customer) -> None:
    customer.s3.put_bucket_versioning(
        Bucket=customer.bucket, VersioningConfiguration={"Status": "Enabled"}
    )
    customer.put_image()
    version = customer.s3.head_object(Bucket=customer.bucket, Key="photo.png")["VersionId"]
    customer.s3.put_object(Bucket=customer.bucket, Key="photo.png", Body=b"no image")
    uri = f"s3://{customer.bucket}/photo.png"
    submit(bench, "a", image_uri=uri, image_version_id=version)
    bench.pipeline.run("smallest")
    assert bench.record("a").status is JobStatus.SUCCEEDED, bench.record("a").error
