"""The owner of a bucket finds every mask and every failure, knowing only the key of an upload."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pytest
from integration.worker.test_pipeline import Bench
from PIL import Image
from support.uploads import Uploads, notified_bucket, reading
from support.waiting import until

from maskq import Client, FailureCode, JobStatus, Output
from maskq.contract.locations import S3Uri
from maskq_gateway.rules.rule import Rules
from maskq_gateway.settings import GatewaySettings

if TYPE_CHECKING:
    from maskq_standalone.servers.s3 import S3Server

COUNT = 100
# What happens to every 10th upload and those after it; the others are images.
BROKEN = {
    0: (b"not an image", FailureCode.INVALID_IMAGE),
    3: (b"", FailureCode.INVALID_IMAGE),
    6: (b"cut off", FailureCode.INVALID_IMAGE),
    9: (b"deleted", FailureCode.NOT_FOUND),
}
NAMES = ("scan {}.png", "grün+{}.png", "100%/{}.png", "what?versionId={}.png", "a&b=#{}.PNG")


def png(number: int) -> bytes:
    body = io.BytesIO()
    Image.new("RGB", (24 + number, 40), (number, 128, 99)).save(body, "PNG")
    return body.getvalue()


@pytest.fixture
def uploads(s3_server: S3Server, key_prefix: str) -> Iterator[Uploads]:
    with notified_bucket(s3_server, key_prefix, visibility_s=30) as bucket:
        yield bucket


@pytest.fixture
def keep_on_s() -> float:
    return 60.0  # one call of `bench.pipeline.run` runs every job


def test_every_mask_and_every_failure_is_found_by_the_key_of_its_upload(
    bench: Bench,
    client: Client,
    uploads: Uploads,
    s3_server: S3Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Given a hundred uploads, of which some cannot be segmented
    monkeypatch.setenv("MASKQ_SQS_ENDPOINT_URL", s3_server.endpoint_url)
    monkeypatch.setenv("MASKQ_TRIGGER_QUEUE_URL", uploads.url)
    rules = Rules.of(
        [{"name": "scans", "bucket": uploads.bucket}],
        own_output=S3Uri(s3_server.bucket, bench.prefix),
    )
    expected: dict[str, FailureCode | None] = {}
    for number in range(COUNT):
        key = f"incoming/{NAMES[number % len(NAMES)].format(number)}"
        body, code = BROKEN.get(number % 10, (png(number), None))
        uploads.put(key, png(number)[:-40] if body == b"cut off" else body)
        if body == b"deleted":
            uploads.s3.delete_object(Bucket=uploads.bucket, Key=key)
        expected[key] = code

    # When their notifications are read, and the jobs run
    with reading(GatewaySettings.load(), rules):
        until(lambda: uploads.left() == 0, within_s=60)
    bench.pipeline.run("smallest")

    # Then the key of each leads to its job, and its mask or the reason why there is none
    events = {
        event.data["source"]: event for event in client.events(since="0", idle=0.5)
        if event.type in ("maskq.job.succeeded", "maskq.job.failed")
    }  # fmt: skip
    masks = set()
    for number, (key, code) in enumerate(expected.items()):
        place = f"s3://{uploads.bucket}/{key}"
        (record,) = client.list(source=place).records
        assert record.source == place
        assert events[place].subject == record.id
        if code:
            assert record.status is JobStatus.FAILED
            assert record.error is not None
            assert record.error.code is code
            assert events[place].data["error"]["message"] == record.error.message
            continue
        assert record.status is JobStatus.SUCCEEDED
        result = client.get(record.id).wait(timeout=1)
        assert result.source == place
        assert result.mask().width == 24 + number
        masks.add(result.uri(Output.MASK))
    assert len(masks) == COUNT * (10 - len(BROKEN)) // 10

    # and each mask leads back to the key
    for uri in masks:
        mask = S3Uri.parse(uri)
        head = s3_server.client().head_object(Bucket=mask.bucket, Key=mask.key)
        source = unquote(head["Metadata"]["maskq-source"])
        assert expected.pop(source.removeprefix(f"s3://{uploads.bucket}/")) is None
