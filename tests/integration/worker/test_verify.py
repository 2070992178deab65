"""maskq verify: stored and local outputs beside the digests of their result, and made again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from integration.worker.test_pipeline import Bench
from integration.worker.test_sources import png
from PIL import Image
from support.transports import TRANSPORTS, connected
from typer.testing import CliRunner

from maskq import Client, Output, Result
from maskq.cli import build
from maskq.contract.jobs import Manifest
from maskq.contract.locations import S3Uri
from maskq.contract.outputs import FILES
from maskq.contract.storage_layout import class_file
from maskq.ledger import keys

if TYPE_CHECKING:
    from maskq_standalone.servers.s3 import S3Server

EVERY = frozenset(Output)


class Made:
    """A job that has ended, and a hand on its objects."""

    def __init__(self, bench: Bench, server: S3Server, result: Result) -> None:
        self.result = result
        self.folder = bench.place(result.job_id)
        self._s3 = server.client()

    @property
    def manifest(self) -> S3Uri:
        return self.folder / "result.json"

    def file(self, output: Output) -> S3Uri:
        place = S3Uri.parse(self.result.uri(output))
        if not FILES[output].is_per_class:
            return place
        return class_file(place, output, min(self.result.labels))

    def read(self, place: S3Uri) -> bytes:
        return bytes(self._s3.get_object(Bucket=place.bucket, Key=place.key)["Body"].read())

    def change(self, place: S3Uri) -> None:
        body = self.read(place)
        self._s3.put_object(Bucket=place.bucket, Key=place.key, Body=body[:-1] + b"?")

    def delete(self, place: S3Uri) -> None:
        self._s3.delete_object(Bucket=place.bucket, Key=place.key)

    def download(self, folder: Path, *outputs: Output) -> Path:
        """Write result.json and these outputs; returns the path of result.json."""
        for output in outputs:
            (folder / FILES[output].name).write_bytes(self.read(self.file(output)))
        path = folder / "result.json"
        path.write_bytes(self.read(self.manifest))
        return path


def segmented(bench: Bench, server: S3Server, client: Client, image: Any, **options: Any) -> Made:
    job = client.submit(image, **options)
    bench.pipeline.run("smallest")
    return Made(bench, server, job.wait(timeout=60))


@pytest.fixture
def client(bench: Bench) -> Iterator[Client]:
    with Client.from_env(transport="direct") as client:
        yield client


@pytest.fixture
def made(bench: Bench, s3_server: S3Server, client: Client) -> Made:
    return segmented(bench, s3_server, client, png(), outputs=EVERY)


@pytest.fixture(params=TRANSPORTS)
def either(
    request: pytest.FixtureRequest, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """The command reaches Redis and S3 itself, and calls a gateway."""
    with connected(request.param, monkeypatch):
        yield


def verified(*arguments: object, code: int = 0) -> dict[str, Any]:
    run = CliRunner().invoke(build(), ["verify", *map(str, arguments), "--json"])
    assert run.exit_code == code, (run.output, run.exception)
    document: dict[str, Any] = json.loads(run.output)
    assert document["verified"] is (code == 0)
    return document


def refused(*arguments: object) -> str:
    run = CliRunner().invoke(build(), ["verify", *map(str, arguments)])
    assert run.exit_code != 0
    return str(run.exception)


def verdicts(document: dict[str, Any]) -> dict[str, bool | None]:
    return {check.get("output", "?"): check["verified"] for check in document["checks"]}


def test_every_output_of_a_job_is_compared(either: None, made: Made, client: Client) -> None:
    document = verified(made.result.job_id)
    assert document["job_id"] == made.result.job_id
    assert document["source"] == client.get(made.result.job_id).source
    assert verdicts(document).items() >= dict.fromkeys(EVERY, True).items()


@pytest.mark.parametrize("output", [Output.MASK, Output.BINARY])
def test_a_changed_output_differs(either: None, made: Made, output: Output) -> None:
    made.change(made.file(output))
    found = verdicts(verified(made.result.job_id, code=1))
    assert [name for name, is_right in found.items() if not is_right] == [output]


@pytest.mark.parametrize("output", [Output.STATS, Output.BINARY])
def test_a_missing_output_is_reported(either: None, made: Made, output: Output) -> None:
    made.delete(made.file(output))
    document = verified(made.result.job_id, code=1)
    (problem,) = (check["problem"] for check in document["checks"] if not check["verified"])
    assert problem


def test_a_result_json_that_was_changed_with_its_mask_differs_from_the_record(
    made: Made, s3_server: S3Server
) -> None:
    stated = json.loads(made.read(made.manifest))
    stated["output_sha256"]["mask"] = "0" * 64
    s3_server.client().put_object(
        Bucket=made.folder.bucket, Key=made.manifest.key, Body=json.dumps(stated)
    )
    found = verdicts(verified(made.result.job_id, code=1))
    assert (found["result.json"], found["mask"]) == (False, True)


def test_a_result_json_is_enough(made: Made, bench: Bench) -> None:
    bench.ledger.redis.delete(keys.record(made.result.job_id).within(bench.prefix))
    assert verdicts(verified(made.manifest)) == dict.fromkeys(EVERY, True)
    made.change(made.file(Output.MASK))
    assert verdicts(verified(made.manifest, code=1))["mask"] is False


def test_a_stored_mask_is_found_by_its_metadata(made: Made, bench: Bench) -> None:
    mask = made.file(Output.MASK)
    assert verdicts(verified(mask)) == {"mask": True}
    # Also after the job's record is gone
    bench.ledger.redis.delete(keys.record(made.result.job_id).within(bench.prefix))
    assert verified(mask)["result"] == str(made.manifest)
    made.change(mask)
    assert verdicts(verified(mask, code=1)) == {"?": False}


def test_a_copy_elsewhere_is_found_by_its_metadata(
    made: Made, bench: Bench, s3_server: S3Server
) -> None:
    mask = made.file(Output.MASK)
    s3 = s3_server.client()
    copy = S3Uri(mask.bucket, f"{bench.prefix}-copies/a.mask.png")
    s3.copy_object(
        Bucket=copy.bucket, Key=copy.key, CopySource={"Bucket": mask.bucket, "Key": mask.key}
    )
    assert verified(copy)["job_id"] == made.result.job_id
    s3.put_object(Bucket=copy.bucket, Key=copy.key, Body=b"of nobody")
    assert "names no job" in refused(copy)


def test_local_files_are_compared_without_a_connection(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = tmp_path / "alone"
    alone.mkdir()
    outputs = EVERY - {Output.BINARY}
    result = made.download(alone, *outputs)
    stated = json.loads(result.read_text())
    for part in ("outputs", "output_sha256"):
        del stated[part]["binary"]
    result.write_text(json.dumps(stated))
    monkeypatch.setenv("MASKQ_REDIS_URL", "redis://127.0.0.1:1")
    monkeypatch.setenv("MASKQ_S3_ENDPOINT_URL", "http://127.0.0.1:1")
    document = verified(result)
    assert verdicts(document) == dict.fromkeys(outputs, True)
    assert {check["place"] for check in document["checks"]} == {
        str(alone / FILES[output].name) for output in outputs
    }
    # and one mask by the result.json beside it, or by one that is named
    mask = alone / "mask.png"
    assert verdicts(verified(mask)) == {"mask": True}
    moved = tmp_path / "street.png"
    moved.write_bytes(mask.read_bytes())
    assert "--result" in refused(moved)
    assert verdicts(verified(moved, "--result", result)) == {"mask": True}
    moved.write_bytes(mask.read_bytes() + b"?")
    assert verdicts(verified(moved, "--result", result, code=1)) == {"?": False}


def test_outputs_that_are_not_beside_a_local_result_json_are_read_from_the_store(
    made: Made, tmp_path: Path
) -> None:
    result = made.download(tmp_path, Output.MASK)
    document = verified(result)
    assert verdicts(document) == dict.fromkeys(EVERY, True)
    places = {check["output"]: check["place"] for check in document["checks"]}
    assert places["mask"] == str(tmp_path / "mask.png")
    assert places["stats"] == made.result.uri(Output.STATS)


def test_a_local_mask_is_compared_with_a_job(either: None, made: Made, tmp_path: Path) -> None:
    made.download(tmp_path, Output.MASK)
    found = verified(tmp_path / "mask.png", "--result", made.result.job_id)
    assert verdicts(found) == {"mask": True}


def test_a_result_json_that_names_other_objects_reads_none_of_them(
    made: Made, tmp_path: Path, s3_server: S3Server
) -> None:
    s3_server.client().put_object(Bucket=made.folder.bucket, Key="secret.txt", Body=b"secret")
    stated = json.loads(made.read(made.manifest))
    stated["outputs"]["mask"] = f"s3://{made.folder.bucket}/secret.txt"
    path = tmp_path / "result.json"
    path.write_text(json.dumps(stated))
    (check,) = (one for one in verified(path, code=1)["checks"] if not one["verified"])
    assert "outside the job's folder" in check["problem"]
    assert "sha256" not in check


def test_what_cannot_be_verified_is_said(
    made: Made, tmp_path: Path, bench: Bench, s3_server: S3Server
) -> None:
    assert "does not exist" in refused(tmp_path / "no.png")
    assert "--recompute" in refused(made.result.job_id, "--image", "a.png")
    older = json.loads(made.read(made.manifest))
    del older["output_sha256"]
    path = tmp_path / "result.json"
    path.write_text(json.dumps(older))
    assert "older version" in refused(path)
    path.write_text("{}")
    assert "--result" in refused(tmp_path / "result.json", "--result", path)


def test_over_http_a_place_in_s3_needs_a_direct_client(
    bench: Bench, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASKQ_TRANSPORT", "http")
    monkeypatch.setenv("MASKQ_GATEWAY_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("MASKQ_API_KEY", "a-key")
    assert "--transport direct" in refused("s3://bucket/result.json")


class TestRecompute:
    @pytest.fixture(autouse=True)
    def _model(self, smallest_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MASKQ_MODEL", str(smallest_model))
        monkeypatch.setenv("MASKQ_DEVICE", "cpu")

    @pytest.fixture
    def photo(self, tmp_path: Path) -> Path:
        path = tmp_path / "photo.png"
        image = Image.effect_noise((90, 70), 80).convert("RGB")
        image.save(path)
        return path

    @pytest.fixture
    def made(
        self,
        bench: Bench,
        s3_server: S3Server,
        client: Client,
        photo: Path,
    ) -> Made:
        return segmented(
            bench, s3_server, client, photo, outputs=EVERY, mode="multiscale", overlay_alpha=0.3,
            overlay_legend=True,
        )  # fmt: skip

    def test_the_same_image_weights_and_options_give_the_same_bytes(
        self, either: None, made: Made, photo: Path
    ) -> None:
        document = verified(made.result.job_id, "--recompute", "--image", photo)
        assert verdicts(document) == dict.fromkeys(EVERY, True)

    def test_the_image_is_read_where_the_job_read_it(self, made: Made) -> None:
        for result in (made.result.job_id, made.manifest):
            assert verdicts(verified(result, "--recompute")) == dict.fromkeys(EVERY, True)
        assert verdicts(verified(made.file(Output.RLE), "--recompute")) == {"rle": True}

    def test_other_options_give_other_bytes(self, made: Made, photo: Path, tmp_path: Path) -> None:
        stated = json.loads(made.read(made.manifest))
        stated["request"]["overlay_alpha"] = 0.9
        path = tmp_path / "result.json"
        path.write_text(json.dumps(stated))
        found = verdicts(verified(path, "--recompute", "--image", photo, code=1))
        assert [name for name, is_right in found.items() if not is_right] == ["overlay"]

    def test_another_image_or_model_is_refused(
        self, made: Made, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        other = tmp_path / "other.png"
        other.write_bytes(png("red"))
        job_id = made.result.job_id
        assert "not the image" in refused(job_id, "--recompute", "--image", other)
        path = tmp_path / "result.json"
        for field, word in (
            ("model_revision", "MASKQ_MODEL"),
            ("backend", "MASKQ_BACKEND"),
            ("dtype", "MASKQ_DTYPE"),
        ):
            stated = json.loads(made.read(made.manifest)) | {field: "other"}
            path.write_text(json.dumps(stated))
            assert word in refused(path, "--recompute", "--image", photo)

    def test_an_image_at_a_url_must_be_given(self, made: Made, tmp_path: Path) -> None:
        stated = Manifest.model_validate_json(made.read(made.manifest))
        stated.request["image_uri"] = "https://host/a.png?…"
        path = tmp_path / "result.json"
        path.write_text(stated.model_dump_json(exclude_defaults=True))
        assert "--image FILE" in refused(path, "--recompute")
