"""Checkpoints of every family through the queue: the masks in the store are transformers' own."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from integration.worker.test_pipeline import Bench
from PIL import Image
from support.family_checkpoints import CHECKPOINTS, write
from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation

from maskq import JobStatus, Output
from maskq.contract import SegmentRequest
from maskq.contract.locations import S3Uri
from maskq.ledger import calls
from maskq_worker.model import load_segmenter
from maskq_worker.model.masks.comparison import untied_differences
from maskq_worker.settings import WorkerSettings

WIDTH, HEIGHT = 190, 140  # px


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_mask_in_the_store_is_transformers_own(
    environment: dict[str, str], tmp_path: Path, name: str
) -> None:
    # Given a worker that serves the checkpoint, and a job
    directory = write(tmp_path / name, name)
    segmenter = load_segmenter(WorkerSettings(model=str(directory), device="cpu"))
    bench = Bench(segmenter)
    coarse = np.random.default_rng(3).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    source = S3Uri(bench.settings.s3_bucket, f"{bench.prefix}/in/{name}.png")
    bench.store.put(source, buffer.getvalue(), "image/png")
    request = SegmentRequest.model_validate({"image_uri": str(source), "outputs": list(Output)})
    bench.ledger.run(calls.submit("job", request, calls.Limits()))
    # When it runs
    try:
        bench.pipeline.run("smallest")
        record = bench.record("job")
        assert record.status is JobStatus.SUCCEEDED, record.error
        assert record.result is not None
        found = bench.store.get(
            S3Uri.parse(record.result.outputs[Output.MASK]), max_bytes=2**24
        ).body
    finally:
        bench.close()
    # Then the mask is transformers' own, but for proved ties, where its processor looked
    mask = np.asarray(Image.open(io.BytesIO(found)))
    assert mask.shape == (HEIGHT, WIDTH)
    place = segmenter.prepare(image).views.area
    top, left, height, width = (
        (place.top, place.left, place.height, place.width) if place else (0, 0, HEIGHT, WIDTH)
    )
    processor = AutoImageProcessor.from_pretrained(directory, backend="pil")
    network = AutoModelForSemanticSegmentation.from_pretrained(directory).eval()
    with torch.inference_mode():
        outputs = network(**processor(images=image, return_tensors="pt"))
        [expected] = processor.post_process_semantic_segmentation(
            outputs, target_sizes=[(height, width)]
        )
    seen = expected.numpy()
    rows = slice(max(0, top), min(HEIGHT, top + height))
    columns = slice(max(0, left), min(WIDTH, left + width))
    whole = seen.copy()
    whole[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left] = mask[
        rows, columns
    ]
    assert untied_differences(outputs.logits[0], whole, seen) == 0
    assert len(np.unique(seen)) > 1
    outside = mask.copy()
    outside[rows, columns] = 255
    assert (outside == 255).all()
    assert any("crops" in note for note in record.result.notes) == (place is not None)


def test_a_worker_refuses_another_kind_of_network_in_one_line(
    environment: dict[str, str], tmp_path: Path
) -> None:
    config = {
        "architectures": ["Mask2FormerForUniversalSegmentation"],
        "model_type": "mask2former",
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "preprocessor_config.json").write_text("{}")
    ran = subprocess.run(
        [sys.executable, "-m", "maskq_worker"],
        env={**os.environ, "MASKQ_MODEL": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == os.EX_CONFIG
    said = "holds Mask2FormerForUniversalSegmentation; maskq serves"
    assert len([line for line in ran.stderr.splitlines() if said in line]) == 1
    assert "Traceback" not in ran.stderr
