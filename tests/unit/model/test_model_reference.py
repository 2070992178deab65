"""The model against transformers' own answers, on small networks of random weights."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoImageProcessor, DPTConfig, DPTForSemanticSegmentation
from transformers.models.dpt.image_processing_pil_dpt import DPTImageProcessorPil

from maskq.contract import FailureCode, Output
from maskq.contract.options import Mode
from maskq_worker.errors import PermanentError
from maskq_worker.model import (
    ModelError,
    Segmenter,
    load_segmenter,
    native_backend,
    run_self_test,
    warm_up,
)
from maskq_worker.model.checkpoint.labels import read_labels
from maskq_worker.model.checkpoint.loading import load_network
from maskq_worker.model.families.dpt import DPT
from maskq_worker.model.masks.comparison import untied_differences
from maskq_worker.model.precision.devices import choose_device
from maskq_worker.model.preprocess.from_checkpoint import load_preprocessor
from maskq_worker.model.segmenter import NoContext
from maskq_worker.settings import WorkerSettings

pytestmark = pytest.mark.slow

SIDE = 64  # px
LABELS = 150
Edit = Callable[[Path], None]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DPT of random weights in the hub's layout, with scores that differ from pixel to pixel."""
    directory = tmp_path_factory.mktemp("checkpoint") / "tiny-dpt"
    config = DPTConfig(
        image_size=SIDE,
        patch_size=16,
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=64,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[16, 16, 32, 32],
        fusion_hidden_size=16,
        id2label={index: f"label {index} " for index in range(LABELS)},
        label2id={f"label {index} ": index for index in range(LABELS)},
    )
    torch.manual_seed(7)
    network = DPTForSemanticSegmentation(config).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=2.0 / parameter[0].numel() ** 0.5)
    network.save_pretrained(directory)
    processor = DPTImageProcessorPil(
        size={"height": SIDE, "width": SIDE},
        resample=Image.Resampling.BILINEAR,
        image_mean=[0.5, 0.4, 0.3],
        image_std=[0.5, 0.6, 0.7],
    )
    processor.save_pretrained(directory)
    return directory


@pytest.fixture
def checkpoint(original: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(original, tmp_path / "tiny-dpt"))


def load(directory: Path, **settings: Any) -> Segmenter:
    return load_segmenter(WorkerSettings(model=str(directory), device="cpu", **settings))


def photo(width: int, height: int, seed: int = 3) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def transformers_answer(directory: Path, image: Image.Image) -> tuple[torch.Tensor, np.ndarray]:
    """Logits and mask by nothing but transformers."""
    processor = AutoImageProcessor.from_pretrained(directory, backend="pil")
    network = DPTForSemanticSegmentation.from_pretrained(directory, attn_implementation="sdpa")
    with torch.inference_mode():
        outputs = network.eval()(**processor(images=image, return_tensors="pt"))
        masks = processor.post_process_semantic_segmentation(
            outputs, target_sizes=[(image.height, image.width)]
        )
    return outputs.logits[0], masks[0].numpy()


def run_one(segmenter: Segmenter, image: Image.Image) -> Any:
    [output] = segmenter.run([segmenter.prepare(image, outputs=frozenset(Output))])
    assert not isinstance(output, Exception), output
    return output


def edit_json(name: str, **changes: Any) -> Edit:
    def edit(directory: Path) -> None:
        path = directory / name
        content = json.loads(path.read_text())
        path.write_text(json.dumps({**content, **changes}))

    return edit


def edit_weights(change: Callable[[dict[str, torch.Tensor]], None]) -> Edit:
    def edit(directory: Path) -> None:
        path = directory / "model.safetensors"
        weights = load_file(path)
        change(weights)
        save_file(weights, path, metadata={"format": "pt"})

    return edit


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


