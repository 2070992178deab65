"""A job, its results and its errors, on the fake and on a real stack."""

from __future__ import annotations

import hashlib
import io
import pickle
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.worlds import SIZE, UNKNOWN, World, new_prefix

from maskq import (
    Client,
    FailureCode,
    IdempotencyConflict,
    InvalidRequest,
    JobFailed,
    JobNotFound,
    JobStatus,
    Output,
    StoreRefused,
    UnknownModel,
    WaitTimeout,
)
from maskq.contract.ids import new_id
from maskq.testing import damaged_image_bytes, image_bytes

ALL = {"mask", "overlay", "stats", "confidence", "logits", "rle", "binary", "uncertain"}


def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


# --- one job ------------------------------------------------------------------------------------------


def test_every_output_of_a_job_can_be_read(world: World, client: Client) -> None:
    result = client.segment(image_bytes(SIZE), outputs=ALL, timeout=60, tenant=world.tenant)

    assert result.size == SIZE
    mask = result.mask()
    assert (mask.mode, mask.size) == ("P", SIZE)
    present = set(mask.tobytes())
    assert set(result.labels) == present == {entry.id for entry in result.stats}
    assert sum(entry.pixels for entry in result.stats) == SIZE[0] * SIZE[1]
    assert [entry.share for entry in result.stats] == sorted(
        (entry.share for entry in result.stats), reverse=True
    )
    assert (result.overlay().mode, result.overlay().size) == ("RGB", SIZE)
    assert (result.confidence().mode, result.confidence().size) == ("L", SIZE)
    assert result.logits().ndim == 3
    uncertain = result.uncertain()
    assert (uncertain.mode, uncertain.size, uncertain.getextrema()) == ("1", SIZE, (0, 0))
    assert (result.details.precision, result.details.uncertain_share) == ("exact", 0.0)
    for entry in result.stats:
        binary = result.binary(entry.label)
        assert binary.mode == "1"
        assert binary.histogram()[-1] == entry.pixels
        assert result.read("binary", entry.id)
        assert entry.bbox is not None
        assert entry.regions is not None
    assert Image.open(io.BytesIO(result.read("mask"))).format == "PNG"
    assert result.mask_uri == result.uri("mask")
    with pytest.raises(InvalidRequest, match="no class 'zebra'"):
        result.binary("zebra")
    with pytest.raises(InvalidRequest, match="one file per class"):
        result.read("binary")


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_rle_is_read_back_by_pycocotools_as_the_mask(world: World, client: Client) -> None:
    from pycocotools import mask as coco

    result = client.segment(image_bytes(SIZE), outputs={"mask", "rle"}, timeout=60)
    mask = result.mask().tobytes()
    for one in result.rle()["annotations"]:
        decoded = coco.decode(one["segmentation"]).tobytes(order="C")
        assert [value == one["class_id"] for value in mask] == [bool(value) for value in decoded]
        assert one["area"] == sum(decoded)
        assert one["bbox"] == coco.toBbox(one["segmentation"]).tolist()


def test_chosen_classes_are_alone_in_the_mask(world: World, client: Client) -> None:
    first = client.segment(image_bytes(SIZE), timeout=60)
    label = next(iter(first.labels.values()))
    result = client.segment(image_bytes(SIZE), classes=[label], timeout=60)
    assert list(result.labels.values()) == [label]
    assert set(result.mask().tobytes()) - {255} == set(result.labels)
    with pytest.raises(JobFailed) as raised:
        client.segment(image_bytes(SIZE), classes=["zebra crossing"], timeout=60)
    assert raised.value.code is FailureCode.INVALID_REQUEST


def test_an_output_that_was_not_asked_for_is_an_error(world: World, client: Client) -> None:
    result = world.submit().wait(60)
    with pytest.raises(InvalidRequest, match="has no output 'overlay'"):
        result.overlay()
    assert result.stats == []


def test_a_job_that_fails_raises_and_says_why(world: World, client: Client) -> None:
    job = client.submit(damaged_image_bytes(), tenant=world.tenant)
    with pytest.raises(JobFailed, match="invalid_image") as raised:
        job.wait(60)
    assert raised.value.code is FailureCode.INVALID_IMAGE
    assert (job.status, job.done()) == (JobStatus.FAILED, True)
    assert client.list(code="invalid_image", tenant=world.tenant).records == (job.record,)
    with pytest.raises(JobFailed):
        job.result()


