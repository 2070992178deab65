"""rle.json and maskq.coco: what tools for COCO documents read out of them."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from maskq import InvalidRequest, coco
from maskq.contract import SegmentRequest
from maskq.contract.locations.source import source_of
from maskq_worker.jobs.stages import coco_source
from maskq_worker.outputs import Source, bands, shares
from maskq_worker.outputs.coco import rle_json
from maskq_worker.outputs.pictures import mask_png

# pycocotools' own affair: what it wraps its buffers in is of numpy 1's time.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

LABELS = ("wall", "Straße", "空", "door", "e", "f", "g", "sea")
SAFE_INTEGER = 2**53  # of JavaScript


def source(name: str = "photo.jpg", job_id: str = "job-1", etag: str | None = "e") -> Source:
    return Source(name, f"s3://photos/{name}", etag, job_id)


def document(
    mask: np.ndarray, labels: tuple[str, ...] = LABELS, of: Source | None = None
) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(rle_json(mask, shares(mask, labels), labels, of or source()))
    return read


def picture(mask: np.ndarray) -> Image.Image:
    """mask.png as a caller opens it."""
    return Image.open(io.BytesIO(mask_png(mask, len(LABELS))))


def opened(document: dict[str, Any], folder: Path) -> COCO:
    path = folder / "rle.json"
    path.write_text(json.dumps(document))
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(path))


def classes_of(read: COCO, image_id: int) -> np.ndarray:
    """(H, W): class ids, by pycocotools alone; 255 where no annotation is."""
    entry = read.imgs[image_id]
    mask = np.full((entry["height"], entry["width"]), 255)
    for found in read.loadAnns(read.getAnnIds(imgIds=[image_id])):
        mask[read.annToMask(found) == 1] = found["category_id"] - 1
    return mask


@st.composite
def masks(draw: st.DrawFn) -> np.ndarray:
    """Small, of few classes; 8 or 16 bits."""
    height, width = draw(st.integers(1, 14)), draw(st.integers(1, 14))
    size = height * width
    ids = draw(st.lists(st.sampled_from([0, 1, 2, 7]), min_size=size, max_size=size))
    dtype = draw(st.sampled_from([np.uint8, np.uint16]))
    return np.array(ids, dtype=dtype).reshape(height, width)


def noise(*shape: int, classes: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, classes, shape, dtype=np.uint8)


def assert_as_pycocotools(mask: np.ndarray, labels: tuple[str, ...] = LABELS) -> None:
    annotations = document(mask, labels)["annotations"]
    assert {found["class_id"] for found in annotations} == set(np.unique(mask).tolist())
    for found in annotations:
        where, rle = mask == found["class_id"], found["segmentation"]
        theirs = coco_mask.encode(np.asfortranarray(where.astype(np.uint8)))
        assert (rle["size"], rle["counts"]) == (theirs["size"], theirs["counts"].decode())
        assert np.array_equal(coco_mask.decode(rle), where)
        assert coco_mask.area(rle) == found["area"]
        assert coco_mask.toBbox(rle).tolist() == found["bbox"]
        assert found["category"] == labels[found["class_id"]]


@settings(max_examples=200, deadline=None)
@given(mask=masks(), band=st.integers(1, 60))
def test_every_class_is_encoded_as_pycocotools_does(mask: np.ndarray, band: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bands, "PIXELS", band)
        assert_as_pycocotools(mask)


@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (3000, 1), (97, 101)])
def test_noise_of_any_shape_is_encoded_as_pycocotools_does(shape: tuple[int, int]) -> None:
    labels = tuple(str(index) for index in range(150))
    assert_as_pycocotools(noise(*shape, classes=150), labels)


def test_long_runs_take_as_many_letters_as_they_need() -> None:
    mask = np.zeros((2100, 2000), np.uint8)
    mask[7, 1500:] = 1
    mask[-1, -1] = 1
    assert_as_pycocotools(mask)


def test_values_that_are_no_class_have_no_annotation() -> None:
    mask = np.array([[0, 255, 255], [7, 255, 0]], np.uint8)
    assert [found["class_id"] for found in document(mask)["annotations"]] == [0, 7]


def test_every_class_of_the_model_is_a_category(tmp_path: Path) -> None:
    read = opened(document(np.full((2, 2), 2, np.uint8)), tmp_path)
    assert read.getCatIds() == list(range(1, 9))
    assert [read.cats[number]["name"] for number in range(1, 9)] == list(LABELS)
    assert read.getCatIds(catNms=["Straße"]) == [2]


def test_category_names_are_unique_and_none_is_empty() -> None:
    labels = ("sky", "", "sky", "sky (2)", "sea", "")
    names = [entry["name"] for entry in document(np.zeros((1, 1), np.uint8), labels)["categories"]]
    assert names == ["sky (0)", "class (1)", "sky (2)'", "sky (2)", "sea", "class (5)"]


def test_the_document_is_ascii_whatever_the_labels() -> None:
    """pycocotools opens it in the locale's encoding."""
    labels = ("空", "\ud800", 'a"b\n')
    mask = np.array([[0, 1, 2]], np.uint8)
    body = rle_json(mask, shares(mask, labels), labels, source("föto.jpg"))
    assert body.isascii()
    read = json.loads(body)
    assert [entry["name"] for entry in read["categories"]] == list(labels)
    assert read["images"][0]["file_name"] == "föto.jpg"


