"""8 bits on a CPU: the conversion is exact, figures are measured, a bad network is not served."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bench.checkpoints import write_smallest
from networks import HYBRID, network
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner, Result

from maskq.cli import build
from maskq.contract import Output
from maskq.contract.options import Mode
from maskq_worker.model import ModelOutput, load_segmenter, run_self_test
from maskq_worker.model.checkpoint.folder import Checkpoint, resolve
from maskq_worker.model.errors import ModelError
from maskq_worker.model.network import Network
from maskq_worker.model.openvino import cache, int8, runtime
from maskq_worker.model.openvino.backend import OpenVINOBackend
from maskq_worker.model.openvino.cache import Record, Source
from maskq_worker.model.openvino.convert import converted
from maskq_worker.model.openvino.load import load_openvino
from maskq_worker.model.precision.measure import measure, samples
from maskq_worker.model.preprocess.frame import Frame
from maskq_worker.model.preprocess.from_checkpoint import load_preprocessor
from maskq_worker.model.segmenter import NoContext
from maskq_worker.settings import WorkerSettings

pytestmark = pytest.mark.slow


def pictures(count: int, size: tuple[int, int] = (70, 50)) -> list[Image.Image]:
    """Smooth, each its own."""
    draw = np.random.default_rng(4)
    return [
        Image.fromarray(draw.integers(0, 256, (4, 5, 3), dtype=np.uint8)).resize(
            size, Image.Resampling.BICUBIC
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


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """25 images, and a file that is none."""
    root = tmp_path_factory.mktemp("photos")
    (root / "deeper").mkdir()
    for number, picture in enumerate(pictures(25)):
        picture.save(root / "deeper" / f"{number:02}.png")
    (root / "deeper" / "00-notes.txt").write_text("no image")
    return root


def quantized(written: Path, photos: Path, *options: str) -> Result:
    """The command's answer. It takes seconds."""
    command = ["weights", "quantize", str(written), "--images", str(photos), *options]
    return CliRunner().invoke(build(), command)


@pytest.fixture(scope="module")
def built(
    written: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Result]:
    """The cache that one `maskq weights quantize` of 24 images left, and the command's answer."""
    root = tmp_path_factory.mktemp("built")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(root))
        made = quantized(written, photos, "--threshold", "0.5", "--limit", "24", "--json")
    assert made.exit_code == 0, made.output
    return root, made


@pytest.fixture(scope="module")
def record(built: tuple[Path, Result]) -> Record:
    """What the command measured."""
    document = json.loads(built[1].stdout)
    return Record(**document | {"source": Source(**document["source"])})


@pytest.fixture
def served(built: tuple[Path, Result], written: Path, tmp_path: Path) -> Checkpoint:
    """Its checkpoint, with a copy of that cache in place."""
    shutil.copytree(built[0], tmp_path / "cache", dirs_exist_ok=True)
    return resolve(str(written))


# --- the conversion ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(64, 64), (64, 96), (128, 64)])
def test_a_converted_network_s_scores_are_its_own(size: tuple[int, int], written: Path) -> None:
    source = network(torch.float32)
    preprocessor = load_preprocessor(written)
    preprocessor.frame = Frame((64, 64))
    pixels = np.random.default_rng(1).integers(0, 256, (2, *size, 3), dtype=np.uint8)
    with torch.inference_mode():
        expected = Network(copy.deepcopy(source))(preprocessor.normalised(torch.from_numpy(pixels)))
    ours = OpenVINOBackend(converted(Network(source)), preprocessor, dtype=torch.float32)
    scores = ours.forward(pixels)
    assert scores.shape == expected.shape
    assert (scores - expected).abs().max() < 2e-5 * expected.abs().max()


def test_a_hybrid_is_refused() -> None:
    with pytest.raises(ModelError, match=r"DPT-Hybrid .*MASKQ_DTYPE=float32"):
        converted(Network(network(torch.float32, **HYBRID)))


# --- the figures ------------------------------------------------------------------------------------


def test_images_that_check_did_not_calibrate() -> None:
    images = [np.full((1, 1, 3), n, np.uint8) for n in range(13)]
    calibration, held_out = int8.split(images)
    assert sorted(int(one.max()) for one in calibration + held_out) == list(range(13))
    assert len(held_out) == 5
    with pytest.raises(ModelError, match="11 images are too few"):
        int8.split(images[:11])