def test_a_job_that_waits_can_be_waited_for_and_canceled(world: World, client: Client) -> None:
    with world.queued_jobs() as options:
        job = world.submit(**options)
        assert (job.record, job.status) == (None, JobStatus.QUEUED)
        with pytest.raises(WaitTimeout, match="still queued"):
            job.wait(0.05)
        with pytest.raises(WaitTimeout):
            job.result()
        assert not job.done()
        assert job.cancel() is True
        assert job.status is JobStatus.CANCELED
        assert job.cancel() is True
        with pytest.raises(JobFailed, match="canceled"):
            job.wait(60)


def test_a_job_says_what_it_waits_for(world: World, client: Client) -> None:
    with world.queued_jobs() as options:
        jobs = [world.submit(**options) for _ in range(3)]
        jobs.append(world.submit(priority="high", **options))
        found = [client.why(job.id) for job in jobs]
        for job in jobs:
            job.cancel()
    canceled = client.why(jobs[0].id)
    ended = world.submit()
    ended.wait(60)

    assert {(one.reason, one.status, one.workers) for one in found} == {("no_worker", "queued", 0)}
    assert [one.position_in_tenant for one in found] == [1, 2, 3, 0]
    assert {one.tenant for one in found} == {world.tenant}
    assert found[0].text == (
        f"job {jobs[0].id} waits for a worker: none serves model {found[0].model} now"
    )
    assert (canceled.reason, canceled.position) == ("ended", None)
    assert client.why(ended.id).text == f"job {ended.id} waits for nothing: it has succeeded"