def test_a_batch_gives_each_image_its_own_mask(original: Path) -> None:
    segmenter = load(original)
    images = [photo(97, 61), photo(33, 80, seed=9), photo(64, 64, seed=10)]
    alone = [run_one(segmenter, image) for image in images]
    batch = segmenter.run([segmenter.prepare(image) for image in images])
    for one, together, image in zip(alone, batch, images, strict=True):
        assert not isinstance(together, Exception)
        assert together.mask.shape == (image.height, image.width)
        assert together.logits is None  # not asked for
        assert (together.mask == one.mask).mean() > 0.999  # a batch may round differently


@pytest.mark.parametrize("backend", ["transformers", "auto"])
def test_a_batch_keeps_its_scores_while_the_next_is_computed(original: Path, backend: str) -> None:
    segmenter = load(original, backend=backend)
    items = [segmenter.prepare(photo(40, 30, seed=seed)) for seed in (1, 2)]
    alone = [segmenter.run([item])[0].mask for item in items]
    pending = [segmenter.submit_batch([item], NoContext()) for item in items]
    for batch, mask in zip(pending, alone, strict=True):
        assert np.array_equal(batch.wait()[0].wait().mask, mask)


@dataclass
class Context:
    """What a batcher tells the model."""

    has_backlog: bool = False
    heartbeats: int = 0

    def heartbeat(self) -> None:
        self.heartbeats += 1


def test_each_forward_of_a_batch_gives_a_heartbeat(original: Path) -> None:
    segmenter, context = load(original, max_batch_size=2), Context()
    segmenter.submit_batch([segmenter.prepare(photo(64, 64), mode=Mode.MULTISCALE)], context)
    assert context.heartbeats == 3  # six views, of which two share each size


@pytest.mark.parametrize(
    ("backend", "has_backlog", "beside"),
    [("auto", True, True), ("auto", False, False), ("transformers", True, False)],
)
@pytest.mark.parametrize("small", [True, False])
def test_the_caller_computes_its_mask_when_the_batch_is_small_or_another_waits(
    original: Path,
    monkeypatch: pytest.MonkeyPatch,
    backend: str,
    has_backlog: bool,
    beside: bool,
    small: bool,
) -> None:
    # Given a model that is wanted for another forward, or is not
    if not small:
        monkeypatch.setattr("maskq_worker.model.pending._SMALL", 0)
    beside = beside or (small and backend == "auto")
    segmenter, drawn = load(original, backend=backend), list[int]()
    expected = segmenter.run([segmenter.prepare(photo(40, 30))])[0].mask
    real = segmenter.backend.mask

    def mask(*args: Any) -> Any:
        drawn.append(torch.get_num_threads())
        return real(*args)

    monkeypatch.setattr(segmenter.backend, "mask", mask)
    # When a batch has ended, and a thread asks for its mask
    context = Context(has_backlog=has_backlog)
    pending = segmenter.submit_batch([segmenter.prepare(photo(40, 30))], context)
    [pending_output] = pending.wait()
    assert len(drawn) == (not beside)
    before = torch.get_num_threads()
    with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(2,)) as asking:
        output = asking.submit(pending_output.wait).result()
    torch.set_num_threads(before)  # a thread's own, but also what later ones begin with
    # Then it is the same mask, drawn once; beside a forward by one thread
    assert np.array_equal(output.mask, expected)
    assert len(drawn) == 1
    if beside:
        assert drawn == [1]