def test_an_image_keeps_its_id_over_jobs_and_changes_it_with_its_bytes() -> None:
    mask = noise(4, 5)

    def image_id(**of: Any) -> int:
        found: int = document(mask, of=source(**of))["images"][0]["id"]
        return found

    assert image_id() == image_id(job_id="job-2")
    assert len({image_id(), image_id(name="other.jpg"), image_id(etag="f")}) == 3
    assert 0 < image_id(etag=None) < SAFE_INTEGER


def test_an_annotation_s_id_is_its_own_among_all_jobs() -> None:
    documents = [document(noise(9, 9), of=source(job_id=f"job-{number}")) for number in range(50)]
    ids = [found["id"] for one in documents for found in one["annotations"]]
    assert len(set(ids)) == len(ids) == 50 * 8
    assert all(0 < number < SAFE_INTEGER for number in ids)


@pytest.mark.parametrize(
    ("place", "name", "shown"),
    [
        ("s3://photos/2026/a b?.jpg", "a b?.jpg", "s3://photos/2026/a b?.jpg"),
        ("s3://photos/a.jpg", "a.jpg", "s3://photos/a.jpg"),
        ("s3://maskq/maskq/ID/input", "ID", "s3://maskq/maskq/ID/input"),
        ("https://host.example/p/a%20b.jpg?X-Sig=secret", "a b.jpg", "https://host.example/p/a%20b.jpg?…"),
        ("https://host.example/p/", "ID", "https://host.example/p/"),
        ("https://host.example", "ID", "https://host.example"),
        ("https://host.example/a/%2e%2e", "ID", "https://host.example/a/%2e%2e"),
        ("https://host.example/a%2fb.jpg", "b.jpg", "https://host.example/a%2fb.jpg"),
    ],
)  # fmt: skip
def test_the_file_name_is_the_last_part_of_the_place(place: str, name: str, shown: str) -> None:
    request = SegmentRequest(image_uri=place)
    source = source_of(place)
    assert coco_source("ID", request, source, "e") == Source(name, shown, "e", "ID")


@pytest.mark.parametrize(
    ("given", "name"), [("holiday/a.jpg", "a.jpg"), ("a.jpg", "a.jpg"), (None, "ID")]
)
def test_an_upload_has_the_file_name_that_its_caller_gave(given: str | None, name: str) -> None:
    request = SegmentRequest(image_uri="s3://bucket/maskq/ID/input")
    source = given or source_of(request.image_uri)
    assert coco_source("ID", request, source, "e").name == name


class TestMerge:
    def test_documents_of_several_jobs_are_one(self, tmp_path: Path) -> None:
        made = {f"{number}.jpg": noise(7 + number, 11, seed=number) for number in range(3)}
        documents = [document(mask, of=source(name, job_id=name)) for name, mask in made.items()]
        joined = coco.merge(iter(documents))
        read = opened(joined, tmp_path)
        assert len(read.imgs) == 3
        for image_id, entry in read.imgs.items():
            assert np.array_equal(classes_of(read, image_id), made[entry["file_name"]])
        by_hand = {
            **documents[0],
            "images": [image for one in documents for image in one["images"]],
            "annotations": [found for one in documents for found in one["annotations"]],
        }
        assert joined == by_hand
        assert len(documents[0]["images"]) == 1  # untouched

    @pytest.mark.parametrize("name", ["a.jpg", "a.png"])
    def test_two_images_of_one_name_are_refused(self, name: str) -> None:
        first = document(noise(2, 2), of=Source("a.jpg", "s3://one/a.jpg", "e", "job-1"))
        second = document(noise(2, 2), of=Source(name, f"s3://two/{name}", "e", "job-2"))
        message = rf"called 'a': s3://one/a\.jpg \(job job-1\) and s3://two/{name} \(job job-2\)"
        with pytest.raises(InvalidRequest, match=message):
            coco.merge([first, second])
        named = coco.merge([first, second], file_name=lambda image: image["coco_url"][5:])
        assert [image["file_name"] for image in named["images"]] == ["one/a.jpg", f"two/{name}"]
        assert first["images"][0]["file_name"] == "a.jpg"  # untouched

    def test_documents_of_different_models_are_refused(self) -> None:
        other = document(noise(2, 2), LABELS[::-1], source("b.jpg", "job-2"))
        with pytest.raises(InvalidRequest, match="categories of job job-2 are not those"):
            coco.merge([document(noise(2, 2)), other])

    def test_nothing_is_refused(self) -> None:
        with pytest.raises(InvalidRequest, match="got no documents"):
            coco.merge([])


