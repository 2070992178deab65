"""Half precision of the demo checkpoint: what is promised of uncertain pixels holds on new scenes."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from demo_scenes.scenes import draw
from demo_scenes.seeds import held_out
from integration.worker.test_pipeline import Bench
from numpy.typing import NDArray
from PIL import Image

from maskq import JobRecord, JobStatus, Output
from maskq.contract import SegmentRequest
from maskq.contract.locations import S3Uri
from maskq.contract.storage_layout import MAX_MANIFEST_BYTES
from maskq.ledger import calls
from maskq_worker.model import ModelOutput, Segmenter, load_segmenter
from maskq_worker.model.checkpoint.folder import resolve
from maskq_worker.model.precision.calibrate import calibrate
from maskq_worker.settings import WorkerSettings

SIZE = (160, 120)  # px


def scenes(seed: int, count: int) -> list[Image.Image]:
    return [draw(held_out(seed, number), size=SIZE).image for number in range(count)]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with the figures of the demo's network in bfloat16, measured on 12 scenes."""
    root = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(root))
        record = calibrate(resolve("demo", None), scenes(51, 12), dtype="bfloat16")
    assert record.passes, record.figures
    return root


@pytest.fixture(autouse=True)
def _cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))


def demo(**settings: object) -> Segmenter:
    return load_segmenter(
        WorkerSettings.model_validate({"model": "demo", "device": "cpu", **settings})
    )


def test_no_pixel_outside_uncertain_differs_on_unseen_scenes() -> None:
    fast, exact = demo(precision="fast"), demo()
    different = uncertain = 0
    for scene in scenes(52, 5):
        [ours] = fast.run([fast.prepare(scene)])
        [expected] = exact.run([exact.prepare(scene)])
        assert isinstance(ours, ModelOutput)
        assert isinstance(expected, ModelOutput)
        assert ours.uncertain is not None
        differs = ours.mask != expected.mask
        assert not (differs & ~ours.uncertain).any()
        different += int(differs.sum())
        uncertain += int(ours.uncertain.sum())
    assert 0 < different < uncertain < 0.1 * 5 * SIZE[0] * SIZE[1]


def run_job(segmenter: Segmenter, job_id: str) -> tuple[JobRecord, NDArray[np.bool_], dict]:
    """A scene's job: its record, its uncertain pixels as stored, and its manifest."""
    bench = Bench(segmenter)
    try:
        body = io.BytesIO()
        scenes(53, 1)[0].save(body, "PNG")
        source = S3Uri(bench.settings.s3_bucket, f"{bench.prefix}/in/{job_id}.png")
        bench.store.put(source, body.getvalue(), "image/png")
        asked = {"image_uri": str(source), "outputs": ["mask", "uncertain"]}
        request = SegmentRequest.model_validate(asked)
        bench.ledger.run(calls.submit(job_id, request, calls.Limits()))
        bench.pipeline.run("smallest")
        record = bench.record(job_id)
        assert record.status is JobStatus.SUCCEEDED, record.error
        assert record.result is not None
        place = S3Uri.parse(record.result.outputs[Output.UNCERTAIN])
        assert place.key.endswith("/uncertain.png")
        png = bench.store.get(place, max_bytes=2**24).body
        manifest = bench.store.get(
            bench.settings.layout.job(job_id).manifest, max_bytes=MAX_MANIFEST_BYTES
        ).body
    finally:
        bench.close()
    picture = Image.open(io.BytesIO(png))
    assert (picture.mode, picture.size) == ("1", SIZE)
    return record, np.asarray(picture), json.loads(manifest)


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize(
    ("settings", "dtype", "backend"),
    [
        ({"precision": "fast"}, "bfloat16", "cpu"),
        ({"precision": "certified", "max_uncertain_share": 1.0}, "bfloat16", "cpu"),
        ({"precision": "certified", "max_uncertain_share": 0.0}, "float32", "cpu"),
        ({"precision": "exact"}, "float32", "cpu"),
    ],
)
def test_a_result_says_precision_type_and_uncertain_share(
    settings: dict[str, object], dtype: str, backend: str
) -> None:
    record, uncertain, manifest = run_job(demo(**settings), "job")
    result = record.result
    assert result is not None
    assert (result.precision, result.dtype, result.backend) == (
        settings["precision"], dtype, backend,
    )  # fmt: skip
    assert result.uncertain_share == round(float(uncertain.mean()), 6)
    assert (result.uncertain_share > 0) is (dtype == "bfloat16")
    for name in ("precision", "dtype", "uncertain_share"):
        assert manifest[name] == getattr(result, name)


@pytest.mark.usefixtures("environment")
def test_a_worker_refuses_half_precision_without_figures_with_78(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "maskq_worker"],
        env={
            **os.environ,
            "MASKQ_MODEL": "demo",
            "MASKQ_DTYPE": "bfloat16",
            "MASKQ_DEVICE": "cpu",
            "XDG_CACHE_HOME": str(tmp_path),
        },
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert ran.returncode == os.EX_CONFIG
    assert "`maskq weights calibrate demo --dtype bfloat16 --images FOLDER`" in ran.stderr
    assert "Traceback" not in ran.stderr
