"""encode and stats: what lands in the store and in the record."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask

from maskq.contract import FailureCode, JobResult, Output
from maskq.contract.ids import new_id, new_token
from maskq.contract.jobs import Manifest
from maskq.contract.locations import S3Uri
from maskq.contract.storage_layout import is_output
from maskq_gateway.rules.loop_guard import Written
from maskq_worker.errors import PermanentError
from maskq_worker.model.checkpoint.labels import palette
from maskq_worker.outputs import (
    ENCODERS,
    OverlayStyle,
    bands,
    chosen,
    encode,
    model_outputs,
    only,
    shares,
    stats,
)

# pycocotools' own affair: what it wraps its buffers in is of numpy 1's time.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

ADE = tuple(f"label {index}" for index in range(150))
ALL = frozenset(Output)


@dataclass
class Segmented:
    mask: np.ndarray
    logits: np.ndarray | None = None
    confidence: np.ndarray | None = None
    uncertain: np.ndarray | None = None


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
    confidence = mask_of([0, 128, 255], [1, 2, 3])
    return Segmented(mask_of([0, 2, 2], [149, 2, 0]), logits, confidence, confidence > 2)


def made(output: Output, segmented: Segmented, labels: Any = ADE, **options: Any) -> bytes:
    """The one file of an output."""
    height, width = segmented.mask.shape
    image = options.pop("image", None) or Image.new("RGB", (width, height), (200, 100, 50))
    wanted = frozenset({output})
    [artifact] = encode(wanted, image=image, output=segmented, labels=labels, **options)
    return artifact.body


def flooded(where: np.ndarray) -> int:
    """How many 8-connected regions, counted the slow way: fill one, look for the next."""
    left, regions = {(int(y), int(x)) for y, x in np.argwhere(where)}, 0
    while left:
        regions += 1
        todo = [left.pop()]
        while todo:
            y, x = todo.pop()
            near = {(y + down, x + across) for down in (-1, 0, 1) for across in (-1, 0, 1)} & left
            left -= near
            todo += near
    return regions


@st.composite
def masks(draw: st.DrawFn) -> np.ndarray:
    """Small, of few classes, so that regions meet; 8 or 16 bits."""
    height, width = draw(st.integers(1, 14)), draw(st.integers(1, 14))
    size = height * width
    ids = draw(st.lists(st.sampled_from([0, 1, 2, 7]), min_size=size, max_size=size))
    dtype = draw(st.sampled_from([np.uint8, np.uint16]))
    return np.array(ids, dtype=dtype).reshape(height, width)


EIGHT = tuple("abcdefgh")


def test_every_output_has_exactly_one_encoder_in_the_order_of_the_enum() -> None:
    assert list(ENCODERS) == list(Output)


@pytest.mark.parametrize("output", Output)
def test_an_encoder_names_its_own_output_and_the_needs_it_has(
    image: Image.Image, segmented: Segmented, output: Output
) -> None:
    # Given what the model keeps for this output, and nothing else
    kept = model_outputs(frozenset({output}))
    assert kept <= {Output.LOGITS, Output.CONFIDENCE, Output.UNCERTAIN}
    bare = Segmented(
        segmented.mask,
        segmented.logits if Output.LOGITS in kept else None,
        segmented.confidence if Output.CONFIDENCE in kept else None,
        segmented.uncertain if Output.UNCERTAIN in kept else None,
    )
    # Then that is enough, and the files have the names of the layout
    for artifact in encode(frozenset({output}), image=image, output=bare, labels=ADE):
        assert artifact.output is output
        assert is_output(f"{new_id()}/{new_token()}/{artifact.filename}")


def test_only_what_is_wanted_is_made(image: Image.Image, segmented: Segmented) -> None:
    for output in Output:
        artifacts = encode(frozenset({output}), image=image, output=segmented, labels=ADE)
        assert {artifact.output for artifact in artifacts} == {output}
        assert len(artifacts) == (3 if output is Output.BINARY else 1)
    made = encode(ALL, image=image, output=segmented, labels=ADE)
    assert [(artifact.output.value, artifact.filename, artifact.content_type) for artifact in made] == [
        ("mask", "mask.png", "image/png"),
        ("overlay", "overlay.jpg", "image/jpeg"),
        ("stats", "stats.json", "application/json"),
        ("logits", "logits.npy", "application/x-npy"),
        ("confidence", "confidence.png", "image/png"),
        ("rle", "rle.json", "application/json"),
        ("binary", "binary/002.png", "image/png"),
        ("binary", "binary/000.png", "image/png"),
        ("binary", "binary/149.png", "image/png"),
        ("uncertain", "uncertain.png", "image/png"),
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


@pytest.mark.parametrize("size", [(1, 1), (1, 700), (300, 1), (301, 257)])
def test_the_mask_is_a_sound_palette_png(size: tuple[int, int]) -> None:
    mask = (
        np.random.default_rng(0).integers(0, 150, size, dtype=np.uint8).T
    )  # not in memory's order
    image = Image.new("RGB", size)
    [artifact] = encode(frozenset({Output.MASK}), image=image, output=Segmented(mask), labels=ADE)
    opened(artifact.body).verify()  # every chunk's sum
    png = opened(artifact.body)
    assert (png.format, png.mode, png.getpalette()) == ("PNG", "P", list(palette(150)))
    assert np.array_equal(np.asarray(png), mask)


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
        {
            "id": 2,
            "label": "label 2",
            "pixels": 3,
            "share": 0.5,
            "bbox": [1, 0, 2, 2],
            "regions": 1,
        },
        {
            "id": 0,
            "label": "label 0",
            "pixels": 2,
            "share": pytest.approx(1 / 3),
            "bbox": [0, 0, 3, 2],
            "regions": 2,
        },
        {
            "id": 149,
            "label": "label 149",
            "pixels": 1,
            "share": pytest.approx(1 / 6),
            "bbox": [0, 1, 1, 1],
            "regions": 1,
        },
    ]
    plain = [
        entry.model_copy(update={"bbox": None, "regions": None})
        for entry in stats(segmented.mask, ADE)
    ]
    assert shares(segmented.mask, ADE) == plain


@settings(max_examples=150, deadline=None)
@given(mask=masks(), band=st.integers(1, 60))
def test_regions_and_boxes_are_those_of_a_slow_count(mask: np.ndarray, band: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bands, "PIXELS", band)  # pixels: so that regions go on from band to band
        found = stats(mask, EIGHT)
    assert {entry.id for entry in found} == set(np.unique(mask).tolist())
    for entry in found:
        where = mask == entry.id
        rows, columns = np.flatnonzero(where.any(axis=1)), np.flatnonzero(where.any(axis=0))
        assert entry.regions == flooded(where)
        assert entry.bbox == [
            columns[0],
            rows[0],
            columns[-1] - columns[0] + 1,
            rows[-1] - rows[0] + 1,
        ]
        assert entry.pixels == where.sum()


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (140, 180)])
def test_a_spiral_is_one_region_and_so_is_what_it_encloses(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long and thin, through every band again and again: the worst for whoever goes from the top."""
    monkeypatch.setattr(bands, "PIXELS", 2000)
    mask = np.zeros(shape, np.uint8)
    for step in range(0, min(shape) // 2, 2):
        mask[step : shape[0] - step, step : shape[1] - step] = 1
        mask[step + 1 : shape[0] - step - 1, step + 1 : shape[1] - step - 1] = 0
        mask[step + 1, step] = 0
        if step:
            mask[step, step - 1] = 1
    for entry in stats(mask, EIGHT):
        assert entry.regions == flooded(mask == entry.id)


def test_confidence_is_stored_as_it_is(segmented: Segmented) -> None:
    picture = opened(made(Output.CONFIDENCE, segmented))
    assert (picture.format, picture.mode) == ("PNG", "L")
    assert np.array_equal(np.asarray(picture), segmented.confidence)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_binary_is_one_bit_per_class_that_is_there(image: Image.Image, dtype: Any) -> None:
    mask = mask_of([0, 2, 2], [149, 2, 0], dtype=dtype)
    artifacts = encode(frozenset({Output.BINARY}), image=image, output=Segmented(mask), labels=ADE)
    assert len(artifacts) == 3
    for artifact in artifacts:
        picture = opened(artifact.body)
        assert (picture.format, picture.mode) == ("PNG", "1")
        class_id = int(artifact.filename.removeprefix("binary/").removesuffix(".png"))
        assert np.array_equal(np.asarray(picture), mask == class_id)


class TestClasses:
    LABELS = ("wall", "building", "sky", "traffic light", "12", "sky")

    def test_are_named_by_label_or_id(self) -> None:
        assert chosen(None, self.LABELS) is None
        assert chosen({"wall", "3"}, self.LABELS) == {0, 3}
        assert chosen({"sky"}, self.LABELS) == {2, 5}  # of one name: both
        assert chosen({"12"}, self.LABELS) == {4}  # a label goes before an id

    @pytest.mark.parametrize(
        ("name", "hint"),
        [
            ("Sky", "did you mean 'sky'?"),
            ("trafic light", "did you mean 'traffic light'?"),
            ("6", r"0 \(wall\) to 5 \(sky\)"),
            ("-1", r"0 \(wall\) to 5 \(sky\)"),
            ("²", r"0 \(wall\) to 5 \(sky\)"),
        ],
    )
    def test_that_the_model_does_not_know_fail_with_what_comes_near(
        self, name: str, hint: str
    ) -> None:
        with pytest.raises(PermanentError, match=f"no class '{name}'; .*{hint}") as failed:
            chosen({"wall", name}, self.LABELS)
        assert failed.value.code is FailureCode.INVALID_REQUEST

    @pytest.mark.parametrize(
        ("dtype", "num_labels", "none"),
        [
            (np.uint8, 150, 255),
            (np.uint8, 255, 255),
            (np.uint8, 256, 65535),
            (np.uint16, 300, 65535),
        ],
    )
    def test_that_were_not_asked_for_become_no_class(
        self, dtype: Any, num_labels: int, none: int
    ) -> None:
        mask = mask_of([0, 2, num_labels - 1], [3, 2, 0], dtype=dtype)
        labels = [str(index) for index in range(num_labels)]
        filtered = only(mask, frozenset({2, num_labels - 1}), num_labels)
        assert filtered.tolist() == [[none, 2, num_labels - 1], [none, 2, none]]
        png = opened(made(Output.MASK, Segmented(filtered), labels))
        assert np.array_equal(np.asarray(png), filtered)
        assert png.mode == ("P" if none == 255 else "I;16")
        assert only(mask, None, num_labels) is mask

    def test_leave_the_others_out_everywhere(self, segmented: Segmented) -> None:
        segmented.mask = only(segmented.mask, frozenset({0, 7}), 150)
        [entry] = json.loads(made(Output.STATS, segmented))["classes"]
        assert (entry["id"], entry["pixels"], entry["bbox"]) == (0, 2, [0, 0, 3, 2])
        assert entry["share"] == pytest.approx(1 / 3)  # of the image, not of what is asked for
        [one] = json.loads(made(Output.RLE, segmented))["annotations"]
        assert np.array_equal(coco_mask.decode(one["segmentation"]), segmented.mask == 0)
        picture = opened(made(Output.BINARY, segmented))
        assert np.array_equal(np.asarray(picture), segmented.mask == 0)

    def test_none_of_which_is_there_leave_nothing(self, segmented: Segmented) -> None:
        segmented.mask = only(segmented.mask, frozenset({7}), 150)
        assert stats(segmented.mask, ADE) == []
        assert json.loads(made(Output.RLE, segmented))["annotations"] == []
        wanted = frozenset({Output.BINARY})
        image = Image.new("RGB", (3, 2))
        assert encode(wanted, image=image, output=segmented, labels=ADE) == []

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    def test_that_were_not_asked_for_are_not_tinted(self, dtype: Any) -> None:
        mask = np.full((32, 64), 2, dtype)
        mask[:, 32:] = 5
        filtered = only(mask, frozenset({2}), 150)
        overlay = np.asarray(opened(made(Output.OVERLAY, Segmented(filtered)))).astype(int)
        assert np.abs(overlay[:, :30] - [103, 165, 140]).max() <= 4
        assert np.abs(overlay[:, 40:] - [200, 100, 50]).max() <= 4


class TestOverlay:
    @pytest.mark.parametrize(
        ("alpha", "colour"), [(0.0, [200, 100, 50]), (1.0, [6, 230, 230]), (0.25, [152, 132, 95])]
    )
    def test_alpha_is_how_much_of_it_is_colour(self, alpha: float, colour: list[int]) -> None:
        sky = Segmented(np.full((32, 32), 2, np.uint8))
        overlay = opened(made(Output.OVERLAY, sky, style=OverlayStyle(alpha)))
        assert np.abs(np.asarray(overlay).astype(int) - colour).max() <= 4

    def test_the_legend_stands_below_largest_first(self) -> None:
        mask = np.full((300, 640), 2, np.uint8)
        mask[:90] = 4
        mask[:2, :2] = 12
        overlay = opened(made(Output.OVERLAY, Segmented(mask), style=OverlayStyle(legend=True)))
        assert overlay.width == 640
        strip = np.asarray(overlay).astype(int)[300:]
        assert 20 < len(strip) < 100
        left = []
        for class_id in (2, 4, 12):
            colour = np.frombuffer(palette(150), np.uint8).reshape(-1, 3)[class_id]
            there = np.abs(strip - colour).max(axis=2) < 12
            assert there.sum() > 50, class_id
            left.append(int(np.flatnonzero(there.any(axis=0))[0]))
        assert left == sorted(left)
        assert (strip.max(axis=2) < 110).sum() > 100  # letters

    @pytest.mark.parametrize("size", [(1, 1), (9, 400), (65_500, 1), (1, 65_500), (1, 65_490)])
    def test_the_legend_breaks_no_size(self, size: tuple[int, int]) -> None:
        mask = np.arange(size[0] * size[1]).reshape(size[1], size[0]) % 150
        segmented = Segmented(mask.astype(np.uint8))
        overlay = opened(made(Output.OVERLAY, segmented, style=OverlayStyle(legend=True)))
        assert overlay.width == size[0]
        assert size[1] <= overlay.height <= 65_500


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


def test_the_gateway_knows_every_file_for_an_output(
    image: Image.Image, segmented: Segmented
) -> None:
    """Else what one job writes could start another."""
    for artifact in encode(ALL, image=image, output=segmented, labels=ADE):
        assert is_output(f"maskq/{new_id()}/{new_token()}/{artifact.filename}")
        written = Written("r", S3Uri("maskq", "maskq"), frozenset({artifact.output}))
        assert any(artifact.filename.endswith(key.end.removeprefix("/")) for key in written.keys)


def test_a_result_of_an_older_worker_can_be_read() -> None:
    body = """{"width":3,"height":2,"model":"demo","outputs":{"mask":"s3://out/1/m"},"labels":{"2":"sky"},
        "stats":[{"id":2,"label":"sky","pixels":6,"share":1.0}],"timings_ms":{"model":1.5}}"""
    for kind in (JobResult, Manifest):
        result = kind.model_validate_json(body)
        assert (result.stats[0].bbox, result.stats[0].regions, result.dtype) == (None, None, None)
    assert Manifest.model_validate_json(body).palette == {}


def test_what_cannot_be_right_is_refused(image: Image.Image, segmented: Segmented) -> None:
    for output in (Output.LOGITS, Output.CONFIDENCE):
        with pytest.raises(ValueError, match=f"needs the {output.value}, .*not asked to keep"):
            made(output, Segmented(segmented.mask))
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


def test_uncertain_pixels_are_white_in_one_bit(segmented: Segmented) -> None:
    picture = opened(made(Output.UNCERTAIN, segmented))
    assert (picture.mode, picture.size) == ("1", (3, 2))
    assert np.array_equal(np.asarray(picture), segmented.uncertain)
    segmented.uncertain = None
    with pytest.raises(ValueError, match="uncertain pixels"):
        made(Output.UNCERTAIN, segmented)