def test_an_error_at_one_mask_stays_with_its_image(
    original: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = native_backend.upsampled_argmax

    def failing(logits: torch.Tensor, size: tuple[int, int]) -> Any:
        if size == (13, 13):
            raise MemoryError("no room")
        return real(logits, size)

    monkeypatch.setattr(native_backend, "upsampled_argmax", failing)
    segmenter = load(original)
    items = [segmenter.prepare(photo(width, 13)) for width in (20, 13, 20)]
    first, failed, last = segmenter.run(items)
    assert isinstance(failed, PermanentError)
    assert failed.code is FailureCode.OUT_OF_MEMORY
    assert np.array_equal(first.mask, last.mask)  # type: ignore[union-attr]


def test_scores_that_are_no_numbers_fail_only_their_own_image(
    original: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter = load(original)
    real = segmenter.backend.forward

    def forward(pixels: Any) -> torch.Tensor:
        scores = real(pixels).clone()
        scores[[not image.any() for image in pixels]] = torch.nan
        return scores

    monkeypatch.setattr(segmenter.backend, "forward", forward)
    good = segmenter.prepare(photo(20, 30))
    bad = segmenter.prepare(Image.new("RGB", (20, 30)))
    failed, output = segmenter.run([bad, good])
    assert isinstance(failed, PermanentError)
    assert "float32" in failed.message
    assert not isinstance(output, Exception)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_what_does_not_fit_the_device_says_so(
    original: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def forward(_: Any) -> None:
        raise error

    segmenter = load(original)
    monkeypatch.setattr(segmenter.backend, "forward", forward)
    with pytest.raises(PermanentError) as caught:
        segmenter.run([segmenter.prepare(photo(20, 30))])
    assert caught.value.code is FailureCode.OUT_OF_MEMORY


def test_the_cpu_s_allocator_says_what_is_looked_for(original: Path) -> None:
    """Its message is all there is to know it by."""
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        torch.empty(2**50, dtype=torch.uint8)


@pytest.mark.parametrize("backend", ["transformers", "auto"])
def test_a_sound_model_passes_its_self_test(original: Path, backend: str) -> None:
    segmenter = load(original, backend=backend)
    warm_up(segmenter)
    run_self_test(segmenter)
    segmenter.close()


@pytest.mark.parametrize(("device", "batches"), [("cpu", []), ("cuda", [1, 1, 3])])
def test_a_warm_up_is_for_gpus(
    original: Path, monkeypatch: pytest.MonkeyPatch, device: str, batches: list[int]
) -> None:
    """A CPU has nothing to record or to allocate ahead, and its self-test ran the model twice."""
    segmenter, seen = load(original, max_batch_size=3), []
    forward = segmenter.backend.forward

    def count(pixels: np.ndarray) -> torch.Tensor:
        seen.append(len(pixels))
        return forward(pixels)

    backend = SimpleNamespace(
        device=torch.device(device),
        forward=count,
        start_mask=segmenter.backend.start_mask,
        thread_safe_masks=False,
        warm_up=lambda batch: seen.append(f"graphs up to {batch}"),
    )
    monkeypatch.setattr(segmenter, "backend", backend)
    warm_up(segmenter)
    assert seen == ["graphs up to 3", *batches]


def test_the_self_test_sees_a_wrong_mask(original: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = native_backend.upsampled_argmax
    monkeypatch.setattr(
        native_backend,
        "upsampled_argmax",
        lambda logits, size: np.roll(real(logits, size), 1, axis=1),  # a pixel to the right
    )
    with pytest.raises(ModelError, match=r"differs from transformers' own in \d+ pixels"):
        run_self_test(load(original))


def test_the_self_test_sees_scores_that_change(
    original: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter = load(original)
    real, calls = segmenter.backend.forward, iter(range(9))

    def forward(pixels: Any) -> torch.Tensor:
        return real(pixels).roll(next(calls), dims=1)

    monkeypatch.setattr(segmenter.backend, "forward", forward)
    with pytest.raises(ModelError, match="two masks for one image"):
        run_self_test(segmenter)


def test_the_self_test_sees_weights_that_are_no_numbers(checkpoint: Path) -> None:
    edit_weights(lambda weights: weights["head.head.4.bias"].fill_(float("nan")))(checkpoint)
    with pytest.raises(ModelError, match="NaN or infinite"):
        run_self_test(load(checkpoint))


def test_the_self_test_sees_labels_that_do_not_fit(checkpoint: Path) -> None:
    segmenter = load(checkpoint)
    object.__setattr__(segmenter.info, "labels", ("wall", "sky"))
    with pytest.raises(ModelError, match="for 2 labels"):
        run_self_test(segmenter)


def without(*names: str) -> Edit:
    return edit_weights(
        lambda weights: [weights.pop(n) for n in list(weights) if n.startswith(names)].clear()
    )


def added(name: str) -> Edit:
    return edit_weights(lambda weights: weights.update({name: torch.zeros(2)}))


@pytest.mark.parametrize(
    "edit",
    [
        without("neck.fusion_stage.layers.0.residual_layer1."),  # as in Intel's checkpoint
        without("auxiliary_head."),
        added("dpt.pooler.dense.bias"),
    ],
)
def test_weights_that_do_not_touch_the_scores_may_differ(
    original: Path, checkpoint: Path, edit: Edit
) -> None:
    edit(checkpoint)
    ours, expected = (run_one(load(path), photo(40, 30)) for path in (checkpoint, original))
    assert np.array_equal(ours.logits, expected.logits)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (without("head.head.4.weight"), r"lacks 1 weights, head\.head\.4\.weight"),
        (without("dpt.encoder.layer.2."), r"lacks 16 weights"),
        (added("dpt.encoder.layer.4.layernorm_before.bias"), "no place for"),
        (edit_json("config.json", num_hidden_layers=3, backbone_out_indices=[0, 1, 1, 2]), "no place"),
        (edit_json("config.json", fusion_hidden_size=8), "does not fit its config.json: .* has shape"),
        (edit_json("config.json", model_type="segformer"), "holds DPTForSemanticSegmentation; maskq"),
        (edit_json("config.json", architectures=["DPTForDepthEstimation"]), "DPTForDepthEstimation"),
        (edit_json("config.json", id2label={"wall": 0}), "id2label|could not be loaded"),
        (lambda path: (path / "config.json").unlink(), "config.json is missing"),
        (lambda path: (path / "config.json").write_text("{"), "cannot be read"),
        (lambda path: (path / "preprocessor_config.json").unlink(), "is missing"),
        (lambda path: (path / "model.safetensors").unlink(), "has no weights"),
        (lambda path: (path / "model.safetensors").write_bytes(b"version https"), "could not be"),
        (
            lambda path: (path / "model.safetensors").rename(path / "pytorch_model.bin"),
            "maskq weights convert",
        ),
    ],
)  # fmt: skip
def test_a_checkpoint_that_is_not_right_is_refused_in_one_sentence(
    checkpoint: Path, edit: Edit, said: str
) -> None:
    edit(checkpoint)
    with pytest.raises(ModelError, match=said) as caught:
        load(checkpoint)
    assert "\n" not in str(caught.value)
    assert "tiny-dpt" in str(caught.value)


def test_loading_is_silent(original: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load(original)
    assert capfd.readouterr() == ("", "")


def test_weights_in_several_files(checkpoint: Path, original: Path) -> None:
    (checkpoint / "model.safetensors").unlink()
    DPTForSemanticSegmentation.from_pretrained(original).save_pretrained(
        checkpoint, max_shard_size="60KB"
    )
    assert len(list(checkpoint.glob("model-*.safetensors"))) > 1
    ours, expected = (run_one(load(path), photo(40, 30)) for path in (checkpoint, original))
    assert np.array_equal(ours.logits, expected.logits)

    next(checkpoint.glob("model-*.safetensors")).unlink()
    with pytest.raises(ModelError, match="is incomplete"):
        load(checkpoint)


def test_a_gpu_that_is_asked_for_is_never_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto").type == "cpu"
    with pytest.raises(ModelError, match="torch finds no GPU"):
        choose_device("cuda")
    with pytest.raises(ModelError, match="expected auto, cpu or cuda"):
        choose_device("cuda:1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert str(choose_device("auto")) == str(choose_device("cuda")) == "cuda:0"


def test_the_verbosity_of_transformers_is_left_as_it_was(original: Path) -> None:
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    load_network(original, torch.float32, DPT)
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


def test_labels_do_not_need_torch(original: Path) -> None:
    code = (
        "import sys; import maskq_worker.model, maskq_worker.model.checkpoint.labels as labels;"
        "from pathlib import Path;"
        f"assert labels.read_labels(Path({str(original)!r}))[2] == 'label 2';"
        "assert not {'torch', 'transformers'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert read_labels(original)[2] == "label 2"
