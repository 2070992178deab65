"""Every result names its source: records, events, results, objects and handles, on both transports."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pytest
from integration.worker.test_pipeline import Bench
from PIL import Image
from support.damaged import damaged
from support.transports import TRANSPORTS, connected
from typer.testing import CliRunner

from maskq import Client, JobStatus, Output
from maskq.cli import build
from maskq.contract import JobRecord, SegmentRequest
from maskq.contract.jobs import Manifest
from maskq.contract.locations import S3Uri
from maskq.contract.outputs import FILES
from maskq.contract.storage_layout import class_file
from maskq.ledger import calls

if TYPE_CHECKING:
    from maskq_standalone.servers.s3 import S3Server

EVERY = frozenset(Output)


def png(colour: str = "teal") -> bytes:
    body = io.BytesIO()
    Image.new("RGB", (60, 40), colour).save(body, "PNG")
    return body.getvalue()


@pytest.fixture(params=TRANSPORTS)
def client(
    request: pytest.FixtureRequest, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Client]:
    with connected(request.param, monkeypatch) as (client, _):
        yield client


@pytest.fixture
def direct(bench: Bench) -> Iterator[Client]:
    with Client.from_env(transport="direct") as client:
        yield client


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / 'grün "1" 100%.png'
    path.write_bytes(png())
    return path


@pytest.fixture
def stored(bench: Bench, s3_server: S3Server) -> S3Uri:
    place = S3Uri(s3_server.bucket, f"{bench.prefix}-in/grün + 1.png")
    s3_server.client().put_object(Bucket=place.bucket, Key=place.key, Body=png())
    return place


def manifest_of(direct: Client, record: JobRecord) -> Manifest:
    place = direct.session.layout.of(record).manifest
    return Manifest.model_validate_json(direct.objects.get(place))


def sources_in_events(client: Client, job_id: str) -> list[str | None]:
    found = client.events(since="0", job_ids=[job_id], idle=0.2)
    return [event.job().source for event in found]


def test_a_file_is_the_source_under_the_name_given(
    client: Client, direct: Client, bench: Bench, photo: Path
) -> None:
    job = client.submit(photo)
    assert job.source == str(photo)
    bench.pipeline.run("smallest")
    result = job.wait(timeout=60)
    assert (job.source, result.source) == (str(photo), str(photo))
    record = client.get(job.id).refresh()
    assert record.source == str(photo)
    assert manifest_of(direct, record).source == str(photo)
    assert sources_in_events(client, job.id) == [str(photo)] * 3  # queued, running, succeeded
    assert [one.id for one in client.list(source=str(photo)).records] == [job.id]


def test_an_object_is_the_source_by_its_place(
    client: Client, direct: Client, bench: Bench, stored: S3Uri
) -> None:
    job = client.submit(str(stored))
    bench.pipeline.run("smallest")
    record = job.wait(timeout=60) and client.get(job.id).refresh()
    assert job.source == record.source == str(stored)
    assert manifest_of(direct, record).source == str(stored)
    assert set(sources_in_events(client, job.id)) == {str(stored)}


def test_images_without_a_name_are_named_by_where_they_lie(client: Client, bench: Bench) -> None:
    job = client.submit(png())
    assert job.source is None
    record = job.refresh()
    assert job.source == record.request.image_uri == record.source


def test_every_handle_of_many_images_has_its_source(
    client: Client, bench: Bench, photo: Path, stored: S3Uri
) -> None:
    images: list[Any] = [photo, str(stored), png("navy")]
    batch = client.submit_many(images)
    assert [job.source for job in batch.jobs] == [str(photo), str(stored), None]
    for _ in images:
        bench.pipeline.run("smallest")
    found = {job.source for job in batch.as_completed(timeout=60)}
    assert found >= {str(photo), str(stored)}
    each = {one.job.source for one in client.submit_each(images, run_id="r") if one.job}
    assert each == {str(photo), str(stored), None}
    (event,) = (
        one for one in client.events(since="0", types=["batch.completed"], idle=0.2)
        if one.subject == batch.id
    )  # fmt: skip
    assert "source" not in event.data
    assert event.source == f"maskq/{bench.prefix}"


def test_a_presigned_url_is_the_source_without_its_secret(client: Client, bench: Bench) -> None:
    job = client.submit("https://images.invalid/a.png?X-Amz-Signature=secret")
    assert job.source == "https://images.invalid/a.png"
    bench.pipeline.run("smallest")  # the host does not exist
    record = client.get(job.id).refresh()
    assert record.source == "https://images.invalid/a.png"
    assert set(sources_in_events(client, job.id)) == {"https://images.invalid/a.png"}
    found = client.list(source="https://images.invalid/a.png?other=secret").records
    assert [one.id for one in found] == [job.id]


def test_a_version_is_part_of_the_source(
    client: Client, direct: Client, bench: Bench, s3_server: S3Server
) -> None:
    s3 = s3_server.client()
    bucket = f"versions-{bench.prefix}"
    s3.create_bucket(Bucket=bucket)
    s3.put_bucket_versioning(
        Bucket=bucket, VersioningConfiguration={"Status": "Enabled"}
    )  # fmt: skip
    place = S3Uri(bucket, "a.png")
    first, second = (
        s3.put_object(Bucket=bucket, Key="a.png", Body=png(colour))["VersionId"]
        for colour in ("navy", "teal")
    )
    # Given a job of the first version, and one that takes what is there
    pinned = client.submit(str(place), image_version_id=first)
    latest = client.submit(str(place))
    assert pinned.source == f"{place}?versionId={first}"
    for _ in range(2):
        bench.pipeline.run("smallest")
    records = {job.id: client.get(job.id).refresh() for job in (pinned, latest)}
    # Then the result names the version that was read, and the record the one that was asked for
    assert records[pinned.id].source == f"{place}?versionId={first}"
    assert records[latest.id].source == str(place)
    assert manifest_of(direct, records[pinned.id]).source == f"{place}?versionId={first}"
    assert manifest_of(direct, records[latest.id]).source == f"{place}?versionId={second}"
    # and both are found by the object's place
    assert {one.id for one in client.list(source=str(place)).records} == set(records)
    found = client.list(source=f"{place}?versionId={first}").records
    assert [one.id for one in found] == [pinned.id]


def test_a_key_that_looks_like_a_version_is_another_object(client: Client, bench: Bench) -> None:
    place = f"s3://bucket/{bench.prefix}.png"
    hostile = client.submit(f"{place}?versionId=x.png")
    plain = client.submit(place)
    assert [one.id for one in client.list(source=place).records] == [plain.id]
    assert hostile.id != plain.id


def test_a_retry_has_the_source_of_the_job_it_retries(
    client: Client, bench: Bench, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(damaged())
    job = client.submit(broken)
    bench.pipeline.run("smallest")
    record = job.refresh()
    assert (record.status, record.source) == (JobStatus.FAILED, str(broken))
    assert client.retry(job.id).refresh().source == str(broken)


def test_objects_name_their_job_and_source(
    client: Client, bench: Bench, stored: S3Uri, s3_server: S3Server
) -> None:
    job = client.submit(str(stored), outputs=EVERY)
    bench.pipeline.run("smallest")
    job.wait(timeout=60)
    place = bench.place(job.id)
    s3 = s3_server.client()
    listed = s3.list_objects_v2(Bucket=place.bucket, Prefix=f"{place.key}/")["Contents"]
    assert len(listed) > len(EVERY)
    types = {files.content_type for files in FILES.values()}
    for entry in listed:
        head = s3.head_object(Bucket=place.bucket, Key=entry["Key"])
        assert head["Metadata"]["maskq-job"] == job.id
        assert unquote(head["Metadata"]["maskq-source"]) == str(stored)
        assert head["ContentType"] in types


def test_objects_written_by_boto3_name_them_too(
    bench: Bench, stored: S3Uri, s3_server: S3Server
) -> None:
    request = SegmentRequest(image_uri=str(stored))
    bench.ledger.run(calls.submit("a", request, calls.Limits()))
    bench.store._use_obstore = False
    bench.pipeline.run("smallest")
    result = bench.record("a").result
    assert result is not None
    mask = S3Uri.parse(result.outputs[Output.MASK])
    head = s3_server.client().head_object(Bucket=mask.bucket, Key=mask.key)
    assert head["Metadata"]["maskq-job"] == "a"
    assert head["ContentType"] == "image/png"


def test_results_hold_the_digests_of_source_and_outputs(
    client: Client, direct: Client, bench: Bench, stored: S3Uri
) -> None:
    job = client.submit(str(stored), outputs=EVERY)
    bench.pipeline.run("smallest")
    result = job.wait(timeout=60)
    details, record = result.details, client.get(job.id).refresh()
    assert details.source_sha256 == hashlib.sha256(png()).hexdigest()
    assert set(details.output_sha256) == EVERY
    for output, digest in details.output_sha256.items():
        if FILES[output].is_per_class:
            continue
        body = result.read(output)
        assert digest == hashlib.sha256(body).hexdigest()
    folder = S3Uri.parse(details.outputs[Output.BINARY])
    lines = ""
    for class_id in sorted(details.labels):
        file = class_file(folder, Output.BINARY, class_id)
        digest = hashlib.sha256(direct.objects.get(file)).hexdigest()
        lines += f"{digest}  {file.key.rpartition('/')[2]}\n"
    assert details.output_sha256[Output.BINARY] == hashlib.sha256(lines.encode()).hexdigest()
    manifest = manifest_of(direct, record)
    assert manifest.output_sha256 == details.output_sha256
    assert manifest.source_sha256 == details.source_sha256
    assert manifest.job_id == job.id
    assert manifest.request == {"image_uri": str(stored), "outputs": sorted(EVERY)}


def test_uploaded_files_have_their_name_in_rle_json(
    client: Client, bench: Bench, photo: Path
) -> None:
    job = client.submit(photo, outputs={"rle"})
    bench.pipeline.run("smallest")
    (image,) = job.wait(timeout=60).rle()["images"]
    assert image["file_name"] == photo.name


def test_the_manifest_of_a_run_and_the_list_name_sources(
    client: Client, bench: Bench, photo: Path, stored: S3Uri, tmp_path: Path
) -> None:
    images = tmp_path / "list.txt"
    url = "https://images.invalid/a.png?X-Amz-Signature=secret"
    images.write_text(f"{photo}\n{stored}\n{url}\n")
    written = tmp_path / "run.jsonl"
    run = CliRunner().invoke(build(), ["submit", "-r", str(images), "--manifest", str(written)])
    assert run.exit_code == 0, run.output
    lines = [json.loads(line) for line in written.read_text().splitlines()[1:]]
    assert [line["source"] for line in lines] == [
        str(photo), str(stored), "https://images.invalid/a.png"
    ]  # fmt: skip
    client.get(lines[-1]["job_id"]).cancel()  # the host does not exist
    for _ in lines:
        bench.pipeline.run("smallest")
    run = CliRunner().invoke(
        build(), ["submit", "-r", str(images), "--manifest", str(written), "--wait", "--json"]
    )
    lines = [json.loads(line) for line in written.read_text().splitlines()[1:]]
    assert {line["source"] for line in lines if "status" in line} == {
        str(photo), str(stored), "https://images.invalid/a.png"
    }  # fmt: skip
    listed = CliRunner().invoke(build(), ["list", "--source", str(photo), "--json"])
    assert [job["source"] for job in json.loads(listed.output)["jobs"]] == [str(photo)]


def test_a_record_of_an_older_version_names_its_place(bench: Bench, client: Client) -> None:
    bench.submit("a")
    bench.ledger.redis.hdel(f"{bench.prefix}:job:a", "source")
    record = bench.record("a")
    assert record.source == record.request.image_uri
    bench.pipeline.run("smallest")
    assert bench.record("a").status is JobStatus.SUCCEEDED
    found = client.list(source=record.source).records
    assert [one.id for one in found] == ["a"]
