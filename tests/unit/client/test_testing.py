"""maskq.testing: what the fake does on demand, and what it makes. No servers.

tests/acceptance/fake holds the fake against the real client.
"""

from __future__ import annotations

import asyncio
import inspect
import io
import json
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.waiting import until

from maskq import (
    AsyncClient,
    Client,
    FailureCode,
    InvalidRequest,
    JobFailed,
    JobStatus,
    Output,
    QueueFull,
    StoreUnavailable,
    SubmitRateExceeded,
    WaitTimeout,
    WebhookRefused,
    webhooks,
)
from maskq.client.operations.flow import Sleep
from maskq.contract import JobRecord
from maskq.contract.events import EVENT_DATA
from maskq.contract.outputs import FILES
from maskq.testing import (
    WEBHOOK_SECRET,
    FakeAsyncClient,
    FakeClient,
    FakeService,
    image_bytes,
    make_event,
    make_record,
    make_result,
    sign_webhook,
)
from maskq.testing.deployment.outputs import Segmented, files_of, stats_of
from maskq_worker import outputs
from maskq_worker.outputs.coco import Source


@pytest.fixture
def client() -> FakeClient:
    return FakeClient()


# --- the surface --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fake", "real"), [(FakeClient, Client), (FakeAsyncClient, AsyncClient)])
def test_the_fake_has_every_method_of_the_client_with_its_signature(fake: type, real: type) -> None:
    for name, member in inspect.getmembers(real):
        if not name.startswith("_") and inspect.isfunction(member):
            assert inspect.signature(getattr(fake, name)) == inspect.signature(member), name
    own = {name for name in vars(fake) if not name.startswith("_")} - {"from_env"}
    assert own == set(), "a method that the fake replaces is not the real one"


@pytest.mark.parametrize(
    "operation",
    [
        lambda client: client.create_api_key(["read"]),
        lambda client: client.api_keys(),
        lambda client: client.revoke_api_key("0123456789"),
        lambda client: client.set_default_model("demo"),
        lambda client: client.retire_model("demo"),
        lambda client: client.delete_tenant("acme", older_than=0),
        lambda client: client.set_tenant("acme", weight=2),
        lambda client: client.unset_tenant("acme"),
        lambda client: client.tenant("acme"),
        lambda client: client.tenants(),
        lambda client: client.settings,
        lambda client: client.objects,
        lambda client: client.key_prefix,
        lambda client: client.session.ledger,
    ],
)
def test_what_needs_redis_says_so(
    client: FakeClient, operation: Callable[[FakeClient], Any]
) -> None:
    with pytest.raises(InvalidRequest, match=r"needs access to Redis and S3.*maskq_stack"):
        operation(client)


def test_awaited_what_needs_redis_says_so() -> None:
    with pytest.raises(InvalidRequest, match="needs access to Redis"):
        asyncio.run(FakeAsyncClient().api_keys())


def test_a_fake_cannot_be_pickled(client: FakeClient) -> None:
    for one in (client, FakeAsyncClient()):
        with pytest.raises(InvalidRequest, match="cannot be pickled"):
            pickle.dumps(one)


# --- masks --------------------------------------------------------------------------------------------


def test_the_same_image_has_the_same_mask_everywhere() -> None:
    masks = [
        FakeClient().segment(image_bytes(colour=one)).mask() for one in ("teal", "teal", "red")
    ]
    assert masks[0].tobytes() == masks[1].tobytes() != masks[2].tobytes()


def test_images_of_every_size_get_a_mask_of_that_size(client: FakeClient) -> None:
    for size in ((1, 1), (2, 7), (3, 1), (640, 480)):
        result = client.segment(image_bytes(size), outputs=list(Output))
        assert result.mask().size == size
        assert sum(one.pixels for one in result.stats) == size[0] * size[1]


def test_a_rotated_photo_is_upright(client: FakeClient) -> None:
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (60, 40)).save(buffer, "JPEG", exif=exif)
    result = client.segment(buffer.getvalue())
    assert result.size == (40, 60)
    assert result.details.notes == ["rotated upright"]


