"""encode and stats: what lands in the store and in the record."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from PIL import Image

from maskq.contract import Output
from maskq_worker.model.labels import palette
from maskq_worker.outputs import encode, stats

ADE = tuple(f"label {index}" for index in range(150))
ALL = frozenset(Output)


@dataclass
class Segmented:
    mask: np.ndarray
    logits: np.ndarray | None = None


def mask_of(*rows: list[int], dtype: Any = np.uint8) -> np.ndarray:
    return np.array(rows, dtype=dtype)


def opened(body: bytes) -> Image.Image:
    return Image.open(io.BytesIO(body))


@pytest.fixture
def image() -> Image.Image:
    return Image.new("RGB", (3, 2), (200, 100, 50))


@pytest.fixture
def segmented() -> Segmented:
    logits = np.arange(150 * 4, dtype=np.float32).reshape(150, 2, 2)
    return Segmented(mask_of([0, 2, 2], [149, 2, 0]), logits)


def test_only_what_is_wanted_is_made(image: Image.Image, segmented: Segmented) -> None:
    for output in Output:
        [artifact] = encode(frozenset({output}), image=image, output=segmented, labels=ADE)
        assert artifact.output is output
    made = encode(ALL, image=image, output=segmented, labels=ADE)
    assert [(artifact.output.value, artifact.filename, artifact.content_type) for artifact in made] == [
        ("mask", "mask.png", "image/png"),
        ("overlay", "overlay.jpg", "image/jpeg"),
        ("stats", "stats.json", "application/json"),
        ("logits", "logits.npy", "application/x-npy"),
    ]  # fmt: skip


def test_a_pixel_of_the_mask_is_its_class_id(image: Image.Image, segmented: Segmented) -> None:
    [artifact] = encode(frozenset({Output.MASK}), image=image, output=segmented, labels=ADE)
    mask = opened(artifact.body)
    assert (mask.format, mask.mode, mask.size) == ("PNG", "P", (3, 2))
    assert np.array_equal(np.asarray(mask), segmented.mask)
    assert np.asarray(mask.convert("RGB"))[0, 0].tolist() == [120, 120, 120]  # wall, by color150
    assert np.asarray(mask.convert("RGB"))[1, 0].tolist() == [92, 0, 255]  # flag


@pytest.mark.parametrize("classes", [2, 150, 256])
def test_every_class_id_survives_the_png(classes: int) -> None:
    mask = np.arange(classes, dtype=np.uint8)[None]
    [artifact] = encode(
        frozenset({Output.MASK}),
        image=Image.new("RGB", (classes, 1)),
        output=Segmented(mask),
        labels=[str(index) for index in range(classes)],
    )
    assert np.array_equal(np.asarray(opened(artifact.body)), mask)


def test_more_than_256_classes_make_a_16_bit_png() -> None:
    mask = mask_of([0, 255, 256, 299], dtype=np.uint16)
    image = Image.new("RGB", (4, 1))
    labels = [str(index) for index in range(300)]
    made = encode(
        frozenset({Output.MASK, Output.OVERLAY}), image=image, output=Segmented(mask), labels=labels
    )
    png = opened(made[0].body)
    assert png.mode == "I;16"
    assert np.array_equal(np.asarray(png), mask)
    assert opened(made[1].body).size == (4, 1)
    assert [entry.id for entry in stats(mask, labels)] == [0, 255, 256, 299]


def test_the_overlay_is_half_image_half_colour() -> None:
    image = Image.new("RGB", (32, 32), (200, 100, 50))
    segmented = Segmented(np.full((32, 32), 2, np.uint8))  # sky: 6, 230, 230
    [artifact] = encode(frozenset({Output.OVERLAY}), image=image, output=segmented, labels=ADE)
    overlay = opened(artifact.body)
    assert (overlay.format, overlay.size) == ("JPEG", (32, 32))
    assert np.abs(np.asarray(overlay).astype(int) - [103, 165, 140]).max() <= 3
    assert image.getpixel((0, 0)) == (200, 100, 50)  # the input is untouched


def test_stats_say_what_is_there_largest_share_first(segmented: Segmented) -> None:
    found = [entry.model_dump() for entry in stats(segmented.mask, ADE)]
    assert found == [
        {"id": 2, "label": "label 2", "pixels": 3, "share": 0.5},
        {"id": 0, "label": "label 0", "pixels": 2, "share": pytest.approx(1 / 3)},
        {"id": 149, "label": "label 149", "pixels": 1, "share": pytest.approx(1 / 6)},
    ]


def test_stats_json_holds_the_same(image: Image.Image, segmented: Segmented) -> None:
    labels = ["Straße", *ADE[1:]]
    [artifact] = encode(frozenset({Output.STATS}), image=image, output=segmented, labels=labels)
    document = json.loads(artifact.body)
    assert (document["width"], document["height"]) == (3, 2)
    assert document["classes"] == [entry.model_dump() for entry in stats(segmented.mask, labels)]
    assert "Straße" in artifact.body.decode()


def test_logits_are_read_back_bit_for_bit(image: Image.Image, segmented: Segmented) -> None:
    [artifact] = encode(frozenset({Output.LOGITS}), image=image, output=segmented, labels=ADE)
    logits = np.load(io.BytesIO(artifact.body), allow_pickle=False)
    assert logits.dtype == np.float32
    assert np.array_equal(logits, segmented.logits)


def test_what_cannot_be_right_is_refused(image: Image.Image, segmented: Segmented) -> None:
    with pytest.raises(ValueError, match="not asked to keep"):
        encode(ALL, image=image, output=Segmented(segmented.mask), labels=ADE)
    with pytest.raises(ValueError, match=r"\(2, 3\)"):
        encode(ALL, image=image.rotate(90, expand=True), output=segmented, labels=ADE)


def test_the_palette_is_ade20ks_for_150_classes() -> None:
    colours = palette(150)
    assert len(colours) == 3 * 256
    assert list(colours[:12]) == [120, 120, 120, 180, 120, 120, 6, 230, 230, 80, 50, 50]
    assert list(colours[3 * 147 : 3 * 150]) == [25, 194, 194, 102, 255, 0, 92, 0, 255]
    assert sum(colours) == 58_427  # of all 150, as published


@pytest.mark.parametrize("classes", [1, 2, 19, 21, 149, 151, 256])
def test_other_counts_get_distinct_colours_the_same_every_time(classes: int) -> None:
    colours = palette(classes)
    assert len(colours) == 3 * 256
    assert len({colours[3 * i : 3 * i + 3] for i in range(classes)}) == classes
    assert not any(colours[3 * classes :])
    palette.cache_clear()
    assert palette(classes) == colours
