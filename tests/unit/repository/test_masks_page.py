"""docs/masks.md: every Python block runs, and what the page says of other readers is so."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from maskq_worker.model.checkpoint.labels import palette
from maskq_worker.outputs import Source, shares
from maskq_worker.outputs.coco import rle_json
from maskq_worker.outputs.pictures import mask_png

PAGE = (Path(__file__).parents[3] / "docs" / "masks.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
LABELS = tuple(f"label {index}" for index in range(150))
MASK = np.random.default_rng(7).choice(np.array([2, 6, 48, 149], np.uint8), (12, 17))

# pycocotools' own affair: what it wraps its buffers in is of numpy 1's time.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the blocks find where they run."""
    monkeypatch.chdir(tmp_path)
    for name in ("images/jobs", "annotations/panoptic_jobs"):
        (tmp_path / "dataset" / name).mkdir(parents=True)
    for number, name in enumerate(("a.jpg", "b.jpg")):
        mask = np.roll(MASK, number)
        job = tmp_path / "jobs" / str(number)
        job.mkdir(parents=True)
        body = rle_json(
            mask, shares(mask, LABELS), LABELS, Source(name, f"s3://p/{name}", "e", name)
        )
        (job / "rle.json").write_bytes(body)
        (job / "mask.png").write_bytes(mask_png(mask, 150))
        Image.new("RGB", mask.shape[::-1]).save(tmp_path / "dataset" / "images" / "jobs" / name)
    for name in ("rle.json", "mask.png"):
        (tmp_path / name).write_bytes((tmp_path / "jobs" / "0" / name).read_bytes())
    Image.fromarray(MASK + 1).save(tmp_path / "ade20k_annotation.png")
    return tmp_path


def run(block: str) -> dict[str, Any]:
    """The names it leaves."""
    names: dict[str, Any] = {}
    exec(compile(block, "docs/masks.md", "exec"), names)
    return names


def the_block(words: str) -> str:
    (found,) = (block for block in BLOCKS if words in block)
    return found


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    "words", ["sky = mask == 2", "cv2.findContours", "ignore_index=255", "accuracy", "getImgIds"]
)
def test_every_way_to_read_a_mask_gives_its_class_ids(words: str) -> None:
    names = run(the_block(words))
    assert np.array_equal(np.asarray(names["mask"]), MASK)
    assert names.get("accuracy", 1) == 1
    if "loss" in names:
        assert names["loss"].item() == pytest.approx(np.log(150))
    if "sky" in names:
        assert np.array_equal(names["sky"].astype(bool), MASK == 2)


def test_documents_are_merged_and_made_panoptic(folder: Path) -> None:
    run(the_block('instances_jobs.json").write_text'))
    run(the_block("coco.panoptic"))
    for task in ("instances", "panoptic"):
        read = json.loads((folder / "dataset" / "annotations" / f"{task}_jobs.json").read_text())
        assert [image["file_name"] for image in read["images"]] == ["a.jpg", "b.jpg"]
    with Image.open(folder / "dataset" / "annotations" / "panoptic_jobs" / "a.png") as coded:
        assert np.array_equal(np.asarray(coded) @ [1, 256, 65536], MASK.astype(int) + 1)


@pytest.mark.other_tools
@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("words", ["supervision", "datumaro"])
def test_other_libraries_read_the_merged_document(words: str) -> None:
    run(the_block('instances_jobs.json").write_text'))
    assert len(run(the_block(f"import {words}"))["dataset"]) == 2


def test_every_block_is_run_here() -> None:
    assert len(BLOCKS) == 9


@pytest.mark.usefixtures("folder")
def test_opencv_reads_colours_where_there_is_a_palette_and_ids_where_there_is_none() -> None:
    import cv2

    seen = cv2.imread("mask.png", cv2.IMREAD_UNCHANGED)
    colours = np.frombuffer(palette(150), np.uint8).reshape(256, 3)
    assert np.array_equal(seen[..., ::-1], colours[MASK])
    wide = MASK.astype(np.uint16) + 300
    Path("wide.png").write_bytes(mask_png(wide, 600))
    assert np.array_equal(cv2.imread("wide.png", cv2.IMREAD_UNCHANGED), wide)


@pytest.mark.usefixtures("folder")
def test_scikit_image_reads_colours() -> None:
    from skimage.io import imread

    assert imread("mask.png").shape == (*MASK.shape, 3)


def test_road_and_skyscraper_alone_share_a_colour() -> None:
    colours = [palette(150)[3 * index : 3 * index + 3] for index in range(150)]
    twice = [index for index, colour in enumerate(colours) if colours.count(colour) > 1]
    assert twice == [6, 48]
    assert colours[6].hex() == "8c8c8c"
