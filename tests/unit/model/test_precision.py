"""MASKQ_PRECISION: figures are measured, a network without them is not served, float32 certifies."""

from __future__ import annotations

import json
import logging
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bench.checkpoints import write_smallest
from networks import network
from PIL import Image
from typer.testing import CliRunner, Result

from maskq.cli import build
from maskq.contract import Output
from maskq_worker.errors import PermanentError
from maskq_worker.model import ModelError, ModelOutput, Segmenter, load_segmenter, run_self_test
from maskq_worker.model.checkpoint.folder import Checkpoint, resolve
from maskq_worker.model.precision import choice, measure, store
from maskq_worker.model.precision.calibrate import calibrate
from maskq_worker.model.precision.measure import Measured, Overlap, Sample
from maskq_worker.model.precision.processor import half_precision_units
from maskq_worker.model.precision.rating import Rating
from maskq_worker.model.precision.store import Source
from maskq_worker.settings import WorkerSettings

CPU = torch.device("cpu")
UNCERTAIN = frozenset({Output.MASK, Output.UNCERTAIN})


def pictures(count: int, seed: int = 4) -> list[Image.Image]:
    """Smooth, each its own, 70x50 px."""
    draw = np.random.default_rng(seed)
    return [
        Image.fromarray(draw.integers(0, 256, (4, 5, 3), dtype=np.uint8)).resize(
            (70, 50), Image.Resampling.BICUBIC
        )
        for _ in range(count)
    ]


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose masks have several classes."""
    directory = write_smallest(tmp_path_factory.mktemp("models") / "tiny")
    sizes = {"hidden_size": 32, "neck_hidden_sizes": [16, 16, 16, 16], "fusion_hidden_size": 16}
    factors = {"patch_size": 8, "reassemble_factors": [2, 1, 0.5, 0.25]}
    network(torch.float32, image_size=32, **sizes, **factors).save_pretrained(directory)
    return directory


@pytest.fixture
def checkpoint(written: Path) -> Checkpoint:
    return resolve(str(written))


@pytest.fixture
def calibrated(checkpoint: Checkpoint) -> store.Record:
    """The figures of its bfloat16 network, in this test's cache."""
    return calibrate(checkpoint, pictures(30), dtype="bfloat16", threshold=0.5)


def change(checkpoint: Checkpoint, **values: Any) -> None:
    """In what was measured."""
    path = store.path_of(Source.of(checkpoint, "bfloat16", CPU))
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"measured": content["measured"] | values}))


def segmenter(written: Path, **settings: Any) -> Segmenter:
    return load_segmenter(WorkerSettings(model=str(written), device="cpu", **settings))


def outputs_of(one: Segmenter, images: list[Image.Image]) -> list[ModelOutput]:
    made = one.run([one.prepare(image, outputs=UNCERTAIN) for image in images])
    assert all(isinstance(output, ModelOutput) for output in made)
    return [output for output in made if isinstance(output, ModelOutput)]


# --- what is measured -------------------------------------------------------------------------------


def test_agreement_counts_pixels_of_all_images_together() -> None:
    overlap = Overlap()
    overlap.add(np.array([[0, 0], [1, 1]]), np.array([[0, 1], [1, 1]]))
    overlap.add(np.array([[2]]), np.array([[2]]))
    assert overlap.agreement == pytest.approx(4 / 5)
    assert overlap.miou == pytest.approx((1 / 2 + 2 / 3 + 1) / 3)


def test_a_class_that_only_the_other_sees_lowers_no_mean_by_itself() -> None:
    overlap = Overlap()
    overlap.add(np.zeros((2, 2), int), np.array([[0, 0], [0, 3]]))
    assert (overlap.agreement, overlap.miou) == (0.75, 0.75)


def flat(*margins: float) -> torch.Tensor:
    """Scores (1, 2, 1, n) of two classes: the first wins by these margins."""
    first = torch.tensor(margins)
    return torch.stack([first, torch.zeros_like(first)])[None, :, None]


def measured(exact: list[torch.Tensor], other: list[torch.Tensor]) -> Measured:
    """Of images without pixels: their scores come in the order of the calls."""
    width = exact[0].shape[-1]
    given = [Sample(np.full((1, width, 3), n, np.uint8), (1, width)) for n in range(len(exact))]
    return measure.measure(
        lambda pixels: exact[int(pixels.max())], lambda pixels: other[int(pixels.max())], given
    )


def both(first: float, second: float) -> torch.Tensor:
    """Scores (1, 2, 1, 1) of one pixel."""
    return torch.tensor([first, second])[None, :, None, None]


def test_the_bound_is_twice_the_worst_margin_of_a_pixel_that_differs() -> None:
    exact = [both(3.0, 0.0), both(0.0, 0.1), both(0.0, 0.1)]
    other = [both(3.0, 0.0), both(0.2, -0.1), both(0.2, 0.1)]  # each score is off by 0.2
    found = measured(exact, other)
    assert found.worst_margin == pytest.approx(0.3)
    assert found.largest_error == pytest.approx(0.2)
    assert found.uncertain_below == pytest.approx(0.6)
    assert (found.missed_pixels, found.uncertain_share) == (0, 0.0)
    assert found.agreement == pytest.approx(1 / 3)


