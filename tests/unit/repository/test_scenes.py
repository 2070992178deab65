"""The drawn scenes, and what the shipped checkpoint makes of them."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from demo_scenes.canvas import CLASSES
from demo_scenes.scenes import Scene, draw
from demo_scenes.seeds import TRAINING, held_out

from maskq_standalone import demo
from maskq_standalone.commands.pictures import SHIPPED, SHIPPED_SEED, drawn_scenes, shipped_scenes
from maskq_standalone.demo.score import class_iou, colour_baseline, confusion, mean_iou

DEMO = Path(demo.__file__).parent
CHECKPOINT = DEMO / "checkpoint"
SMALL = (240, 180)
SHAPES = ((640, 480), (320, 240), (300, 400), (480, 270), (400, 400), (480, 360))


@cache
def small(seed: int) -> Scene:
    return draw(held_out(90, seed), size=SMALL)


@cache
def loaded() -> tuple[Any, dict[str, Any]]:
    from transformers import DPTForSemanticSegmentation

    load: Any = DPTForSemanticSegmentation.from_pretrained
    model, info = load(CHECKPOINT, dtype=torch.float32, output_loading_info=True)
    return model.eval(), info


def test_a_seed_draws_the_same_scene_and_another_seed_another() -> None:
    first, again, other = draw(5, size=SMALL), draw(5, size=SMALL), draw(6, size=SMALL)
    assert first.image.tobytes() == again.image.tobytes()
    assert (first.mask == again.mask).all()
    assert first.image.tobytes() != other.image.tobytes()
    assert (first.mask != other.mask).mean() > 0.05


@pytest.mark.parametrize("size", [(240, 180), (181, 240), (97, 64)])
def test_picture_and_mask_have_the_size_asked_for(size: tuple[int, int]) -> None:
    scene = draw(11, size=size)
    assert scene.image.mode == "RGB"
    assert scene.image.size == size
    assert scene.mask.dtype == np.uint8
    assert scene.mask.shape == (size[1], size[0])


def test_one_seed_is_one_scene_at_any_size() -> None:
    """Form and place belong to the seed: the labels agree but for the edges."""
    one, two = draw(21, size=(240, 180)).mask, draw(21, size=(480, 360)).mask
    assert (one == two[::2, ::2]).mean() > 0.95


def test_only_known_classes_occur_and_each_of_them_does() -> None:
    ids = {int(i) for seed in range(24) for i in np.unique(small(seed).mask)}
    assert ids == set(CLASSES)


def test_scenes_hold_several_classes_in_regions_worth_the_name() -> None:
    for seed in range(12):
        shares = np.bincount(small(seed).mask.ravel()) / small(seed).mask.size
        assert (shares > 0.004).sum() >= 4
        assert shares.max() < 0.85


def test_colour_alone_does_not_give_the_classes_away() -> None:
    def pairs(seeds: range) -> list[tuple[Any, Any]]:
        return [(np.asarray(small(seed).image), small(seed).mask) for seed in seeds]

    assert colour_baseline(pairs(range(8, 24)), pairs(range(8))) < 0.5
    # On what it was fitted to it does better: the score does measure colour.
    assert colour_baseline(pairs(range(1)), pairs(range(1))) > 0.6


def test_held_out_seeds_never_meet_the_trainers() -> None:
    assert held_out(0, 0) == 0
    assert held_out(9_999, 999) < TRAINING.start
    for seed, number in ((10_000, 0), (-1, 0), (9_999, 1_000)):
        with pytest.raises(ValueError, match="out of range"):
            held_out(seed, number)


def test_the_shipped_scenes_are_those_of_their_seed() -> None:
    shipped = shipped_scenes(SHIPPED)
    assert [picture.name for picture in shipped] == [f"scene-1-{n}" for n in range(SHIPPED)]
    for one, drawn in zip(shipped, drawn_scenes(SHIPPED_SEED, SHIPPED), strict=True):
        assert one.truth is not None
        assert drawn.truth is not None
        assert (one.truth == drawn.truth).all()
        difference = np.asarray(one.image, dtype=int) - np.asarray(drawn.image)
        assert np.abs(difference).mean() < 8  # of 255: stored as WebP


def test_an_installed_package_says_where_other_scenes_come_from() -> None:
    program = (
        "import sys; sys.path[:] = [entry for entry in sys.path if not entry.endswith('tools')]\n"
        "from maskq_standalone.commands import pictures\n"
        "assert len(pictures.shipped_scenes(8)) == 8\n"
        "try: pictures.drawn_scenes(7, 3)\n"
        "except pictures.DrawingUnavailable as error: print(error)"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=DEMO)
    assert "needs a checkout of the maskq repository" in done.stdout


def test_score_counts_intersection_over_union_of_the_classes_in_the_truth() -> None:
    truth = np.array([[2, 2, 4, 4]], dtype=np.uint8)
    found = np.array([[2, 4, 4, 9]], dtype=np.uint8)
    assert class_iou(confusion([(truth, found)])) == {2: 1 / 2, 4: 1 / 3}
    assert mean_iou([(truth, found)]) == pytest.approx(5 / 12)
    assert mean_iou([(truth, truth)]) == 1.0
    with pytest.raises(ValueError, match="prediction"):
        mean_iou([(truth, found.T)])


@pytest.mark.slow
def test_checkpoint_loads_whole_and_names_the_150_classes() -> None:
    model, info = loaded()
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert not info[kind], kind
    labels = model.config.id2label
    assert len(labels) == len(set(labels.values())) == model.config.num_labels == 150
    known = {0: "wall", 2: "sky", 12: "person", 20: "car", 21: "water", 149: "flag"}
    assert {number: labels[number] for number in known} == known


@pytest.mark.slow
def test_checkpoint_segments_held_out_scenes() -> None:
    from transformers.models.dpt.image_processing_pil_dpt import DPTImageProcessorPil

    model, _ = loaded()
    processor = DPTImageProcessorPil.from_pretrained(CHECKPOINT)
    pairs = []
    for number, size in enumerate(SHAPES):
        scene = draw(held_out(91, number), size=size)
        with torch.inference_mode():
            outputs = model(**processor(images=scene.image, return_tensors="pt"))
        found = processor.post_process_semantic_segmentation(outputs, [scene.mask.shape])
        pairs.append((scene.mask, found[0].numpy()))
    # What the shipped weights reach, less some room for six scenes and other machines' arithmetic.
    assert mean_iou(pairs) >= 0.85