class TestPanoptic:
    @pytest.mark.parametrize(
        "ids", [[[0, 3, 3], [7, 255, 0]], [[0, 3, 3], [7, 65535, 255], [256, 299, 511]]]
    )
    def test_a_segment_s_pixels_hold_its_id(self, ids: list[list[int]]) -> None:
        mask = np.array(ids, np.uint8 if len(ids) == 2 else np.uint16)
        labels = tuple(f"label {index}" for index in range(8 if len(ids) == 2 else 512))
        panoptic, image = coco.panoptic(document(mask, labels), picture(mask))
        coded = np.asarray(image).astype(int) @ [1, 256, 65536]
        none = 255 if mask.dtype == np.uint8 else 65535
        assert np.array_equal(coded, np.where(mask == none, 0, mask.astype(int) + 1))
        [annotation] = panoptic["annotations"]
        assert annotation["file_name"] == "photo.png"
        assert annotation["image_id"] == panoptic["images"][0]["id"]
        assert {one["id"] for one in annotation["segments_info"]} == set(np.unique(coded)) - {0}
        for segment in annotation["segments_info"]:
            assert (segment["id"], segment["iscrowd"]) == (segment["category_id"], 0)
            assert segment["area"] == (coded == segment["id"]).sum()

    def test_a_mask_of_another_job_is_refused(self) -> None:
        with pytest.raises(InvalidRequest, match=r"the mask is 3x2 px, .* of an image of 2x3 px"):
            coco.panoptic(document(noise(3, 2)), picture(noise(2, 3)))

    def test_an_image_is_named_anew_before_it_is_made_panoptic(self) -> None:
        mask = noise(2, 2)
        renamed = coco.merge([document(mask)], file_name=lambda image: f"day/{image['file_name']}")
        panoptic, _ = coco.panoptic(renamed, picture(mask))
        assert panoptic["annotations"][0]["file_name"] == "day/photo.png"
        with pytest.raises(InvalidRequest, match="rename the image before panoptic"):
            coco.merge([panoptic], file_name=lambda image: "night.jpg")

    def test_panoptic_documents_are_merged_too(self) -> None:
        made = []
        for name in ("a.jpg", "b.jpg"):
            mask = noise(4, 4)
            made.append(coco.panoptic(document(mask, of=source(name, name)), picture(mask))[0])
        annotations = coco.merge(made)["annotations"]
        assert [one["file_name"] for one in annotations] == ["a.png", "b.png"]


def _dataset(folder: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """A folder as COCO's tools want it, of two jobs over images of one name; and the masks by path."""
    made = {"day/a.png": noise(6, 9, seed=1), "night/a.png": noise(8, 5, seed=2)}
    documents, panoptics = [], []
    for name, mask in made.items():
        for place in ("images/jobs", "annotations/panoptic_jobs"):
            (folder / place / name).parent.mkdir(parents=True)
        Image.new("RGB", mask.shape[::-1]).save(folder / "images" / "jobs" / name)
        one = document(mask, of=Source("a.png", f"s3://photos/{name}", "e", name))
        documents.append(coco.merge([one], file_name=lambda image: image["coco_url"][12:]))
        panoptic, coded = coco.panoptic(documents[-1], picture(mask))
        coded.save(
            folder / "annotations" / "panoptic_jobs" / panoptic["annotations"][0]["file_name"]
        )
        panoptics.append(panoptic)
    for task, parts in {"instances": documents, "panoptic": panoptics}.items():
        path = folder / "annotations" / f"{task}_jobs.json"
        path.write_text(json.dumps(coco.merge(parts)))
    return folder, made


@pytest.mark.other_tools
def test_supervision_reads_every_mask(tmp_path: Path) -> None:
    import supervision

    folder, made = _dataset(tmp_path)
    dataset = supervision.DetectionDataset.from_coco(
        str(folder / "images" / "jobs"), str(folder / "annotations" / "instances_jobs.json")
    )
    assert dataset.classes == list(LABELS)
    assert len(dataset) == 2
    for path, _, detections in dataset:
        mask = made["/".join(Path(path).parts[-2:])]
        seen = np.full(mask.shape, 255)
        for where, class_id in zip(detections.mask, detections.class_id, strict=True):
            seen[where] = class_id  # supervision's own, from 0 on
        assert np.array_equal(seen, mask)


@pytest.mark.other_tools
@pytest.mark.parametrize("task", ["instances", "panoptic"])
def test_datumaro_reads_every_mask(task: str, tmp_path: Path) -> None:
    import datumaro

    folder, made = _dataset(tmp_path)
    dataset = datumaro.Dataset.import_from(str(folder), f"coco_{task}")
    labels = dataset.categories()[datumaro.AnnotationType.label]
    assert [entry.name for entry in labels.items] == list(LABELS)
    for item in dataset:
        mask = made[f"{item.id}.png"]
        seen = np.full(mask.shape, 255)
        for found in item.annotations:
            if found.type is datumaro.AnnotationType.mask:
                seen[found.image.astype(bool)] = found.label
        assert np.array_equal(seen, mask)
