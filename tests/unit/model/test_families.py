"""Every family that is served, against transformers' own answers, with tiny random weights."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.family_checkpoints import CHECKPOINTS, LABELS, SIDE, write
from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation

from maskq.contract import FailureCode, Output
from maskq.contract.options import Mode
from maskq_worker.errors import PermanentError
from maskq_worker.model import ModelError, ModelOutput, Segmenter, load_segmenter, run_self_test
from maskq_worker.model.families import FAMILIES, family_of
from maskq_worker.model.masks.comparison import untied_differences
from maskq_worker.model.preprocess.frame import Frame, ImageArea
from maskq_worker.settings import WorkerSettings

pytestmark = pytest.mark.slow

ONE_SIZE = ("data2vec",)
CROPPED = ("mobilevit", "mobilenet-v2")
SIZES = [(97, 61), (40, 150), (64, 64)]  # (width, height) px


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Any:
    root = tmp_path_factory.mktemp("families")
    return functools.cache(lambda name: write(root / name, name))


@pytest.fixture(scope="module")
def served(written: Any) -> Any:
    """Loaded once: nothing changes them."""
    return functools.cache(lambda name, backend="auto": load(written(name), backend=backend))


def load(directory: Path, **settings: Any) -> Segmenter:
    return load_segmenter(WorkerSettings(model=str(directory), device="cpu", **settings))


def photo(width: int, height: int, seed: int = 3) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def run(segmenter: Segmenter, *images: Image.Image, mode: Mode = Mode.WHOLE) -> list[ModelOutput]:
    outputs = frozenset({Output.MASK, Output.LOGITS, Output.CONFIDENCE})
    answers = segmenter.run(
        [segmenter.prepare(image, outputs=outputs, mode=mode) for image in images]
    )
    for answer in answers:
        assert isinstance(answer, ModelOutput), answer
    return answers  # type: ignore[return-value]


@functools.cache
def reference(directory: Path) -> tuple[Any, Any]:
    processor = AutoImageProcessor.from_pretrained(directory, backend="pil")
    return processor, AutoModelForSemanticSegmentation.from_pretrained(directory).eval()


def transformers_answer(
    directory: Path, image: Image.Image, size: tuple[int, int]
) -> tuple[torch.Tensor, np.ndarray]:
    """Scores, and a mask of `size` (H, W), by nothing but transformers."""
    processor, network = reference(directory)
    with torch.inference_mode():
        outputs = network(**processor(images=image, return_tensors="pt"))
        masks = processor.post_process_semantic_segmentation(outputs, target_sizes=[size])
    return outputs.logits[0], masks[0].numpy()


@pytest.mark.parametrize("backend", ["auto", "transformers"])
@pytest.mark.parametrize("name", CHECKPOINTS)
def test_scores_and_masks_are_transformers_own(
    written: Any, served: Any, name: str, backend: str
) -> None:
    directory, segmenter = written(name), served(name, backend)
    run_self_test(segmenter)
    for width, height in SIZES:
        image = photo(width, height)
        item = segmenter.prepare(image)
        place = item.views.area or ImageArea(0, 0, height, width)
        scores, mask = transformers_answer(directory, image, (place.height, place.width))
        [output] = run(segmenter, image)
        assert output.logits is not None
        assert output.confidence is not None
        magnitude = scores.abs().max().item()
        assert np.abs(output.logits - scores.numpy()).max() < 2e-5 * magnitude
        assert (output.mask.dtype, output.mask.shape) == (np.uint8, (height, width))
        rows = slice(max(0, place.top), min(height, place.top + place.height))
        columns = slice(max(0, place.left), min(width, place.left + place.width))
        whole = mask.copy()  # of what the network was shown, which may reach beyond the image
        whole[
            rows.start - place.top : rows.stop - place.top,
            columns.start - place.left : columns.stop - place.left,
        ] = output.mask[rows, columns]
        assert untied_differences(scores, whole, mask) == 0
        assert len(np.unique(mask)) > 1  # else the test could not fail
        outside = np.ones(output.mask.shape, bool)
        outside[rows, columns] = False
        assert (output.mask[outside] == 255).all()
        assert (output.confidence[outside] == 0).all()
        assert bool(item.notes) == (name in CROPPED)


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_batch_gives_each_image_its_own_mask(written: Any, name: str) -> None:
    segmenter = load(written(name), max_batch_size=4)
    images = [photo(97, 61), photo(97, 61, seed=9), photo(64, 64, seed=10)]
    together = run(segmenter, *images)
    for image, output in zip(images, together, strict=True):
        [alone] = run(segmenter, image)
        assert (output.mask == alone.mask).mean() > 0.999  # a batch may round differently


@pytest.mark.parametrize("mode", [Mode.TILED, Mode.MULTISCALE, Mode.ASPECT])
@pytest.mark.parametrize("name", CHECKPOINTS)
def test_every_mode_looks_at_all_of_the_image(served: Any, name: str, mode: Mode) -> None:
    """Also of what a crop would leave out: no pixel is without a class."""
    segmenter = served(name)
    if name in ONE_SIZE and mode is not Mode.TILED:
        with pytest.raises(
            PermanentError, match="takes 64x64 only: choose whole or tiled"
        ) as caught:
            segmenter.prepare(photo(20, 30), mode=mode)
        assert caught.value.code is FailureCode.INVALID_REQUEST
        return
    item = segmenter.prepare(photo(150, 90), mode=mode)
    assert item.notes == ()
    [output] = run(segmenter, photo(150, 90), mode=mode)
    assert output.mask.shape == (90, 150)
    assert output.mask.max() < LABELS
    assert len(np.unique(output.mask)) > 1
    high, wide = segmenter.info.input_size
    shapes = {view.pixels.shape[:2] for view in item.views.each}
    if mode is Mode.TILED:
        assert shapes == {(high, wide)}
    else:
        stride = 16 if name == "beit" else 32
        assert all(shape == (high, wide) or not any(n % stride for n in shape) for shape in shapes)


@pytest.mark.parametrize("name", [name for name in CHECKPOINTS if name not in ONE_SIZE])
def test_scores_of_other_sizes_stay_in_their_place(served: Any, name: str) -> None:
    """A network that scrambled rectangles would see no difference between left and right."""
    segmenter = served(name)
    image = Image.new("RGB", (192, 64), "black")
    image.paste(photo(64, 64), (128, 0))
    plain = run(segmenter, Image.new("RGB", (192, 64), "black"), mode=Mode.ASPECT)[0].logits
    scores = run(segmenter, image, mode=Mode.ASPECT)[0].logits
    assert plain is not None
    assert scores is not None
    change = np.abs(scores - plain).mean(axis=(0, 1))
    third = len(change) // 3
    # BEiT's attention, of random weights, carries much of it anywhere.
    assert change[2 * third :].mean() > (1.05 if name == "beit" else 1.2) * change[:third].mean()


def test_a_panorama_that_would_be_shown_too_large_is_refused(served: Any) -> None:
    segmenter = served("upernet-convnext")  # its processor keeps the ratio
    segmenter.prepare(photo(400, 100))
    segmenter._max_score_bytes, before = 2**20, segmenter._max_score_bytes
    try:
        with pytest.raises(PermanentError, match=r"64000x64 px, .*: choose mode tiled") as caught:
            segmenter.prepare(Image.new("RGB", (10_000, 10)))
        assert caught.value.code is FailureCode.INVALID_REQUEST
        item = segmenter.prepare(Image.new("RGB", (10_000, 10)), mode=Mode.TILED)
        assert item.views.canvas is not None
    finally:
        segmenter._max_score_bytes = before


def test_info_says_what_the_processor_does(served: Any) -> None:
    described = {name: served(name).info for name in ("segformer", "mobilevit")}
    assert described["segformer"].backend == "transformers"
    assert described["segformer"].preprocessing["do_reduce_labels"] is True
    mobilevit = described["mobilevit"].preprocessing
    assert (mobilevit["channels"], mobilevit["cropped"]) == ("bgr", True)
    assert mobilevit["shortest_edge"] == 72
    assert served("segformer-rectangle").info.preprocessing["input_size"] == [128, 64]


def test_a_weight_of_chance_is_refused(written: Any, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    for name, left_out, said in [
        ("segformer", "decode_head.classifier.weight", "lacks 1 weights"),
        ("beit", "auxiliary_head.", ""),
    ]:
        directory = tmp_path / name
        directory.mkdir()
        for file in written(name).iterdir():
            (directory / file.name).write_bytes(file.read_bytes())
        weights = load_file(directory / "model.safetensors")
        kept = {key: value for key, value in weights.items() if not key.startswith(left_out)}
        assert len(kept) < len(weights)
        save_file(kept, directory / "model.safetensors", metadata={"format": "pt"})
        if said:
            with pytest.raises(ModelError, match=said):
                load(directory)
        else:
            run_self_test(load(directory))


@pytest.mark.parametrize(
    ("architecture", "model_type"),
    [
        ("OneFormerForUniversalSegmentation", "oneformer"),
        ("Mask2FormerForUniversalSegmentation", "mask2former"),
        ("MaskFormerForInstanceSegmentation", "maskformer"),
        ("DetrForSegmentation", "detr"),
        ("SamModel", "sam"),
        ("DPTForDepthEstimation", "dpt"),
        ("SegformerForImageClassification", "segformer"),
        ("Nonesuch", "nonesuch"),
    ],
)
def test_other_networks_are_refused_by_name(
    tmp_path: Path, architecture: str, model_type: str
) -> None:
    config = {"architectures": [architecture], "model_type": model_type}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "preprocessor_config.json").write_text("{}")
    with pytest.raises(ModelError, match=f"holds {architecture}; maskq serves") as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_family_that_no_module_names_is_transformers_own() -> None:
    family = family_of({"model_type": "tipsv2_dpt"}, Path("x"))
    assert family.architecture == "Tipsv2DptForSemanticSegmentation"
    assert family.multiple({}, SIDE) is None  # nobody has said that it takes other sizes


def test_every_class_of_transformers_is_known() -> None:
    """A release of transformers with a new one shows here, and a module for it may be worth while."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES as NAMES,
    )

    named = {family.model_type: family.architecture for family in FAMILIES}
    assert named.items() <= NAMES.items()
    assert NAMES.keys() - named.keys() == {"sapiens2", "tipsv2_dpt"}  # they need torchvision


@pytest.mark.parametrize("size", [(90, 60), (60, 90), (65, 64), (7, 500), (500, 7)])
@pytest.mark.parametrize(
    "frame",
    [
        Frame((64, 64), shortest_edge=72, cropped=True),
        Frame((33, 48), shortest_edge=31, cropped=True),  # larger than what it is cut from
        Frame((48, 40), (64, 64), cropped=True),
        Frame((48, 40), (20, 64), cropped=True),
    ],
    ids=str,
)
def test_a_crop_of_a_large_image_is_resized_alone(
    served: Any, monkeypatch: pytest.MonkeyPatch, frame: Frame, size: tuple[int, int]
) -> None:
    preprocessor = served("mobilevit").preprocessor
    monkeypatch.setattr(preprocessor, "frame", frame)
    expected, place = preprocessor.whole(photo(*size))
    monkeypatch.setattr("maskq_worker.model.preprocess.preprocessor._MAX_RESIZED", 0)
    pixels, same = preprocessor.whole(photo(*size))
    assert place == same
    assert pixels.shape == (*frame.size, 3)
    assert np.abs(pixels.astype(int) - expected).max() <= 2