def test_the_bound_is_at_least_twice_the_largest_error_of_a_score() -> None:
    exact = [flat(3.0, 0.3), flat(-0.1, 3.0), flat(3.0, -0.2)]
    other = [flat(3.0, 0.3), flat(0.1, 3.0), flat(3.0, 0.15)]
    found = measured(exact, other)
    assert found.worst_margin == pytest.approx(0.15)
    assert found.largest_error == pytest.approx(0.35)
    assert found.uncertain_below == pytest.approx(0.7)
    assert (found.missed_pixels, found.uncertain_share) == (0, 0.5)


def test_pixels_above_the_bound_that_differ_are_counted_on_other_images() -> None:
    same = [flat(3.0, 0.05)] * 2
    exact, other = [flat(-1.0, 3.0), *same], [flat(1.0, 0.05), flat(3.0, 0.1), flat(3.0, 0.1)]
    found = measured(exact, other)
    assert found.worst_margin == 0.0
    assert found.uncertain_below == pytest.approx(0.1)
    assert found.missed_pixels == 1


def test_scores_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ModelError, match="NaN or infinite"):
        measured([flat(1.0)] * 3, [flat(float("nan"))] * 3)


# --- what is stored ---------------------------------------------------------------------------------


def test_figures_are_stored_for_one_type_and_processor(
    checkpoint: Checkpoint, calibrated: store.Record
) -> None:
    assert calibrated.measured.images == 30
    assert 0.5 < calibrated.measured.agreement <= 1
    assert calibrated.measured.uncertain_below > 0
    assert store.load(checkpoint, "bfloat16", CPU, setting="") == calibrated
    assert store.find(checkpoint, "float16", CPU) is None


def test_too_few_images_are_refused(checkpoint: Checkpoint) -> None:
    with pytest.raises(ModelError, match="11 images are too few to measure bfloat16"):
        calibrate(checkpoint, pictures(11), dtype="bfloat16")


def test_damaged_figures_are_refused(checkpoint: Checkpoint, calibrated: store.Record) -> None:
    path = store.path_of(calibrated.source)
    for content in ("{", "{}", json.dumps({**json.loads(path.read_text()), "surprise": 1})):
        path.write_text(content)
        with pytest.raises(ModelError, match="is damaged"):
            store.find(checkpoint, "bfloat16", CPU)


def command(written: Path, folder: Path, *options: str) -> Result:
    arguments = ["weights", "calibrate", str(written), "--images", str(folder), *options]
    return CliRunner().invoke(build(), arguments)


def test_the_command_prints_what_it_stores(
    written: Path, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    for number, picture in enumerate(pictures(12)):
        picture.save(tmp_path / f"{number:02}.png")
    options = ("--dtype", "bfloat16", "--threshold")
    made = command(written, tmp_path, *options, "0.5", "--json")
    assert made.exit_code == 0, made.output
    stored = store.load(checkpoint, "bfloat16", CPU, setting="")
    assert json.loads(made.stdout)["measured"]["agreement"] == stored.measured.agreement
    change(checkpoint, agreement=0.4)
    with pytest.raises(ModelError, match=r"agrees with float32 in 40\.000%.*MASKQ_DTYPE=float32"):
        store.load(checkpoint, "bfloat16", CPU, setting="")


# --- what is served ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("backend", ["auto", "transformers"])
def test_half_precision_without_figures_is_refused_on_a_cpu(
    written: Path, dtype: str, backend: str
) -> None:
    with pytest.raises(
        ModelError, match=rf"MASKQ_DTYPE is {dtype}.*`maskq weights calibrate \S+ --dtype {dtype}"
    ):
        segmenter(written, dtype=dtype, backend=backend)


@pytest.mark.usefixtures("calibrated")
def test_half_precision_with_figures_is_served(written: Path) -> None:
    half = segmenter(written, dtype="bfloat16")
    assert (half.info.dtype, half.info.precision) == ("bfloat16", None)
    run_self_test(half)
    with pytest.raises(
        PermanentError, match="output uncertain needs a worker with MASKQ_PRECISION"
    ):
        half.prepare(pictures(1)[0], outputs=UNCERTAIN)
    [output] = half.run([half.prepare(pictures(1)[0])])
    assert isinstance(output, ModelOutput)
    assert output.uncertain_share is None


@pytest.mark.usefixtures("calibrated")
def test_figures_of_another_backend_do_not_count(written: Path) -> None:
    with pytest.raises(ModelError, match="was measured with backend cpu"):
        segmenter(written, dtype="bfloat16", backend="transformers")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"precision": "exact", "dtype": "bfloat16"}, "MASKQ_PRECISION is exact.*set only one"),
        ({"precision": "exact", "dtype": "int8"}, "MASKQ_PRECISION is exact.*set only one"),
        ({"precision": "fast", "dtype": "float32"}, "MASKQ_PRECISION is fast.*set only one"),
        ({"precision": "fast", "backend": "transformers"}, "MASKQ_BACKEND=auto"),
        ({"precision": "fast"}, "was not measured.*weights calibrate.*weights quantize"),
        ({"precision": "certified", "dtype": "float16"}, "was not measured in float16"),
    ],
)
def test_settings_that_cannot_be_served_say_what_to_do(
    written: Path, settings: dict[str, str], said: str
) -> None:
    with pytest.raises(ModelError, match=said):
        segmenter(written, **settings)