def test_a_job_names_its_source(world: World, client: Client, tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    photo.write_bytes(image_bytes(SIZE))
    job = client.submit(photo, outputs={"mask", "rle"}, tenant=world.tenant)
    result = job.wait(60)
    assert job.source == result.source == str(photo)
    assert result.rle()["images"][0]["file_name"] == "photo.png"
    assert client.list(source=str(photo), tenant=world.tenant).records == (job.record,)
    with world.queued_jobs() as options:
        again = client.submit("s3://photos/a.jpg", **options).refresh()
    assert again.source == "s3://photos/a.jpg"


def test_a_result_has_the_digests_of_its_image_and_files(world: World, client: Client) -> None:
    photo = image_bytes(SIZE)
    result = client.segment(photo, outputs=ALL, timeout=60, tenant=world.tenant)
    assert result.details.source_sha256 == sha256(photo)
    stated = dict(result.details.output_sha256)
    lines = [
        f"{sha256(result.read('binary', one))}  {one:03d}.png\n" for one in sorted(result.labels)
    ]
    assert stated.pop(Output.BINARY) == sha256("".join(lines).encode())
    assert stated == {one: sha256(result.read(one)) for one in ALL - {"binary"}}


def test_a_result_names_its_copies(world: World, client: Client) -> None:
    prefix = new_prefix(world)
    result = client.segment(
        image_bytes(SIZE),
        outputs={"mask", "binary"},
        output_prefix=prefix,
        output_name="{job_id}.{output}",
        timeout=60,
    )
    files = ["mask.png", *(f"binary/{one:03d}.png" for one in sorted(result.labels))]
    assert result.copies == {file: f"{prefix}/{result.job_id}.{file}" for file in files}


def test_a_copy_of_another_job_stays_unless_it_may_be_replaced(
    world: World, client: Client
) -> None:
    options: Any = {"output_prefix": new_prefix(world), "output_name": "all.{output}"}
    first = world.submit(**options)
    first.wait(60)
    with pytest.raises(JobFailed, match=f"job {first.id} wrote it") as raised:
        world.submit(**options).wait(60)
    assert raised.value.code is FailureCode.OUTPUT_EXISTS
    last = world.submit(output_replace=True, **options)
    last.wait(60)
    last.delete()
    assert world.submit(**options).wait(60).copies


@pytest.mark.parametrize(
    ("file_name", "output_name", "message"),
    [
        ("a\nb.png", "{stem}.{output}", "control character"),
        ("a.png", "{output}", "has the form of maskq's own names"),
    ],
)
def test_a_name_that_output_name_must_not_give_fails_the_job(
    world: World, client: Client, tmp_path: Path, file_name: str, output_name: str, message: str
) -> None:
    photo = tmp_path / file_name
    photo.write_bytes(image_bytes(SIZE))
    job = client.submit(photo, output_prefix=new_prefix(world), output_name=output_name)
    with pytest.raises(JobFailed, match=message) as raised:
        job.wait(60)
    assert raised.value.code is FailureCode.INVALID_REQUEST


def test_a_job_that_has_ended_is_not_canceled(world: World) -> None:
    job = world.submit()
    job.wait(60)
    assert job.cancel() is False
    assert job.status is JobStatus.SUCCEEDED


def test_a_job_that_does_not_start_in_time_expires(world: World) -> None:
    with world.queued_jobs() as options:
        job = world.submit(queue_ttl=0.2, **options)
        with pytest.raises(JobFailed) as raised:
            job.wait(60)
    assert raised.value.code is FailureCode.EXPIRED


def test_a_canceled_job_is_retried_once(world: World, client: Client) -> None:
    with world.queued_jobs() as options:
        job = world.submit(metadata={"order": "7"}, **options)
        job.cancel()
        again = client.retry(job.id)
        assert client.retry(job.id).id == again.id
        record = again.refresh()
        assert (record.retry_of, record.request.metadata) == (job.id, {"order": "7"})
        again.cancel()
    done = world.submit()
    done.wait(60)
    with pytest.raises(InvalidRequest, match="only a job that is failed"):
        client.retry(done.id)


def test_a_deleted_job_is_gone_with_its_files(world: World, client: Client) -> None:
    job = world.submit()
    result = job.wait(60)
    job.delete()
    with pytest.raises(JobNotFound):
        job.refresh()
    with pytest.raises(StoreRefused) as raised:
        result.mask()
    assert raised.value.code is FailureCode.NOT_FOUND
    other = world.submit()
    client.delete(other.id)
    with pytest.raises(JobNotFound):
        client.get(other.id)


def test_an_unknown_job_is_not_found(client: Client) -> None:
    for operation in (client.get, client.delete, client.retry, client.why):
        with pytest.raises(JobNotFound, match=UNKNOWN):
            operation(UNKNOWN)


def test_an_unknown_batch_or_delivery_is_not_found(client: Client) -> None:
    with pytest.raises(JobNotFound, match="batch"):
        client.batch(UNKNOWN, [UNKNOWN]).progress()
    with pytest.raises(JobNotFound, match="delivery"):
        client.redeliver("nothing")


# --- refused ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "options"),
    [
        (Path("no such file.jpg"), {}),
        (5, {}),
        ("s3://Photos/a.jpg", {}),
        ("s3://photos/a.jpg", {"otuputs": {"mask"}}),
        ("s3://photos/a.jpg", {"outputs": {"masks"}}),
        ("s3://photos/a.jpg", {"overlay_alpha": 0.5}),
        ("s3://photos/a.jpg", {"image_etag": ""}),
    ],
)
def test_what_is_not_valid_is_refused(client: Client, image: Any, options: Any) -> None:
    with pytest.raises(InvalidRequest):
        client.submit(image, **options)


def test_an_unknown_model_is_refused_with_the_known_ones(client: Client) -> None:
    (model, *_) = client.models()
    with pytest.raises(UnknownModel, match=f"did you mean {model.name!r}"):
        client.submit("s3://photos/a.jpg", model=f"{model.name}s")
    with pytest.raises(UnknownModel):
        list(client.submit_each(["s3://photos/a.jpg"], model=f"{model.name}s"))


def test_an_idempotency_key_names_one_request(world: World, client: Client) -> None:
    key = new_id()
    job = world.submit(idempotency_key=key)
    assert world.submit(idempotency_key=key).id == job.id
    with pytest.raises(IdempotencyConflict, match=key):
        world.submit(idempotency_key=key, priority="high")
    job.wait(60)
    job.delete()
    assert world.submit(idempotency_key=key).id != job.id


def test_handles_cannot_be_pickled(world: World) -> None:
    with pytest.raises(InvalidRequest, match="cannot be pickled"):
        pickle.dumps(world.submit())