def test_a_record_says_what_was_measured(record: Record, written: Path) -> None:
    assert (record.calibration_images, record.checked_images) == (16, 8)
    assert 0.5 < record.agreement <= 1
    assert 0 < record.miou <= 1
    assert f"{record.agreement:.3%} of the pixels of 8 images" in record.figures
    assert record.source.checkpoint == f"sha256:{resolve(str(written)).sha256}"


@pytest.mark.usefixtures("served")
def test_its_figures_are_those_of_the_network_that_is_served(
    served: Checkpoint, record: Record
) -> None:
    preprocessor = load_preprocessor(served.directory)
    _, held_out = int8.split(samples(preprocessor, pictures(24)))
    exact = load_segmenter(WorkerSettings(model=str(served.directory), device="cpu"))
    eight, _ = load_openvino(served, preprocessor)
    found = measure(exact.backend.forward, eight.forward, held_out)
    assert found.agreement == record.agreement
    assert found.miou == pytest.approx(record.miou)
    assert found.uncertain_below == pytest.approx(record.uncertain_below, rel=1e-3)


# --- what is served ---------------------------------------------------------------------------------


def test_a_worker_serves_it(served: Checkpoint) -> None:
    settings = {"model": str(served.directory), "device": "cpu", "max_score_bytes": 2**24}
    segmenter = load_segmenter(WorkerSettings(**settings, dtype="int8"))
    exact = load_segmenter(WorkerSettings(**settings))
    info = segmenter.info
    assert (info.backend, info.device, info.dtype) == ("openvino", "cpu", "int8")
    assert info.revision == exact.info.revision
    run_self_test(segmenter)
    asked = frozenset({Output.LOGITS, Output.CONFIDENCE})
    for mode in Mode:
        item = segmenter.prepare(pictures(1)[0], mode=mode, outputs=asked)
        [ours], [expected] = segmenter.run([item]), exact.run([item])
        assert not isinstance(ours, Exception)
        assert not isinstance(expected, Exception)
        assert (ours.mask == expected.mask).mean() > 0.7, mode
        assert ours.logits is not None
        assert expected.logits is not None
        assert not np.array_equal(ours.logits, expected.logits)  # these are 8 bits


@pytest.mark.parametrize("dtype", ["int8", "auto"])
def test_fast_rates_8_bits(served: Checkpoint, record: Record, dtype: str) -> None:
    settings = {"model": str(served.directory), "device": "cpu"}
    fast = load_segmenter(WorkerSettings(**settings, dtype=dtype, precision="fast"))
    exact = load_segmenter(WorkerSettings(**settings))
    assert (fast.info.dtype, fast.info.precision) == ("int8", "fast")
    assert record.missed_pixels == 0
    asked = frozenset({Output.UNCERTAIN})
    missed = different = 0
    for image in pictures(30)[24:]:  # neither calibrated nor checked
        [ours] = fast.run([fast.prepare(image, outputs=asked)])
        [expected] = exact.run([exact.prepare(image)])
        assert isinstance(ours, ModelOutput)
        assert isinstance(expected, ModelOutput)
        assert ours.uncertain is not None
        differs = ours.mask != expected.mask
        different += int(differs.sum())
        missed += int((differs & ~ours.uncertain).sum())
    assert (missed, different > 0) == (0, True)


def test_figures_of_an_older_version_rate_nothing(served: Checkpoint) -> None:
    path = cache.folder(cache.Source.of(served)) / cache.RECORD
    old = json.loads(path.read_text())
    for name in ("worst_margin", "uncertain_below", "uncertain_share", "missed_pixels"):
        del old[name]
    path.write_text(json.dumps(old))
    settings = {"model": str(served.directory), "device": "cpu", "dtype": "int8"}
    assert load_segmenter(WorkerSettings(**settings)).info.precision is None
    with pytest.raises(ModelError, match=r"older version.*`maskq weights quantize"):
        load_segmenter(WorkerSettings(**settings, precision="fast"))


def test_a_batch_keeps_its_scores_while_the_next_is_computed(served: Checkpoint) -> None:
    """OpenVINO's answer lies in memory that the next one takes."""
    settings = WorkerSettings(model=str(served.directory), device="cpu", dtype="int8")
    segmenter = load_segmenter(settings)
    items = [segmenter.prepare(one) for one in pictures(2)]
    alone = [mask_of(segmenter.run([item])) for item in items]
    pending = [segmenter.submit_batch([item], NoContext()) for item in items]
    for batch, mask in zip(pending, alone, strict=True):
        [output] = batch.wait()
        assert not isinstance(output, Exception)
        assert np.array_equal(mask_of([output.wait()]), mask)
    assert not np.array_equal(*alone)


