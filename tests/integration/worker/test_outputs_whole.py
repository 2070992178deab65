"""Every output of one job, from a caller's request through worker and store back to the caller."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from integration.worker.test_pipeline import Bench, names_under
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from maskq import (
    AsyncClient,
    Client,
    FailureCode,
    InvalidRequest,
    JobFailed,
    Output,
    Result,
    ResultDamaged,
    coco,
)
from maskq.cli import build
from maskq.contract import JobFailure, JobResult
from maskq.contract.jobs import Manifest
from maskq.contract.locations import S3Uri
from maskq.ledger import calls
from maskq_worker.model import Segmenter

if TYPE_CHECKING:
    from maskq_standalone.servers.s3 import S3Server

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

EVERY = frozenset(Output)
TOKEN = "a-dead-attempt-s"
FILES = {
    "mask.png", "overlay.jpg", "stats.json", "logits.npy", "confidence.png", "rle.json",
    "uncertain.png",
}  # fmt: skip


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    """Colourful: a net of random weights sees several classes in it."""
    small = np.random.default_rng(5).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((90, 70), Image.Resampling.BICUBIC)


def segment(bench: Bench, client: Client, photo: Image.Image, **options: Any) -> Result:
    job = client.submit(photo, **options)
    bench.pipeline.run("smallest")
    return job.wait(timeout=60)


def test_every_output_of_one_job_agrees_with_its_mask(
    bench: Bench, client: Client, photo: Image.Image, s3_server: S3Server
) -> None:
    result = segment(bench, client, photo, outputs=EVERY, overlay_legend=True, overlay_alpha=0.3)
    mask = np.asarray(result.mask())
    present = np.unique(mask).tolist()
    assert len(present) > 1
    assert sorted(result.labels) == present
    assert set(result.details.outputs) == EVERY

    assert result.overlay().width == photo.width
    assert result.overlay().height > photo.height  # the legend
    confidence = result.confidence()
    assert (confidence.mode, confidence.size) == ("L", photo.size)
    assert result.logits().shape[0] == 8
    uncertain = result.uncertain()
    assert (uncertain.mode, uncertain.size, uncertain.getextrema()) == ("1", photo.size, (0, 0))
    annotations = {one["class_id"]: one for one in result.rle()["annotations"]}
    for entry in result.stats:
        where = mask == entry.id
        assert entry.pixels == where.sum()
        assert np.array_equal(coco_mask.decode(annotations[entry.id]["segmentation"]), where)
        assert annotations[entry.id]["bbox"] == entry.bbox
        for name in (entry.id, entry.label):
            assert np.array_equal(np.asarray(result.binary(name)), where)
    assert names_under(s3_server, bench.place(result.job_id)) == {
        *FILES, *(f"{class_id:03d}.png" for class_id in present), "result.json", "input"
    }  # fmt: skip


def test_documents_of_several_jobs_are_joined(
    bench: Bench, client: Client, photo: Image.Image, tmp_path: Path
) -> None:
    # Given an image in the store, segmented twice, and one that the client uploaded
    body = io.BytesIO()
    photo.rotate(180).save(body, "PNG")
    place = bench.place("photos") / "a.png"
    client.objects.put(place, body.getvalue(), "image/png")
    stored, again, uploaded = (
        segment(bench, client, image, outputs={"rle", "mask"})
        for image in (str(place), str(place), photo)
    )

    # When their documents are joined
    path = tmp_path / "all.json"
    path.write_text(json.dumps(coco.merge([stored.rle(), uploaded.rle()])))

    # Then each image has its own mask, and is the same image in every job
    with contextlib.redirect_stdout(io.StringIO()):
        read = COCO(str(path))
    assert len(read.cats) == 8
    by_name = {entry["file_name"]: entry for entry in read.imgs.values()}
    assert set(by_name) == {"a.png", uploaded.job_id}
    assert by_name["a.png"]["coco_url"] == str(place)
    assert by_name["a.png"]["id"] == again.rle()["images"][0]["id"]
    for result, name in ((stored, "a.png"), (uploaded, uploaded.job_id)):
        mask = np.asarray(result.mask())
        found = read.loadAnns(read.getAnnIds(imgIds=[by_name[name]["id"]]))
        assert {one["category_id"] - 1 for one in found} == set(np.unique(mask).tolist())
        for one in found:
            assert np.array_equal(read.annToMask(one) == 1, mask == one["category_id"] - 1)


def test_the_manifest_explains_the_files_and_the_record_stays_small(
    bench: Bench, client: Client, photo: Image.Image, segmenter: Segmenter
) -> None:
    result = segment(bench, client, photo, outputs={"mask", "rle", "binary"})
    body = client.objects.get(bench.place(result.job_id) / "result.json")
    manifest = Manifest.model_validate_json(body)
    # The manifest is written before the commit, which only the record can time.
    assert result.details.timings_ms.keys() - manifest.timings_ms.keys() == {"commit"}
    del result.details.timings_ms["commit"]
    assert JobResult.model_validate_json(body) == result.details
    assert manifest.labels == result.labels
    colours = result.mask().getpalette("RGB") or []
    assert manifest.palette == {
        class_id: "#" + bytes(colours[3 * class_id : 3 * class_id + 3]).hex()
        for class_id in result.labels
    }
    assert (manifest.model, manifest.model_revision) == ("smallest", segmenter.info.revision)
    assert (manifest.dtype, manifest.backend) == ("float32", segmenter.info.backend)
    assert manifest.preprocessing == {
        "mode": "whole",
        "input_size": 32,
        "resample": "bicubic",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "views": {"32x32": 1},  # width x height px: how often
    }
    assert (manifest.width, manifest.height) == photo.size
    assert manifest.source_etag
    assert {"fetch", "decode", "prepare", "model", "encode", "store"} == set(manifest.timings_ms)
    assert manifest.output_bytes[Output.MASK] == len(result.read("mask"))
    assert manifest.output_bytes[Output.BINARY] > 0
    record = json.loads(
        bench.ledger.redis.hget(f"{bench.prefix}:job:{result.job_id}", "result") or ""
    )
    assert not {"palette", "preprocessing", "output_bytes", "stats"} & set(record)


def test_a_later_attempt_adopts_a_manifest_and_the_record_stays_small(
    bench: Bench, client: Client, photo: Image.Image
) -> None:
    # Given a first attempt that wrote its manifest and died before it could say so
    job = client.submit(photo)
    dead = bench.ledger.run(calls.claim("smallest", TOKEN, owner="x:1", lease_s=0.001))
    assert dead.record is not None
    manifest = Manifest(
        width=90,
        height=70,
        model="smallest",
        outputs={Output.MASK: f"{bench.place(job.id)}/{TOKEN}/mask.png"},
        palette={1: "#ffffff"},
        output_bytes={Output.MASK: 7},
    )
    body = manifest.model_dump_json(exclude_defaults=True).encode()
    bench.store.create(bench.place(job.id) / "result.json", body, "application/json")
    error = JobFailure(code=FailureCode.WORKER_LOST, message="died")
    bench.ledger.run(calls.release(job.id, TOKEN, error, charged=False, delay_s=0))

    # When the job is run again
    bench.pipeline.run("smallest")

    # Then that result is the job's, without what only the manifest holds
    assert job.wait(timeout=60).details == JobResult.model_validate_json(body)
    record = json.loads(bench.ledger.redis.hget(f"{bench.prefix}:job:{job.id}", "result") or "")
    assert set(record) == {"width", "height", "model", "outputs"}


def test_another_file_in_an_outputs_place_is_not_taken_for_it(
    bench: Bench, client: Client, photo: Image.Image
) -> None:
    result = segment(bench, client, photo, outputs={"mask", "overlay"})
    other = io.BytesIO()
    photo.resize((45, 35)).quantize(8).save(other, "PNG")
    place = S3Uri.parse(result.uri("mask"))
    bench.store.put(place, other.getvalue(), "image/png")
    with pytest.raises(ResultDamaged, match=r"45x35 px .* 90x70 px"):
        result.mask()
    bench.store.put(place, b"%!PS-Adobe-3.0 EPSF-3.0", "image/png")
    with pytest.raises(ResultDamaged, match="not a readable PNG"):
        result.mask()
    assert result.overlay().size == photo.size


def test_only_the_classes_asked_for_appear(
    bench: Bench, client: Client, photo: Image.Image
) -> None:
    whole = np.asarray(segment(bench, client, photo).mask())
    first, second = np.unique(whole).tolist()[:2]
    result = segment(bench, client, photo, outputs=EVERY, classes={f"class {first}", str(second)})
    mask = np.asarray(result.mask())
    kept = np.isin(whole, [first, second])
    assert np.array_equal(mask[kept], whole[kept])
    assert set(np.unique(mask[~kept]).tolist()) <= {255}
    assert set(result.labels) == {first, second}
    assert {entry.id for entry in result.stats} == {first, second}
    assert {one["class_id"] for one in result.rle()["annotations"]} == {first, second}
    with pytest.raises(InvalidRequest, match=r"no class 'class 99'; its classes: class \d"):
        result.binary("class 99")
    # Of a model that gives two classes one label
    twins = {first: "twin", second: "twin"}
    result.details = result.details.model_copy(update={"labels": twins})
    with pytest.raises(InvalidRequest, match=rf"called 'twin'; choose by id: {first}, {second}"):
        result.binary("twin")
    assert np.array_equal(np.asarray(result.binary(second)), mask == second)


def test_a_class_that_the_model_does_not_know_fails_and_names_those_near(
    bench: Bench, client: Client, photo: Image.Image
) -> None:
    with pytest.raises(JobFailed, match=r"no class 'clas 3'; did you mean 'class 3'") as failed:
        segment(bench, client, photo, classes={"clas 3"})
    assert failed.value.code is FailureCode.INVALID_REQUEST


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"outputs": {"logits"}, "classes": {"sky"}}, "classes applies to"),
        ({"outputs": {"mask"}, "overlay_alpha": 0.5}, "which is not asked for"),
        ({"outputs": {"mask"}, "overlay_legend": True}, "which is not asked for"),
        ({"outputs": {"overlay"}, "overlay_alpha": 1.01}, "overlay_alpha"),
        ({"outputs": {"overlay"}, "overlay_alpha": float("nan")}, "overlay_alpha"),
        ({"classes": set()}, "classes"),
        ({"classes": "sky"}, "classes"),
        ({"classes": {7}}, "classes"),
        (
            {"outputs": {"binary"}, "output_urls": {"binary": "https://out.example/x"}},
            "one file per class",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused_at_once(
    client: Client, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidRequest, match=said):
        client.submit("s3://photos/a.jpg", **options)


def test_what_a_canceled_job_wrote_is_removed_with_its_binary_files(
    bench: Bench, client: Client, photo: Image.Image, s3_server: S3Server
) -> None:
    result = segment(bench, client, photo, outputs=EVERY)
    record = bench.record(result.job_id)
    bench.pipeline._cleanup.remove_result(record, result.details)
    assert names_under(s3_server, bench.place(result.job_id)) == {"input"}


def test_binary_is_read_by_class_and_not_as_one(
    bench: Bench, client: Client, photo: Image.Image
) -> None:
    result = segment(bench, client, photo, outputs={"binary"})
    assert result.uri("binary").endswith("/binary/")
    with pytest.raises(InvalidRequest, match="one file per class"):
        result.read("binary")
    with pytest.raises(InvalidRequest, match="has no class 'nowhere'"):
        result.read("binary", "nowhere")
    entry, *_ = result.labels.items()
    one, *_ = (Image.open(io.BytesIO(result.read("binary", by))) for by in entry)
    assert one == result.binary(entry[0])
    with pytest.raises(InvalidRequest, match="no output 'mask'"):
        result.mask()


def test_the_async_client_reads_them_too(bench: Bench, client: Client, photo: Image.Image) -> None:
    made = segment(bench, client, photo, outputs=EVERY)
    label = made.stats[0].label

    async def read() -> tuple[Any, ...]:
        async with AsyncClient.from_env() as other:
            job = await other.get(made.job_id)
            result = job.result()
            return await result.confidence(), await result.rle(), await result.binary(label)

    confidence, rle, binary = asyncio.run(read())
    assert confidence == made.confidence()
    assert rle == made.rle()
    assert binary == made.binary(label)


class TestInANotebook:
    @pytest.mark.parametrize("outputs", [{"overlay", "stats"}, {"mask"}])
    def test_a_result_shows_itself(
        self, bench: Bench, client: Client, photo: Image.Image, outputs: set[str]
    ) -> None:
        result = segment(bench, client, photo.resize((1500, 900)), outputs=outputs)
        picture = Image.open(io.BytesIO(result._repr_png_() or b""))
        assert (picture.mode, picture.size) == ("RGB", (1024, 614))
        if "mask" in outputs:
            full = np.asarray(result.mask().convert("RGB"))
            seen = np.asarray(picture)[300, 500]
            assert np.abs(full[440, 733].astype(int) - seen).max() < 8
        html = result._repr_html_()
        assert html.count('<img src="data:image/') == 1
        assert result.job_id in html
        assert all(label in html for label in result.labels.values())

    def test_without_a_picture_it_tells_the_numbers(
        self, bench: Bench, client: Client, photo: Image.Image
    ) -> None:
        result = segment(bench, client, photo, outputs={"stats"})
        assert result._repr_png_() is None
        assert "<img" not in result._repr_html_()
        assert result.stats[0].label in result._repr_html_()


class TestView:
    def view(self, *arguments: str) -> None:
        build()(["view", *arguments], standalone_mode=False)

    def test_one_file_holds_it_all(
        self,
        bench: Bench,
        client: Client,
        photo: Image.Image,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        result = segment(bench, client, photo, outputs={"mask", "confidence"})
        target = tmp_path / "page.html"
        self.view(result.job_id, "--out", str(target))
        assert capsys.readouterr().out.strip() == str(target)
        text = target.read_text(encoding="utf-8")
        assert text.count("data:image/png") == 2  # mask and confidence
        assert text.count("data:image/jpeg") == 1
        assert "could not be read" not in text

    def test_by_default_it_is_named_after_the_job(
        self,
        bench: Bench,
        client: Client,
        photo: Image.Image,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        opened: list[str] = []
        monkeypatch.setattr("webbrowser.open", opened.append)
        monkeypatch.chdir(tmp_path)
        result = segment(bench, client, photo)
        self.view(result.job_id, "--open")
        assert opened == [(tmp_path / f"maskq-{result.job_id}.html").as_uri()]
        assert (tmp_path / f"maskq-{result.job_id}.html").is_file()

    @pytest.mark.parametrize("what", ["deleted", "replaced", "presigned"])
    def test_an_image_that_cannot_be_read_is_told_and_the_mask_shown_alone(
        self, what: str, bench: Bench, client: Client, photo: Image.Image, tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        result = segment(bench, client, photo)
        place = S3Uri.parse(bench.record(result.job_id).request.image_uri)
        if what == "deleted":
            client.objects.delete(place)
        elif what == "replaced":
            client.objects.put(place, b"\x89PNG\r\n\x1a\nnonsense", "image/png")
        else:
            monkeypatch.setattr("maskq.cli.view.is_url", lambda _: True)
        self.view(result.job_id, "--out", str(tmp_path / "page.html"))
        text = (tmp_path / "page.html").read_text(encoding="utf-8")
        assert "The image could not be read, so the mask is shown alone" in text
        assert "data:image/jpeg" not in text
        assert text.count("data:image/png") == 1

    def test_without_a_mask_there_is_nothing_to_show(
        self, bench: Bench, client: Client, photo: Image.Image, tmp_path: Path
    ) -> None:
        result = segment(bench, client, photo, outputs={"stats"})
        with pytest.raises(InvalidRequest, match="no output 'mask'"):
            self.view(result.job_id, "--out", str(tmp_path / "page.html"))

    def test_a_place_that_cannot_be_written_is_one_sentence(
        self, bench: Bench, client: Client, photo: Image.Image, tmp_path: Path
    ) -> None:
        result = segment(bench, client, photo)
        with pytest.raises(InvalidRequest, match=r"cannot write .*page\.html: No such file"):
            self.view(result.job_id, "--out", str(tmp_path / "no" / "page.html"))
