"""config.json and the image processor's settings as they come: what transformers loads is loaded."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import SMALL
from PIL import Image
from support.family_checkpoints import draw_weights
from transformers import AutoImageProcessor, DPTConfig, DPTForSemanticSegmentation
from transformers.models.dpt.image_processing_pil_dpt import DPTImageProcessorPil

from maskq.contract.options import Mode
from maskq_worker.model import ModelError, load_segmenter, run_self_test
from maskq_worker.model.checkpoint.labels import read_labels
from maskq_worker.model.families import family_of
from maskq_worker.model.families.dpt import DPT
from maskq_worker.model.masks.comparison import untied_differences
from maskq_worker.model.views import SCALES
from maskq_worker.settings import WorkerSettings

pytestmark = pytest.mark.slow

GONE = object()


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """By number of classes."""
    root, written = tmp_path_factory.mktemp("checkpoints"), {}
    for labels in (2, 3):
        network = DPTForSemanticSegmentation(DPTConfig(**{**SMALL, "num_labels": labels}))
        draw_weights(network)
        written[labels] = root / str(labels)
        network.save_pretrained(written[labels])
        DPTImageProcessorPil(size={"height": 64, "width": 64}).save_pretrained(written[labels])
    return written


@pytest.fixture
def copy(originals: dict[int, Path], tmp_path: Path) -> Any:
    """A copy of one with another config.json."""

    def copy(labels: int, **changes: Any) -> Path:
        directory = Path(shutil.copytree(originals[labels], tmp_path / "tiny"))
        edit(directory / "config.json", **changes)
        return directory

    return copy


def edit(path: Path, **changes: Any) -> None:
    content = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not GONE}))


def load(directory: Path, **settings: Any) -> Any:
    return load_segmenter(WorkerSettings(model=str(directory), device="cpu", **settings))


@pytest.mark.parametrize(
    ("labels", "changes", "expected"),
    [
        # As transformers itself writes a network of two classes.
        (2, {"id2label": GONE, "label2id": GONE}, ["LABEL_0", "LABEL_1"]),
        (2, {"id2label": None}, ["LABEL_0", "LABEL_1"]),
        (3, {"id2label": GONE, "num_labels": 3}, ["LABEL_0", "LABEL_1", "LABEL_2"]),
        (3, {"id2label": None, "num_labels": 3}, ["LABEL_0", "LABEL_1", "LABEL_2"]),
        (3, {"id2label": {"2": "c", "0": "a", "1": "b"}}, ["a", "b", "c"]),
        (3, {"id2label": {"00": "a", "1 ": "b", "+2": "c"}}, ["a", "b", "c"]),
        (3, {"id2label": {"0": "a", "1": "b", "3": "d"}}, ["a", "b", "LABEL_2"]),
        (3, {"id2label": {"1": "a", "2": "b", "3": "d"}}, ["LABEL_0", "a", "b"]),
        (3, {"id2label": {"0": "a", "1": None, "2": 5}}, ["a", "LABEL_1", "5"]),
        (3, {"id2label": {"0": "a", "1": "a", "2": ""}}, ["a", "a", ""]),
        (3, {"id2label": {"0": "天空", "1": "a\nb ", "2": "x\ud800y"}}, ["天空", "a\nb", "x\ufffdy"]),
        (3, {"id2label": {"0": "\ud83c\udf33", "1": "b", "2": "c"}}, ["🌳", "b", "c"]),
        (3, {"architectures": GONE}, ["LABEL_0", "LABEL_1", "LABEL_2"]),
        (3, {"architectures": None}, ["LABEL_0", "LABEL_1", "LABEL_2"]),
        (3, {"architectures": []}, ["LABEL_0", "LABEL_1", "LABEL_2"]),
        (3, {"architectures": "DPTForSemanticSegmentation"}, ["LABEL_0", "LABEL_1", "LABEL_2"]),
        (3, {"model_type": GONE}, ["LABEL_0", "LABEL_1", "LABEL_2"]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("backend", ["auto", "transformers"])
def test_what_transformers_loads_is_loaded_with_its_labels(
    copy: Any, labels: int, changes: dict[str, Any], expected: list[str], backend: str
) -> None:
    directory = copy(labels, **changes)
    theirs = DPTForSemanticSegmentation.from_pretrained(directory)
    assert theirs.config.num_labels == labels
    for index, label in theirs.config.id2label.items():
        if index < labels and isinstance(label, str) and "\ud800" not in label:
            assert expected[index] == label.strip()
    segmenter = load(directory, backend=backend)
    assert list(segmenter.info.labels) == expected
    run_self_test(segmenter)
    assert all(label.encode() for label in expected if label)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"id2label": GONE}, r"has shape \(3,.*expected \(2,"),  # transformers takes it for two
        ({"id2label": {"0": "a", "1": "b"}}, "has shape"),
        ({"id2label": {str(n): "a" for n in range(4)}}, "has shape"),
        ({"id2label": GONE, "num_labels": 5}, "has shape"),
        ({"id2label": {}}, "without classes"),
        ({"id2label": GONE, "num_labels": 0}, "without classes"),
        ({"id2label": GONE, "num_labels": "3"}, "nor is num_labels"),
        ({"id2label": GONE, "num_labels": None}, "nor is num_labels"),
        ({"id2label": {"wall": 0}}, "neither does id2label"),
        ({"id2label": {"0.0": "a", "1": "b", "2": "c"}}, "neither does id2label"),
        ({"id2label": ["a", "b", "c"]}, "neither does id2label"),
        ({"architectures": ["DPTModel"]}, "holds DPTModel"),
        ({"architectures": GONE, "model_type": GONE}, "config.json does not name"),
    ],
)
def test_what_transformers_refuses_is_refused(
    copy: Any, changes: dict[str, Any], said: str
) -> None:
    directory = copy(3, **changes)
    with pytest.raises(ModelError, match=said) as caught:
        load(directory)
    assert "\n" not in str(caught.value)


def test_labels_that_leave_classes_out_are_told(
    copy: Any, caplog: pytest.LogCaptureFixture
) -> None:
    directory = copy(3, id2label={"1": "a", "2": "b", "3": "c"})
    with caplog.at_level(logging.WARNING):
        read_labels(directory)
    assert "leaves out the label of class 0" in caplog.text


@pytest.mark.parametrize("damage", [{"id2label": {"a": "b"}}, {"id2label": 3}, {"id2label": {}}])
def test_labels_alone_are_refused_in_one_sentence(copy: Any, damage: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=r"config\.json"):
        read_labels(copy(3, **damage))


def test_a_checkpoint_of_another_head_lacks_weights(copy: Any) -> None:
    """Without `architectures` its weights tell."""
    from safetensors.torch import load_file, save_file

    directory = copy(3, architectures=GONE)
    path = directory / "model.safetensors"
    kept = {k: v for k, v in load_file(path).items() if k.startswith("dpt.")}
    save_file(kept, path, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="lacks"):
        load(directory)


# The image processor's settings.


def nest(directory: Path, **changes: Any) -> None:
    """As processors of several parts are written: in processor_config.json."""
    settings = json.loads((directory / "preprocessor_config.json").read_text())
    document = {"image_processor": {**settings, **changes}, "processor_class": "Processor"}
    (directory / "processor_config.json").write_text(json.dumps(document))


@pytest.mark.parametrize("alone", [True, False])
def test_nested_settings_go_first(copy: Any, alone: bool) -> None:
    directory = copy(3)
    nest(directory, resample=0, image_mean=[0.1, 0.2, 0.3])
    if alone:
        (directory / "preprocessor_config.json").unlink()
    image = Image.effect_noise((50, 70), 90).convert("RGB")
    preprocessor = load(directory).preprocessor
    pixels = preprocessor.normalised(torch.from_numpy(preprocessor(image))).numpy()
    processor = AutoImageProcessor.from_pretrained(directory, backend="pil")
    assert processor.image_mean == (0.1, 0.2, 0.3)
    expected = processor(images=image, return_tensors="np")["pixel_values"][0]
    assert np.array_equal(pixels, expected)


@pytest.mark.parametrize("nested", [{"image_processor": None}, {"processor_class": "P"}])
def test_a_file_without_nested_settings_is_passed_over(copy: Any, nested: dict[str, Any]) -> None:
    directory = copy(3)
    (directory / "processor_config.json").write_text(json.dumps(nested))
    assert load(directory).info.input_size == (64, 64)


@pytest.mark.parametrize(
    ("nested", "said"),
    [
        ({"image_processor": [1]}, "processor_config.json: image_processor is not a JSON object"),
        ({}, "preprocessor_config.json is missing"),
    ],
)
def test_settings_that_are_not_there_are_missed(
    copy: Any, nested: dict[str, Any], said: str
) -> None:
    directory = copy(3)
    (directory / "preprocessor_config.json").unlink()
    (directory / "processor_config.json").write_text(json.dumps(nested))
    with pytest.raises(ModelError, match=said):
        load(directory)


@pytest.mark.parametrize(
    "kind",
    ["DPTFeatureExtractor", "DPTImageProcessorFast", "ViTImageProcessor", "BeitImageProcessor",
     "SegformerFeatureExtractor"],
)  # fmt: skip
def test_any_image_processor_that_shows_squares_will_do(copy: Any, kind: str) -> None:
    directory = copy(3)
    path = directory / "preprocessor_config.json"
    if kind.endswith("Extractor"):
        edit(path, image_processor_type=GONE, feature_extractor_type=kind)
    else:
        edit(path, image_processor_type=kind)
    processor = AutoImageProcessor.from_pretrained(directory, backend="pil")
    image = Image.effect_noise((50, 70), 90).convert("RGB")
    segmenter = load(directory)
    run_self_test(segmenter)
    preprocessor = segmenter.preprocessor
    pixels = preprocessor.normalised(torch.from_numpy(preprocessor(image))).numpy()
    expected = processor(images=image, return_tensors="np")["pixel_values"][0]
    assert np.array_equal(pixels, expected)


@pytest.mark.parametrize(
    ("kind", "said"),
    [("Nonesuch", r"not usable: Unrecognized image processor in \S+$"),
     ("Tipsv2DptImageProcessor", "not usable.*torchvision")],
)  # fmt: skip
def test_an_image_processor_that_is_not_there_is_refused(copy: Any, kind: str, said: str) -> None:
    directory = copy(3)
    edit(directory / "preprocessor_config.json", image_processor_type=kind)
    with pytest.raises(ModelError, match=said) as caught:
        load(directory)
    assert "\n" not in str(caught.value)


# Sizes of patches.


@pytest.mark.parametrize(
    ("patch", "factors", "side", "expected"),
    [
        (16, [4, 2, 1, 0.5], 384, 32),
        (16, [4, 2, 1, 0.5], 480, 32),
        (14, [4, 2, 1, 0.5], 518, 14),  # DINOv2's: 37 patches
        (14, [4, 2, 1, 0.5], 448, 28),
        (8, [2, 1, 0.5, 0.25], 64, 32),
        (16, [1, 1, 1, 0.5], 384, 32),
    ],
)
def test_sides_are_multiples_of_what_the_trained_size_is(
    patch: int, factors: list[float], side: int, expected: int
) -> None:
    config = {"patch_size": patch, "reassemble_factors": factors}
    assert DPT.multiple(config, side) == expected
    assert family_of({"model_type": "dpt"}, Path("x")) is DPT


@pytest.mark.parametrize("mode", ["whole", "aspect", "multiscale", "tiled"])
def test_patches_of_14_px_are_never_cut(tmp_path: Path, mode: str) -> None:
    """A side that is no multiple loses its last pixels, and the mask is stretched over them."""
    network = DPTForSemanticSegmentation(DPTConfig(**{**SMALL, "patch_size": 14, "image_size": 70}))
    draw_weights(network)
    network.save_pretrained(tmp_path)
    DPTImageProcessorPil(size={"height": 70, "width": 70}).save_pretrained(tmp_path)
    segmenter, reference = load(tmp_path), load(tmp_path, backend="transformers")
    image = Image.effect_noise((200, 90), 90).convert("RGB")
    item = segmenter.prepare(image, mode=Mode(mode))
    sizes = [view.pixels.shape[:2] for view in item.views.each]
    assert all(side % 14 == 0 for size in sizes for side in size)
    if mode == "multiscale":
        assert sorted({size[0] for size in sizes}) == [56, 70, 84]
        assert len(SCALES) == 3
    [output] = segmenter.run([item])
    assert output.mask.shape == (90, 200)
    if mode == "whole":
        scores = reference.backend.forward(item.views.each[0].pixels[None])[0]
        [expected] = reference.run([item])
        assert untied_differences(scores, output.mask, expected.mask) == 0
