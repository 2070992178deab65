"""The CUDA backend as far as a CPU goes: the network around the graphs, and its fallbacks."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import networks
import numpy as np
import pytest
import torch
from cards import capture, seconds
from numpy.typing import NDArray
from PIL import Image
from support import cuda_on_cpu
from support.cuda_on_cpu import BF16, CPU, FP16, FP32, H200, SIDE, T4
from transformers.models.dpt.image_processing_pil_dpt import DPTImageProcessorPil

from maskq.contract import Output
from maskq.contract.options import Mode
from maskq_worker.model import ModelError, Segmenter, run_self_test, warm_up
from maskq_worker.model.checkpoint.folder import Checkpoint
from maskq_worker.model.cuda import backend as backend_module
from maskq_worker.model.cuda import coarse as coarse_module
from maskq_worker.model.cuda import load
from maskq_worker.model.cuda.backend import CudaBackend, PendingDeviceMask
from maskq_worker.model.cuda.coarse import coarse
from maskq_worker.model.cuda.graphs import Captured, Compute, Graphs
from maskq_worker.model.cuda.load import load_cuda
from maskq_worker.model.cuda.normalise import Normalise
from maskq_worker.model.loader import describe
from maskq_worker.model.masks.bounded import mask_with_confidence, mask_with_uncertain
from maskq_worker.model.native_backend import NativeBackend
from maskq_worker.model.network import Network
from maskq_worker.model.network.rewrites import upsample
from maskq_worker.model.preprocess.from_checkpoint import load_preprocessor
from maskq_worker.model.preprocess.preprocessor import Preprocessor
from maskq_worker.model.segmenter import NoContext

pytestmark = pytest.mark.slow

flags = cuda_on_cpu.flags
one_thread = cuda_on_cpu.one_thread

# The network around the graphs.


def network() -> Any:
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "neck_hidden_sizes": [8, 8, 8, 8]}
    factors = {"patch_size": 8, "reassemble_factors": [2, 1, 0.5, 0.25], "fusion_hidden_size": 8}
    return networks.network(
        FP32, image_size=SIDE, use_batch_norm_in_fusion_residual=True, **sizes, **factors
    )


@pytest.fixture(scope="module")
def preprocessor(tmp_path_factory: pytest.TempPathFactory) -> Preprocessor:
    directory = tmp_path_factory.mktemp("checkpoint")
    DPTImageProcessorPil(
        size={"height": SIDE, "width": SIDE}, image_mean=[0.5, 0.4, 0.3], image_std=[0.2, 0.3, 0.4]
    ).save_pretrained(directory)
    return load_preprocessor(Path(directory))


def cuda(preprocessor: Preprocessor) -> CudaBackend:
    return load_cuda(Network(network()), preprocessor, device=CPU, dtype="auto")


def photos(count: int, height: int = SIDE, width: int = SIDE) -> NDArray[np.uint8]:
    shape = (count, height, width, 3)
    return np.random.default_rng(9).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("dtype", [FP32, FP16, BF16])
def test_pixels_are_normalised_as_the_processor_does(
    preprocessor: Preprocessor, dtype: torch.dtype
) -> None:
    pixels = torch.from_numpy(photos(2, 20, 30))
    ours = Normalise(preprocessor, CPU, dtype)(pixels)
    assert torch.equal(ours, preprocessor.normalised(pixels).to(dtype))
    assert ours.is_contiguous(memory_format=torch.channels_last)


def test_upsampling_after_the_network_changes_nothing() -> None:
    values = torch.randn(2, 3, SIDE, 2 * SIDE, generator=torch.Generator().manual_seed(1))
    whole = Network(network())
    with torch.inference_mode():
        expected = whole(values)
        small = coarse(whole)(values)
        assert small.shape == (2, 7, SIDE // 2, SIDE)
        assert torch.equal(upsample(small), expected)
        assert torch.equal(coarse(whole)(values), small)  # twice is once


@pytest.mark.parametrize("room", [1, 2, 3, 9])  # images a call
def test_a_batch_too_large_for_one_call_is_upsampled_in_parts(
    monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    values = torch.randn(4, 3, 5, 6, generator=torch.Generator().manual_seed(1))
    monkeypatch.setattr(coarse_module, "_INDEXED", room * 4 * values[0].numel() + 1)
    assert torch.equal(coarse_module.upsampled(values), upsample(values))


@pytest.mark.usefixtures("flags")
@pytest.mark.parametrize("captured", [False, True], ids=["eager", "graphs"])
@pytest.mark.parametrize("count", [1, 3, 4])
@pytest.mark.parametrize("size", [(SIDE, SIDE), (SIDE, 2 * SIDE)])
def test_its_answers_are_the_rewritten_network_s(
    preprocessor: Preprocessor, captured: bool, count: int, size: tuple[int, int]
) -> None:
    ours = cuda(preprocessor)
    if captured:
        ours.capture(4, capture, seconds)
    plain = NativeBackend(Network(network()), preprocessor, name="cpu", device=CPU, dtype=FP32)
    pixels = photos(count, *size)
    scores, expected = ours.forward(list(pixels)), plain.forward(pixels)
    assert scores.dtype == FP32
    # A batch of another size may be computed in another order.
    assert (scores - expected).abs().max() < 1e-5 * expected.abs().max()
    for one in scores:
        assert np.array_equal(ours.mask(one, (50, 70)), plain.mask(one, (50, 70)))


@pytest.mark.usefixtures("flags")
def test_scores_outlive_the_next_forward(preprocessor: Preprocessor) -> None:
    """A graph writes where it wrote before; what was given away may not change with it."""
    ours = cuda(preprocessor)
    ours.capture(4, capture, seconds)
    scores = ours.forward(photos(2))
    before = scores.clone()
    ours.forward(255 - photos(2))
    assert torch.equal(scores, before)


@pytest.mark.usefixtures("flags")
def test_graphs_are_for_squares_only(preprocessor: Preprocessor) -> None:
    ours = cuda(preprocessor)
    ours.capture(4, capture, seconds)
    assert ours.graphs
    taken: list[int] = []
    plain = ours.graphs.__class__.__call__

    def noted(self: Graphs, pixels: torch.Tensor) -> torch.Tensor:
        taken.append(len(pixels))
        return plain(self, pixels)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Graphs, "__call__", noted)
        ours.forward(photos(2, SIDE, 2 * SIDE))
        assert taken == []
        ours.forward(photos(2))
        assert taken == [2]


@pytest.mark.usefixtures("flags")
def test_where_nothing_can_be_captured_forwards_stay_eager(
    preprocessor: Preprocessor, caplog: pytest.LogCaptureFixture
) -> None:
    def never(compute: Compute, pixels: torch.Tensor) -> Captured:
        raise RuntimeError("operation not permitted when stream is capturing")

    ours = cuda(preprocessor)
    expected = ours.forward(photos(2))
    with caplog.at_level(logging.WARNING):
        ours.capture(4, never, seconds)
    last = caplog.records[-1]
    assert last.name == backend_module.__name__
    assert last.getMessage() == (
        "no CUDA graph could be captured: forwards are started kernel by kernel"
    )
    assert torch.equal(ours.forward(photos(2)), expected)


@pytest.mark.usefixtures("flags")
@pytest.mark.parametrize("confidence", [False, True])
@pytest.mark.parametrize("logits", [False, True])
@pytest.mark.parametrize("below", [None, 0.01])
def test_an_answer_has_what_was_asked_for(
    preprocessor: Preprocessor, confidence: bool, logits: bool, below: float | None
) -> None:
    ours = cuda(preprocessor)
    [scores] = ours.forward(photos(1))
    answer = ours.start_mask(
        scores, (50, 70), confidence=confidence, logits=logits, uncertain_below=below
    ).wait()
    mask, sure = mask_with_confidence(scores, (50, 70))
    assert answer
    assert np.array_equal(answer.mask, mask)
    assert answer.mask.dtype == np.uint8
    assert (answer.confidence is not None) == confidence
    assert (answer.logits is not None) == logits
    assert (answer.uncertain is not None) == (below is not None)
    if answer.uncertain is not None:
        assert np.array_equal(answer.uncertain, mask_with_uncertain(scores, (50, 70), 0.01)[1])
    if answer.confidence is not None:
        assert np.array_equal(answer.confidence, sure)
    if answer.logits is not None:
        assert np.array_equal(answer.logits, scores.numpy())


@pytest.mark.usefixtures("flags")
def test_scores_that_are_no_numbers_are_told(preprocessor: Preprocessor) -> None:
    ours = cuda(preprocessor)
    for value in (np.nan, np.inf):
        scores = torch.zeros(7, 4, 4)
        scores[3, 2, 1] = value
        assert ours.start_mask(scores, (8, 8)).wait() is None


def picture(width: int, height: int, seed: int) -> Image.Image:
    levels = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(levels).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.usefixtures("flags")
@pytest.mark.parametrize("captured", [False, True], ids=["eager", "graphs"])
def test_a_segmenter_gives_every_image_of_a_batch_its_own(
    preprocessor: Preprocessor, captured: bool, tmp_path: Path
) -> None:
    """More views than a forward takes: the graph of the first runs again while its scores are held."""
    ours = cuda(preprocessor)
    if captured:
        ours.capture(2, capture, seconds)
    plain = NativeBackend(Network(network()), preprocessor, name="cpu", device=CPU, dtype=FP32)
    sound, expected = (segmenter_of(one, preprocessor, tmp_path) for one in (ours, plain))
    run_self_test(sound)
    modes = [Mode.WHOLE, Mode.TILED, Mode.WHOLE, Mode.MULTISCALE, Mode.ASPECT, Mode.WHOLE]
    asked = frozenset({Output.LOGITS, Output.CONFIDENCE})
    items = [
        sound.prepare(picture(70, 50, seed), mode=mode, outputs=asked if seed % 2 else frozenset())
        for seed, mode in enumerate(modes)
    ]
    for one, other in zip(sound.run(items), expected.run(items), strict=True):
        assert not isinstance(one, Exception)
        assert not isinstance(other, Exception)
        assert (one.mask != other.mask).mean() < 1e-3  # sums in another order
        assert (one.logits is None) == (other.logits is None)
        if one.logits is not None and other.logits is not None:
            np.testing.assert_allclose(one.logits, other.logits, atol=1e-4)
        assert (one.confidence is None) == (other.confidence is None)


def segmenter_of(
    backend: Any, preprocessor: Preprocessor, directory: Path, on_device_lost: Any = None
) -> Segmenter:
    network().save_pretrained(directory)
    return Segmenter(
        describe(Checkpoint(directory, "tiny", "1"), backend, preprocessor),
        backend,
        preprocessor,
        max_batch_size=2,
        max_score_bytes=2**24,
        multiple=32,
        on_device_lost=on_device_lost,
    )


@pytest.mark.usefixtures("flags")
def test_submit_batch_does_not_wait_for_the_masks(
    preprocessor: Preprocessor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, waited = cuda(preprocessor), []
    wait = PendingDeviceMask.wait

    def noted_wait(mask: PendingDeviceMask) -> Any:
        waited.append(1)
        return wait(mask)

    monkeypatch.setattr(PendingDeviceMask, "wait", noted_wait)
    segmenter = segmenter_of(ours, preprocessor, tmp_path)
    items = [segmenter.prepare(picture(70, 50, seed)) for seed in range(2)]
    batch = segmenter.submit_batch(items, NoContext())
    assert waited == []
    arrived = batch.wait()
    assert waited == [1, 1]
    assert [one.wait().mask.shape for one in arrived] == [(50, 70)] * 2
    assert waited == [1, 1]


@pytest.mark.usefixtures("flags")
@pytest.mark.parametrize(
    ("said", "raised"),
    [
        ("CUDA error: invalid configuration argument", ModelError),  # the next start fails, too
        ("CUDA error: an illegal memory access was encountered", RuntimeError),
    ],
)
def test_a_warm_up_that_fails_says_of_what(
    preprocessor: Preprocessor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    said: str,
    raised: type[Exception],
) -> None:
    ours = cuda(preprocessor)

    def fail(max_batch_size: int) -> None:
        raise RuntimeError(said)

    monkeypatch.setattr(ours, "warm_up", fail)
    with pytest.raises(raised, match=said) as caught:
        warm_up(segmenter_of(ours, preprocessor, tmp_path))
    assert type(caught.value) is raised
    if raised is ModelError:
        assert "in batches of 2" in str(caught.value)


@pytest.mark.usefixtures("flags")
@pytest.mark.parametrize("place", ["forward", "start_mask", "wait"])
def test_a_lost_card_is_told_and_the_batch_is_not_run_again_in_parts(
    preprocessor: Preprocessor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    ours, told, runs = cuda(preprocessor), [], []

    def lost(*_: Any, **__: Any) -> Any:
        runs.append(place)
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nCompile with")

    monkeypatch.setattr(PendingDeviceMask if place == "wait" else ours, place, lost)
    segmenter = segmenter_of(ours, preprocessor, tmp_path, lambda device, _: told.append(device))
    with pytest.raises(RuntimeError, match="illegal memory"):
        segmenter.run([segmenter.prepare(picture(70, 50, seed)) for seed in range(2)])
    assert told == ["cpu"]
    assert len(runs) == 1 + (place == "start_mask")  # there an error is at first the image's


# Loading.


@pytest.mark.usefixtures("flags")
@pytest.mark.parametrize(("dtype", "expected"), [("float16", FP16), ("bfloat16", FP16)])
def test_what_a_card_lacks_falls_back_and_the_log_says_so(
    preprocessor: Preprocessor,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    dtype: str,
    expected: torch.dtype,
) -> None:
    monkeypatch.setattr(load, "capability", lambda device: T4)
    with caplog.at_level(logging.WARNING):
        ours = load_cuda(Network(network()), preprocessor, device=CPU, dtype=dtype)
    assert ours.dtype == expected
    assert [record.getMessage() for record in caplog.records] == (
        []
        if dtype == "float16"
        else [
            "MASKQ_DTYPE is bfloat16: compute capability 7.5 has no bfloat16 (8.0 and later have it): "
            "float16 instead"
        ]
    )


@pytest.mark.usefixtures("flags")
@pytest.mark.parametrize(
    ("card", "scale", "expected"),
    [(H200, 1.0, FP16), (H200, 1e5, BF16), (T4, 1.0, FP16), (T4, 1e5, torch.float32)],
)
def test_auto_takes_the_half_precision_whose_masks_agree_most(
    preprocessor: Preprocessor,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    card: tuple[int, int],
    scale: float,
    expected: torch.dtype,
) -> None:
    """Scaled up by one layer and down by the next: what lies between overflows fp16."""
    monkeypatch.setattr(load, "capability", lambda device: card)
    source = network()
    with torch.no_grad():
        source.head.head[0].weight *= scale
        source.head.head[4].weight /= scale
        source.head.head[1].bias *= scale
    with caplog.at_level(logging.INFO):
        ours = load_cuda(Network(source), preprocessor, device=CPU, dtype="auto")
    assert ours.dtype == expected
    assert "share of scores with the same best class as float32" in caplog.text
    assert ours.forward(photos(1)).isfinite().all()


@pytest.mark.usefixtures("flags")
def test_the_classifier_stays_in_float32_and_float32_is_no_tf32(
    preprocessor: Preprocessor,
) -> None:
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    ours = load_cuda(Network(network()), preprocessor, device=CPU, dtype="float16")
    types = {name: value.dtype for name, value in ours.network.named_parameters()}
    assert types.pop("head.classifier.weight") == types.pop("head.classifier.bias") == FP32
    assert set(types.values()) == {FP16}
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32