def test_a_place_has_the_image_that_was_put_there(client: FakeClient) -> None:
    client.fake.put_image("s3://photos/1.jpg", image_bytes((30, 20)))
    assert client.segment("s3://photos/1.jpg").size == (30, 20)
    assert client.segment("s3://photos/2.jpg").size == (64, 48)


def test_the_mask_is_the_one_that_the_test_gave(client: FakeClient) -> None:
    mask = Image.new("P", (60, 40), 2)
    mask.putpalette([255, 0, 0] * 256)  # the ids count, not the colours
    mask.paste(5, (0, 0, 10, 40))
    client.fake.set_mask(mask)
    result = client.segment(image_bytes((60, 40)), outputs={"mask", "stats", "binary"})
    assert result.mask().tobytes() == mask.tobytes()
    assert {one.id: one.pixels for one in result.stats} == {2: 2000, 5: 400}
    assert result.binary("car").histogram()[-1] == 400


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (Image.new("L", (1, 1)), "this image needs 60x40 px"),
        (Image.new("RGB", (60, 40)), "of mode L or P"),
        (Image.new("L", (60, 40), 200), "beyond the 6 labels"),
    ],
)
def test_a_mask_that_does_not_fit_is_an_error_of_the_test(
    client: FakeClient, mask: Image.Image, message: str
) -> None:
    client.fake.set_mask(mask)
    job = client.submit(image_bytes((60, 40)))
    with pytest.raises(ValueError, match=message):
        job.wait(5)
    with pytest.raises(JobFailed, match=message):
        job.wait(5)


@pytest.mark.parametrize("seed", range(8))
def test_files_say_what_the_worker_s_would(seed: int) -> None:
    """Of noise, so that classes have many regions and runs of every length."""
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 3, random.integers(1, 12, 2), dtype=np.uint8)
    mask, photo = Image.fromarray(pixels), Image.new("RGB", pixels.shape[::-1])
    labels = ["sky", "sea", "sand"]
    classes = outputs.stats(pixels, labels)
    assert stats_of(mask, labels, shapes=True) == classes
    made = Segmented(photo, mask, labels, classes, None, "image", "")
    wanted = frozenset({Output.RLE, Output.STATS, Output.BINARY, Output.MASK})
    ours = {name: body for named in files_of(wanted, made).values() for name, body in named.items()}

    class Kept:
        mask, logits, confidence, uncertain = pixels, None, None, None

    theirs = outputs.encode(
        wanted, image=photo, output=Kept(), labels=labels, classes=classes, source=Source()
    )
    assert list(ours) == [one.filename for one in theirs]
    for one in theirs:
        if one.filename.endswith(".png"):
            assert _pixels(ours[one.filename]) == _pixels(one.body)
    rle, other = (_annotations(one) for one in (ours["rle.json"], _body(theirs, "rle.json")))
    assert rle == other


def _body(artifacts: list[Any], name: str) -> bytes:
    return next(one.body for one in artifacts if one.filename == name)


def _pixels(body: bytes) -> tuple[str, bytes]:
    image = Image.open(io.BytesIO(body))
    return image.mode, image.tobytes()


def _annotations(body: bytes) -> list[tuple[Any, ...]]:
    return [
        (one["category_id"], one["segmentation"]["counts"], one["bbox"], one["area"])
        for one in json.loads(body)["annotations"]
    ]


def test_every_output_of_the_contract_can_be_made(client: FakeClient) -> None:
    result = client.segment(image_bytes(), outputs=list(Output))
    for output, files in FILES.items():
        label = next(iter(result.labels)) if files.is_per_class else None
        assert result.read(output, label)


# --- failures and delays ------------------------------------------------------------------------------


def test_failures_are_used_up(client: FakeClient) -> None:
    client.fake.fail_next("out_of_memory", "too large", times=2)
    for _ in range(2):
        with pytest.raises(JobFailed, match="too large") as raised:
            client.segment(image_bytes())
        assert raised.value.code is FailureCode.OUT_OF_MEMORY
    client.segment(image_bytes())
    with pytest.raises(ValueError, match="no_such_code"):
        client.fake.fail_next("no_such_code")