def mask_of(outputs: Sequence[ModelOutput | Exception]) -> NDArray[Any]:
    [output] = outputs
    assert isinstance(output, ModelOutput)
    return output.mask


@pytest.mark.parametrize("chosen", [{"device": "cuda"}, {"backend": "transformers"}])
def test_int8_goes_with_nothing_but_a_cpu(served: Checkpoint, chosen: dict[str, str]) -> None:
    settings = WorkerSettings(model=str(served.directory), dtype="int8", **chosen)
    with pytest.raises(ModelError, match="MASKQ_DTYPE is int8, which is for CPUs"):
        load_segmenter(settings)


def test_without_one_the_command_is_named(written: Path) -> None:
    with pytest.raises(ModelError, match=r"`maskq weights quantize \S+ --images FOLDER`"):
        cache.load(resolve(str(written)))


def change(checkpoint: Checkpoint, **values: Any) -> Path:
    """In its record; returns the folder."""
    folder = cache.folder(cache.Source.of(checkpoint))
    path = folder / cache.RECORD
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    return folder


def test_below_the_threshold_it_is_refused(served: Checkpoint) -> None:
    change(served, agreement=0.979, threshold=0.98)
    with pytest.raises(ModelError, match=r"agrees with float32 in 97\.900%.*MASKQ_DTYPE=float32"):
        cache.load(served)


def test_figures_of_another_kind_of_cpu_do_not_count(
    served: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(served, dot_products=True)
    monkeypatch.setattr(runtime, "has_dot_products", lambda: False)
    with pytest.raises(ModelError, match="VNNI"):
        cache.load(served)


@pytest.mark.parametrize("has", [True, False])
def test_a_cpu_that_gains_nothing_is_told_of(
    served: Checkpoint, has: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    change(served, dot_products=False)
    monkeypatch.setattr(runtime, "has_dot_products", lambda: has)
    load_openvino(served, load_preprocessor(served.directory))
    assert ("no faster" in caplog.text) is not has


def test_a_damaged_network_is_refused(served: Checkpoint) -> None:
    weights = change(served) / cache.WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ModelError, match=r"int8\.bin is missing or damaged"):
        cache.load(served)
    change(served, surprise=1)
    with pytest.raises(ModelError, match="is damaged"):
        cache.load(served)


def test_another_preprocessing_is_another_network(served: Checkpoint, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(served.directory, other)
    path = other / "preprocessor_config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps(settings | {"image_mean": [0.4, 0.5, 0.5]}))
    with pytest.raises(ModelError, match="there is no 8-bit network of other"):
        cache.load(resolve(str(other)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("flags : fpu avx512_vnni sse", True),
        ("flags : fpu avx_vnni", True),
        ("Features : fp asimddp", True),
        ("flags : fpu avx2 avx512f", False),
    ],
)
def test_what_a_cpu_can_is_read_from_the_kernel(tmp_path: Path, text: str, expected: bool) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    assert runtime.has_dot_products(tmp_path / "cpuinfo") == expected


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ModelError, match=r"pip install 'maskq\[openvino\]'"):
        runtime.openvino()


def test_nothing_is_sent_anywhere() -> None:
    """Both send usage data at import, by a package that is then not there."""
    program = (
        "import sys, logging\n"
        "from maskq_worker.model.openvino import runtime\n"
        "runtime.openvino(), runtime.nncf()\n"
        "assert sys.modules['openvino_telemetry'] is None\n"
        "assert not [m for m in sys.modules if m.startswith('openvino_telemetry.')]\n"
        "assert logging.getLoggerClass() is logging.Logger\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


# --- the command ------------------------------------------------------------------------------------


def test_the_command_prints_what_it_keeps(
    served: Checkpoint, built: tuple[Path, Result], record: Record
) -> None:
    assert "00-notes.txt is skipped" in built[1].stderr
    assert record.calibration_images + record.checked_images == 24
    _, kept = cache.load(served)
    assert kept == record


def test_the_command_refuses_what_agrees_too_little(written: Path, photos: Path) -> None:
    refused = quantized(written, photos, "--threshold", "1.0", "--limit", "12")
    assert refused.exit_code == 1, refused.output
    assert "and needs 100.000%" in refused.stdout
    with pytest.raises(ModelError, match="agrees with float32"):
        cache.load(resolve(str(written)))
