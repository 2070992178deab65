"""Scores, masks and preprocessing are transformers' own."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from support import model_reference
from support.model_reference import (
    SIDE,
    edit_json,
    edit_weights,
    load,
    photo,
    run_one,
    transformers_answer,
)
from transformers import AutoImageProcessor

from maskq.contract import FailureCode
from maskq.contract.options import Mode
from maskq_worker.errors import PermanentError
from maskq_worker.model import (
    ModelError,
)
from maskq_worker.model.masks.comparison import untied_differences
from maskq_worker.model.preprocess.from_checkpoint import load_preprocessor
from maskq_worker.model.segmenter import NoContext

pytestmark = pytest.mark.slow

checkpoint = model_reference.checkpoint
original = model_reference.original


@pytest.mark.parametrize("backend", ["transformers", "auto"])
@pytest.mark.parametrize("size", [(97, 61), (30, 140), (64, 64), (1, 9)])
def test_logits_and_mask_are_transformers_own(
    original: Path, backend: str, size: tuple[int, int]
) -> None:
    image = photo(*size)
    logits, mask = transformers_answer(original, image)
    output = run_one(load(original, backend=backend), image)

    if backend == "transformers":
        assert np.array_equal(output.logits, logits.numpy())  # bit for bit
        assert np.array_equal(output.mask, mask)
    else:  # rewritten: rounded in other places
        assert np.abs(output.logits - logits.numpy()).max() < 2e-5 * np.abs(logits.numpy()).max()
    assert output.logits.dtype == np.float32
    assert (output.mask.dtype, output.mask.shape) == (np.uint8, (size[1], size[0]))
    assert untied_differences(logits, output.mask, mask) == 0
    assert len(np.unique(mask)) > 1 or min(size) == 1  # else the test could not fail


@pytest.mark.parametrize("resample", [Image.Resampling.BICUBIC, Image.Resampling.BILINEAR])
@pytest.mark.parametrize("size", [(97, 61), (300, 200), (64, 64), (1, 1), (3, 5), (1, 200)])
def test_preprocessing_is_bit_equal_to_transformers(
    checkpoint: Path, size: tuple[int, int], resample: int
) -> None:
    edit_json("preprocessor_config.json", resample=int(resample))(checkpoint)
    processor = AutoImageProcessor.from_pretrained(checkpoint, backend="pil")
    noise = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(noise)

    preprocessor = load_preprocessor(checkpoint)
    small = preprocessor(image)
    pixels = preprocessor.normalised(torch.from_numpy(small)).numpy()

    expected = processor(images=image, return_tensors="np")["pixel_values"][0]
    assert (small.dtype, small.shape) == (np.uint8, (SIDE, SIDE, 3))
    assert np.array_equal(pixels, expected)


def test_the_preprocessor_file_of_intels_checkpoint_is_understood(checkpoint: Path) -> None:
    """It dates from 2022: a class that is gone, and a size of one number."""
    path = checkpoint / "preprocessor_config.json"
    path.write_text(
        json.dumps(
            {
                "do_normalize": True,
                "do_resize": True,
                "ensure_multiple_of": 1,
                "feature_extractor_type": "DPTFeatureExtractor",
                "image_mean": [0.5, 0.5, 0.5],
                "image_std": [0.5, 0.5, 0.5],
                "keep_aspect_ratio": False,
                "resample": 2,
                "size": 480,
            }
        )
    )
    assert load_preprocessor(checkpoint)(photo(50, 40)).shape == (480, 480, 3)


def test_one_preprocessor_serves_many_threads(original: Path) -> None:
    preprocessor = load_preprocessor(original)
    images = [photo(40 + index, 30, seed=index) for index in range(12)]
    alone = [preprocessor(image) for image in images]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(preprocessor, images * 3))
    assert all(np.array_equal(a, b) for a, b in zip(alone * 3, together, strict=True))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"size": {"height": 64, "width": 96}}, "96x64"),
        ({"keep_aspect_ratio": True}, "squares"),
        ({"do_resize": False}, "squares"),
        ({"do_pad": True, "size_divisor": 48}, "padding"),
        ({"size": {"shortest_edge": 64}}, "not usable"),
    ],
)
def test_a_processor_that_dpt_cannot_be_served_with_is_refused(
    checkpoint: Path, changes: dict[str, Any], said: str
) -> None:
    edit_json("preprocessor_config.json", **changes)(checkpoint)
    with pytest.raises(ModelError, match=said):
        load(checkpoint)


def test_aspect_shows_the_network_a_rectangle(original: Path) -> None:
    segmenter, image = load(original), photo(200, 90)
    item = segmenter.prepare(image, mode=Mode.ASPECT)
    assert [view.pixels.shape for view in item.views.each] == [(64, 128, 3)]
    [output] = segmenter.run([item])
    assert not isinstance(output, Exception)
    assert output.mask.shape == (90, 200)


def test_a_network_that_takes_squares_refuses_aspect(original: Path) -> None:
    with pytest.raises(PermanentError, match="takes squares: choose whole"):
        load(original, backend="transformers").prepare(photo(20, 30), mode=Mode.ASPECT)


def test_info_says_what_is_served(original: Path) -> None:
    info = load(original).info
    assert info.name == "tiny-dpt"
    assert info.revision.startswith("sha256:")
    assert info.labels[149] == "label 149"  # stripped
    assert (info.backend, info.device, info.dtype) == ("cpu", "cpu", "float32")
    assert info.input_size == (64, 64)
    assert load(original, backend="transformers").info.backend == "transformers"


def test_a_half_precision_checkpoint_is_served_in_float32_on_a_cpu(checkpoint: Path) -> None:
    def halve(weights: dict[str, torch.Tensor]) -> None:
        weights |= {name: w.half() for name, w in weights.items() if w.is_floating_point()}

    edit_weights(halve)(checkpoint)
    edit_json("config.json", dtype="float16")(checkpoint)
    segmenter = load(checkpoint)
    assert segmenter.info.dtype == "float32"
    assert run_one(segmenter, photo(20, 30)).logits.dtype == np.float32


def test_a_mask_that_finds_no_room_is_launched_again_in_parts(
    original: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter = load(original)
    item = segmenter.prepare(photo(64, 64))

    def no_room(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(segmenter.backend, "start_mask", no_room)
    with pytest.raises(PermanentError, match="the mask of 64x64 px") as caught:
        segmenter.submit_batch([item], NoContext())  # the batcher runs it again in parts
    assert caught.value.code is FailureCode.OUT_OF_MEMORY


def test_counters_that_serve_training_only_may_be_missing(original: Path, tmp_path: Path) -> None:
    directory = tmp_path / "lean"
    shutil.copytree(original, directory)
    weights = load_file(directory / "model.safetensors")
    lean = {name: w for name, w in weights.items() if not name.endswith("num_batches_tracked")}
    assert len(lean) < len(weights)
    save_file(lean, directory / "model.safetensors", metadata={"format": "pt"})
    mask = run_one(load(directory), photo(64, 64)).mask
    assert (mask == run_one(load(original), photo(64, 64)).mask).all()


def test_merged_scores_that_do_not_fit_are_told_as_such(original: Path) -> None:
    segmenter = load(original)
    item = segmenter.prepare(photo(64, 64), mode=Mode.TILED)
    huge = replace(
        item, views=replace(item.views, canvas=(10**7, 10**7))
    )  # px: more than any memory
    with pytest.raises(PermanentError, match="MASKQ_MAX_SCORE_BYTES") as caught:
        segmenter.run([huge])
    assert caught.value.code is FailureCode.OUT_OF_MEMORY