def test_jobs_take_the_time_that_the_test_says(client: FakeClient) -> None:
    client.fake.takes_s = 60
    with pytest.raises(WaitTimeout, match="still running"):
        client.submit(image_bytes()).wait(0.01)
    client.fake.takes_s = 0.3
    began = time.monotonic()
    job = client.submit(image_bytes())
    job.wait(30)
    assert time.monotonic() - began > 0.25
    record = job.record
    assert record is not None
    assert record.started_ms is not None
    assert record.ended_ms == record.started_ms + 300


def test_a_job_longer_than_its_run_timeout_fails(client: FakeClient) -> None:
    client.fake.takes_s = 60
    with pytest.raises(JobFailed) as raised:
        client.segment(image_bytes(), run_timeout=0.05)
    assert raised.value.code is FailureCode.TIMEOUT


def test_a_running_job_is_canceled_and_stays_so(client: FakeClient) -> None:
    client.fake.takes_s = 60
    job = client.submit(image_bytes())
    assert job.refresh().status is JobStatus.RUNNING
    assert job.cancel()
    with pytest.raises(WaitTimeout):
        client.submit(image_bytes()).wait(0)
    with pytest.raises(JobFailed, match="canceled"):
        job.wait(30)


def test_paused_jobs_start_after_the_pause(client: FakeClient) -> None:
    with client.fake.paused():
        job = client.submit(image_bytes())
        assert job.refresh().status is JobStatus.QUEUED
        assert client.models()[0].queued == 1
    assert job.wait(30).size == (64, 48)


@pytest.mark.parametrize("error", [QueueFull("full"), SubmitRateExceeded("too fast", 0.1)])
def test_a_full_queue_is_retried_as_long_as_the_caller_says(
    client: FakeClient, error: QueueFull
) -> None:
    client.fake.refuse_next(error)
    with pytest.raises(type(error)):
        client.submit(image_bytes())
    client.fake.refuse_next(error, times=2)
    assert client.submit(image_bytes(), queue_full_timeout=30)
    client.fake.refuse_next(error)
    (one,) = client.submit_each([image_bytes()], queue_full_timeout=0)
    assert isinstance(one.error, type(error))


def test_a_job_waits_for_jobs_of_its_own_tenant_and_of_others(client: FakeClient) -> None:
    with client.fake.paused():
        for tenant in (None, "ada", "ada", "bob", "bob", "bob", "bob"):
            client.submit(image_bytes(), tenant=tenant)
        found = client.why(client.submit(image_bytes(), tenant="ada").id)
    assert (found.position, found.position_in_tenant) == (5, 2)
    client.fake.takes_s = 60
    assert client.why(client.submit(image_bytes()).id).reason == "running"


def test_a_full_queue_and_then_an_outage_lose_no_image(client: FakeClient) -> None:
    def images() -> Iterator[str]:
        yield from ("s3://photos/0.jpg", "s3://photos/1.jpg")
        # The first two are submitted by now, so an outage is tolerated.
        client.fake.refuse_next(QueueFull("full"))
        client.fake.refuse_next(StoreUnavailable("away"))
        yield from ("s3://photos/2.jpg", "s3://photos/3.jpg")

    outcomes = {one.image: one.error for one in client.submit_each(images(), chunk=2)}
    assert outcomes == {f"s3://photos/{number}.jpg": None for number in range(4)}


def test_a_batch_that_meets_a_full_queue_is_refused_as_a_whole(client: FakeClient) -> None:
    with client.fake.paused():
        client.fake.fail_next()
        client.submit(image_bytes()).cancel()
        client.fake.refuse_next(QueueFull("full"))
        with pytest.raises(QueueFull):
            client.submit_many([image_bytes()] * 2)
        assert {one.status for one in client.list().records} == {JobStatus.CANCELED}


def test_during_an_outage_calls_fail(client: FakeClient) -> None:
    with client.fake.outage():
        for call in (client.list, client.models, lambda: client.submit(image_bytes())):
            with pytest.raises(StoreUnavailable):
                call()
    assert client.list().records == ()