@pytest.mark.parametrize("precision", [None, "exact"])
def test_float32_is_exact_and_nothing_is_uncertain(written: Path, precision: Any) -> None:
    exact = segmenter(written, precision=precision)
    assert (exact.info.dtype, exact.info.precision) == ("float32", "exact")
    [output] = outputs_of(exact, pictures(1))
    assert output.uncertain is not None
    assert not output.uncertain.any()
    assert output.uncertain_share == 0.0


@pytest.mark.usefixtures("calibrated")
def test_fast_masks_are_float32_s_outside_the_uncertain_pixels(
    written: Path, calibrated: store.Record
) -> None:
    fast, exact = segmenter(written, precision="fast"), segmenter(written)
    assert (fast.info.dtype, fast.info.precision) == ("bfloat16", "fast")
    images = pictures(20, seed=8)  # others than those that were measured
    different = 0
    for ours, expected in zip(outputs_of(fast, images), outputs_of(exact, images), strict=True):
        assert ours.uncertain is not None
        differs = ours.mask != expected.mask
        different += int(differs.sum())
        assert not (differs & ~ours.uncertain).any()
        assert 0 < ours.uncertain.mean() < 1
        assert ours.uncertain_share == ours.uncertain.mean()
    assert different  # or the test would show nothing
    assert calibrated.measured.missed_pixels == 0


@pytest.mark.usefixtures("calibrated")
def test_a_bound_that_missed_pixels_is_refused(written: Path, checkpoint: Checkpoint) -> None:
    change(checkpoint, missed_pixels=3)
    with pytest.raises(ModelError, match=r"3 pixels .* differ from float32's above the bound"):
        segmenter(written, precision="fast")
    segmenter(written, dtype="bfloat16")  # its gate is the agreement


@pytest.mark.usefixtures("calibrated")
def test_certified_computes_images_with_many_uncertain_pixels_again(written: Path) -> None:
    fast, exact = segmenter(written, precision="fast"), segmenter(written)
    images = pictures(6, seed=9)
    shares = sorted(output.uncertain_share or 0.0 for output in outputs_of(fast, images))
    limit = (shares[2] + shares[3]) / 2
    certified = segmenter(written, precision="certified", max_uncertain_share=limit)
    run_self_test(certified)
    made = outputs_of(certified, images)
    assert Counter(one.info and one.info.dtype for one in made) == {"float32": 3, "bfloat16": 3}
    for output, expected in zip(made, outputs_of(exact, images), strict=True):
        assert output.info is not None
        assert output.info.precision == "certified"
        if output.info.is_exact:
            assert np.array_equal(output.mask, expected.mask)
            assert output.uncertain_share == 0.0
        else:
            assert (output.uncertain_share or 0.0) <= limit


def test_certified_computes_an_overflow_again() -> None:
    from maskq.contract import FailureCode

    rating = Rating(0.1, max_uncertain_share=0.5)
    assert rating.refuses(PermanentError(FailureCode.INTERNAL, "NaN"))
    assert not rating.refuses(PermanentError(FailureCode.OUT_OF_MEMORY, "too large"))
    output = ModelOutput(np.zeros((1, 2), np.uint8), None, None)
    assert not rating.refuses(replace(output, uncertain=np.array([[True, False]])))
    assert rating.refuses(replace(output, uncertain=np.array([[True, True]])))


# --- what is said -----------------------------------------------------------------------------------


@pytest.mark.parametrize("units", ["amx_bf16", None])
def test_auto_says_what_bfloat16_would_gain(
    written: Path,
    units: str | None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(choice, "half_precision_units", lambda _dtype: units)
    caplog.set_level(logging.INFO)
    assert segmenter(written).info.dtype == "float32"
    assert ("`maskq weights calibrate" in caplog.text) is (units is not None)


@pytest.mark.usefixtures("calibrated")
def test_a_cpu_that_gains_nothing_is_told_of(
    written: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(choice, "half_precision_units", lambda _dtype: None)
    segmenter(written, dtype="bfloat16")
    assert "slower than float32" in caplog.text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("flags : fpu avx512_bf16 amx_bf16", "amx_bf16"),
        ("flags : fpu avx512_bf16", "avx512_bf16"),
        ("flags : fpu avx2 avx512f", None),
    ],
)
def test_what_a_cpu_can_is_read_from_the_kernel(
    tmp_path: Path, text: str, expected: str | None
) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    assert half_precision_units("bfloat16", tmp_path / "cpuinfo") == expected
    assert half_precision_units("bfloat16", tmp_path / "none") is None