def test_a_wait_that_has_begun_tolerates_an_outage(client: FakeClient) -> None:
    with client.fake.paused():
        job = client.submit(image_bytes())
        wait = client.session.deployment.record_when_ended(job.id, 60)
        assert isinstance(next(wait), Sleep)  # it has looked once
        with client.fake.outage():
            assert isinstance(next(wait), Sleep)
            with pytest.raises(StoreUnavailable):  # of one that begins now
                job.wait(60)
    with pytest.raises(StopIteration) as stop:
        next(wait)
    assert stop.value.value.status is JobStatus.SUCCEEDED


def test_threads_and_loops_share_one_deployment(client: FakeClient) -> None:
    before = set(threading.enumerate())
    with ThreadPoolExecutor(8) as pool:
        jobs = list(pool.map(lambda _: client.submit(image_bytes()), range(200)))
        list(pool.map(lambda job: job.wait(60), jobs))
    awaited = FakeAsyncClient(client.fake)

    async def ended() -> int:
        return len((await awaited.list(status="succeeded", limit=1000)).records)

    assert asyncio.run(ended()) == 200
    assert len({job.id for job in jobs}) == 200
    until(lambda: len(set(threading.enumerate()) - before) < 4)


def test_many_jobs_cost_little(client: FakeClient) -> None:
    began = time.process_time()
    images = [f"s3://photos/{number}.jpg" for number in range(1000)]
    jobs = [one.job for one in client.submit_each(images, run_id="many")]
    ids = [job.id for job in jobs if job]
    assert len(list(client.batch("many", ids).as_completed(60))) == 1000
    assert time.process_time() - began < 30


# --- webhooks -----------------------------------------------------------------------------------------


def test_a_receiver_that_fails_gets_the_webhook_again(client: FakeClient) -> None:
    statuses = [500, 204]
    job = client.submit(image_bytes(), webhook="https://shop.example/hook")
    delivered = [client.fake.deliver_webhooks(lambda *_: statuses.pop(0)) for _ in range(2)]
    assert delivered == [0, 1]
    (delivery,) = client.deliveries(job.id)
    assert [one.status for one in delivery.log] == [500, 204]
    client.redeliver(delivery.id)
    assert client.fake.deliver_webhooks(lambda *_: 410) == 0
    assert [one.state for one in client.deliveries()] == ["failed"]


def test_webhooks_are_signed_with_the_fake_s_secret() -> None:
    secret = webhooks.new_secret()
    client = FakeClient(FakeService(webhook_secret=secret))
    client.segment(image_bytes(), webhook="https://shop.example/hook")
    (webhook,) = client.fake.webhooks
    assert webhooks.verify(webhook.headers, webhook.body, secret=secret).id == webhook.id
    with pytest.raises(WebhookRefused):
        webhooks.verify(webhook.headers, webhook.body, secret=WEBHOOK_SECRET)


# --- one line -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", JobStatus)
def test_a_record_of_every_status_is_one_line(status: JobStatus) -> None:
    record = make_record(status, tenant="acme", image_uri="s3://photos/7.jpg")
    assert JobRecord.model_validate(record.public()) == record
    assert (record.tenant, record.request.image_uri) == ("acme", "s3://photos/7.jpg")
    assert bool(record.result) == (status is JobStatus.SUCCEEDED)
    assert bool(record.error) == (record.ended and not record.result)
    event = make_event(record)
    EVENT_DATA[event.type].model_validate(event.data)
    assert event.job().status is status


def test_a_result_is_one_line() -> None:
    result = make_result(size=(8, 4), labels=["sky", "sea"], outputs=["mask", "rle"])
    assert result.mask().size == result.size == (8, 4)
    assert set(result.labels.values()) <= {"sky", "sea"}
    assert make_result(Image.new("L", (3, 2), 1)).labels == {1: "tree"}


def test_a_webhook_is_one_line() -> None:
    webhook = sign_webhook(make_event("failed"), "https://shop.example/hook")
    event = webhooks.verify(webhook.headers, webhook.body, secret=WEBHOOK_SECRET)
    assert (event.type, webhook.url) == ("maskq.job.failed", "https://shop.example/hook")
