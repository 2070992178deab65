"""The CUDA backend as far as a CPU goes: its choices, its graphs with a stand-in, its fallbacks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import networks
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers.models.dpt.image_processing_pil_dpt import DPTImageProcessorPil

from maskq.contract import Output
from maskq.contract.jobs import Mode
from maskq_worker.model import ModelError, Segmenter
from maskq_worker.model.backends import Rewritten
from maskq_worker.model.checkpoint import Checkpoint
from maskq_worker.model.cuda import Cuda, load, load_cuda, masks, precision, transfer
from maskq_worker.model.cuda import backend as backend_module
from maskq_worker.model.cuda import coarse as coarse_module
from maskq_worker.model.cuda import graphs as graphs_module
from maskq_worker.model.cuda.buckets import Plan, bucket_sizes
from maskq_worker.model.cuda.coarse import coarse
from maskq_worker.model.cuda.faults import is_fault
from maskq_worker.model.cuda.graphs import Captured, Compute, Graphs
from maskq_worker.model.cuda.masks import Drawn, Masks
from maskq_worker.model.cuda.normalise import Normalise
from maskq_worker.model.cuda.transfer import Download, Upload
from maskq_worker.model.masks import mask_with_confidence, upsampled_argmax
from maskq_worker.model.network import Network
from maskq_worker.model.network.rewrites import upsample
from maskq_worker.model.preprocess import Preprocessor

CPU = torch.device("cpu")
FP32, FP16, BF16 = torch.float32, torch.float16, torch.bfloat16
T4, L4, H200, P100 = (7, 5), (8, 9), (9, 0), (6, 0)
SIDE = 32


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Several would only wait for one another on networks as small as these."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def _flags() -> Iterator[None]:
    """What `load_cuda` sets is the process's."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


# Precision.


@pytest.mark.parametrize(
    ("capability", "requested", "expected"),
    [
        (T4, "auto", (FP16,)),
        (L4, "auto", (FP16, BF16)),
        (H200, "auto", (FP16, BF16)),
        ((12, 0), "auto", (FP16, BF16)),
        (P100, "auto", (FP32,)),
        (T4, "float32", (FP32,)),
        (H200, "float32", (FP32,)),
        (T4, "float16", (FP16,)),
        (P100, "float16", (FP16,)),  # asked for, and there, if slow
        (H200, "bfloat16", (BF16,)),
        ((8, 0), "bfloat16", (BF16,)),
    ],
)
def test_what_a_card_computes_in(
    capability: tuple[int, int], requested: str, expected: tuple[torch.dtype, ...]
) -> None:
    assert precision.choose(capability, requested) == precision.Choice(expected)


@pytest.mark.parametrize(("capability", "instead"), [(T4, FP16), (P100, FP32)])
def test_bfloat16_that_a_card_lacks_is_replaced_and_that_is_said(
    capability: tuple[int, int], instead: torch.dtype
) -> None:
    choice = precision.choose(capability, "bfloat16")
    assert choice.dtypes == (instead,)
    assert f"{capability[0]}.{capability[1]} has no bfloat16" in choice.missing
    assert precision.name(instead) in choice.missing


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        ({FP16: 0.999, BF16: 0.99}, FP16),
        ({FP16: 0.99, BF16: 0.999}, BF16),
        ({FP16: 0.99, BF16: 0.99}, FP16),  # of equals the first
        ({FP16: None, BF16: 0.9}, BF16),  # it overflows
        ({FP16: 0.1, BF16: None}, FP16),
        ({FP16: None, BF16: None}, FP32),
    ],
)
def test_measured_agreement_decides(
    measured: dict[torch.dtype, float | None], expected: torch.dtype
) -> None:
    assert precision.best(measured) == expected


def test_agreement_is_the_share_of_places_with_the_same_class() -> None:
    exact = torch.tensor([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]]).view(1, 2, 2, 2)
    scores = exact.clone()
    assert precision.agreement(scores, exact) == 1.0
    scores[0, :, 0, 0] = torch.tensor([2.0, 3.0])
    assert precision.agreement(scores, exact) == 0.75
    scores[0, 0, 1, 1] = torch.nan
    assert precision.agreement(scores, exact) is None


# Batches and graphs.


@pytest.mark.parametrize(
    ("largest", "expected"),
    [(1, (1,)), (2, (1, 2)), (5, (1, 2, 4, 5)), (16, (1, 2, 4, 8, 16)), (24, (1, 2, 4, 8, 16, 24))],
)
def test_buckets_are_powers_of_two_and_the_largest_batch(
    largest: int, expected: tuple[int, ...]
) -> None:
    assert bucket_sizes(largest) == expected


STEEP = {1: 1.0, 2: 2.0, 4: 4.0, 8: 8.0}  # a card that is full with one image
FLAT = {1: 5.0, 2: 5.2, 4: 5.5, 8: 6.0}  # one that idles


@pytest.mark.parametrize(
    ("seconds", "images", "expected"),
    [
        (STEEP, 1, [(1, 1)]),
        (STEEP, 8, [(8, 8)]),
        (STEEP, 5, [(4, 4), (1, 1)]),
        (STEEP, 7, [(4, 4), (2, 2), (1, 1)]),
        (FLAT, 5, [(8, 5)]),
        (FLAT, 3, [(4, 3)]),
        (FLAT, 9, [(8, 8), (1, 1)]),
        ({1: 3.0, 2: 4.0}, 5, [(2, 2), (2, 2), (1, 1)]),  # larger ones could not be captured
        ({4: 4.0}, 1, [(4, 1)]),  # nor smaller ones
        ({1: 1.0, 2: 2.0, 4: 9.0}, 4, [(2, 2), (2, 2)]),  # of equals the fewest parts
    ],
)
def test_a_batch_is_cut_as_costs_least(
    seconds: dict[int, float], images: int, expected: list[tuple[int, int]]
) -> None:
    plan = Plan(seconds)
    parts = plan.split(images)
    assert sum(seconds[bucket] for bucket, _ in parts) == sum(seconds[b] for b, _ in expected)
    assert sorted(parts) == sorted(expected)
    assert plan.split(images) == parts


def scores_of(pixels: torch.Tensor) -> torch.Tensor:
    """A stand-in for the network: (N, 2, H, W), each image's own."""
    values = pixels.float()
    return torch.stack([values[..., 0] - values[..., 1], values.sum(dim=3)], dim=1)


def capture(compute: Compute, pixels: torch.Tensor) -> Captured:
    """As a graph behaves: it reads and writes the same memory every time."""
    scores = compute(pixels).clone()
    return Captured(lambda: scores.copy_(compute(pixels)), scores)


def seconds(run: Callable[[], object]) -> float:
    run()
    return 1.0


def graphs(
    buckets: Sequence[int] = (1, 2, 4),
    *,
    compute: Compute = scores_of,
    capture: Any = capture,
    costs: Any = seconds,
) -> Graphs:
    return Graphs(compute, buckets, 8, CPU, capture=capture, seconds=costs)


def images(count: int, side: int = 8, *, seed: int = 1) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, side, side, 3), generator=draw).to(torch.uint8)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 9])
@pytest.mark.parametrize("per_image", [0.0, 1.0])  # padded, or in parts
def test_graphs_give_every_image_its_own_scores(count: int, per_image: float) -> None:
    costs = iter([1.0 + 4 * per_image, 1.0 + 2 * per_image, 1.0 + per_image])
    all_graphs = graphs(costs=lambda run: next(costs))
    for seed in range(3):  # what the run before left does not matter
        pixels = images(count, seed=seed)
        assert torch.equal(all_graphs(pixels), scores_of(pixels))


def test_a_batch_is_padded_where_that_is_cheaper() -> None:
    runs: list[int] = []

    def counted(compute: Compute, pixels: torch.Tensor) -> Captured:
        captured = capture(compute, pixels)

        def replay() -> None:
            runs.append(len(pixels))
            captured.replay()

        return Captured(replay, captured.scores)

    padded = graphs(capture=counted, costs=lambda run: 1.0)
    runs.clear()
    assert len(padded(images(3))) == 3
    assert runs == [4]


def test_large_batches_are_captured_first() -> None:
    """Graphs share memory: the small ones then fit into what the large one took."""
    order: list[int] = []

    def noted(compute: Compute, pixels: torch.Tensor) -> Captured:
        order.append(len(pixels))
        return capture(compute, pixels)

    graphs((1, 2, 8, 4), capture=noted)
    assert order == [8, 4, 2, 1]


def test_graphs_take_only_the_size_they_were_captured_for() -> None:
    assert graphs().takes(images(3))
    assert not graphs().takes(images(3, side=16))


def test_a_bucket_that_cannot_be_captured_is_left_out_and_that_is_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def short(compute: Compute, pixels: torch.Tensor) -> Captured:
        if len(pixels) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate")
        return capture(compute, pixels)

    with caplog.at_level(logging.WARNING, logger=graphs_module.__name__):
        left = graphs(capture=short)
    [record] = caplog.records
    assert record.getMessage() == "no CUDA graph for batches of 4 (CUDA out of memory.)"
    assert sorted(left.seconds) == [1, 2]
    assert torch.equal(left(images(5)), scores_of(images(5)))


def frozen(compute: Compute, pixels: torch.Tensor) -> Captured:
    """A capture that missed its input: it answers for the pixels that were there then."""
    return Captured(lambda: None, compute(pixels).clone())


def nowhere(compute: Compute, pixels: torch.Tensor) -> Captured:
    return Captured(lambda: None, torch.full_like(compute(pixels), torch.nan))


@pytest.mark.parametrize("wrong", [frozen, nowhere])
def test_a_graph_that_answers_wrongly_is_not_used(
    wrong: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), pytest.raises(RuntimeError, match="no CUDA graph"):
        graphs(capture=wrong)
    assert len(caplog.records) == 3
    assert "a plain forward's" in caplog.text


@pytest.mark.parametrize("same", [True, False])
def test_noise_that_overflows_is_no_reason_against_a_graph_that_overflows_in_the_same_places(
    same: bool,
) -> None:
    def overflowing(pixels: torch.Tensor) -> torch.Tensor:
        scores = scores_of(pixels).clone()
        scores[:, 0, 0, 0] = torch.inf
        return scores

    def captured(compute: Compute, pixels: torch.Tensor) -> Captured:
        return capture(compute if same else scores_of, pixels)

    if same:
        assert sorted(graphs(compute=overflowing, capture=captured).seconds) == [1, 2, 4]
        return
    with pytest.raises(RuntimeError, match="no CUDA graph"):
        graphs(compute=overflowing, capture=captured)


# Copies.


def test_images_arrive_as_they_are_also_mirrored_and_after_larger_ones() -> None:
    upload = Upload(CPU)
    for seed, (count, side) in enumerate([(2, 8), (3, 16), (1, 4), (3, 16)]):
        arrays = images(count, side, seed=seed).numpy()
        given = [array[:, ::-1] for array in arrays]
        with upload(given) as there:
            assert there.shape == (count, side, side, 3)
            assert np.array_equal(there.numpy(), arrays[:, :, ::-1])
        with upload(arrays) as there:
            assert np.array_equal(there.numpy(), arrays)


def test_a_batch_stays_while_the_next_one_arrives() -> None:
    """Two buffers: the device may still read the one while the other is filled."""
    upload = Upload(CPU)
    first, second = images(2, seed=1), images(2, seed=2)
    with upload(first.numpy()) as there, upload(second.numpy()) as other:
        assert torch.equal(there, first)
        assert torch.equal(other, second)


def test_tensors_come_back_in_order_and_are_the_caller_s_own() -> None:
    source = [torch.arange(6).view(2, 3), torch.tensor([300], dtype=torch.uint16)]
    arrived = Download(CPU)(*source)
    arrays = arrived()
    assert [array.tolist() for array in arrays] == [[[0, 1, 2], [3, 4, 5]], [300]]
    arrays[0][:] = 9
    assert source[0].max() == 5
    assert arrived()[0].max() == 5


def test_what_is_huge_is_copied_by_whoever_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "_LARGEST_PINNED", 16)
    small, huge = torch.arange(2), torch.arange(24).view(4, 6).T.contiguous()
    arrived = Download(CPU)(small, huge)
    huge += 1  # too early to be its copy
    assert [array.tolist() for array in arrived()] == [small.tolist(), huge.tolist()]
    arrived()[1][:] = 0
    assert huge.max() == 24


class Streams:
    """Writes down what waits for what, as torch.cuda would be asked to."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self._names = iter(["filled 0", "read 0", "filled 1", "read 1"])

    def Stream(self) -> str:
        return "copies"

    def current_stream(self) -> str:
        return "compute"

    def stream(self, stream: str) -> Any:
        self.said.append(f"on {stream}")
        return nullcontext()

    def synchronize(self) -> None:
        self.said.append("all")

    def Event(self) -> Any:
        name, said = next(self._names), self.said

        class Event:
            def record(self, stream: str) -> None:
                said.append(f"{name} after {stream}")

            def wait(self, stream: str) -> None:
                said.append(f"{stream} waits for {name}")

            def synchronize(self) -> None:
                said.append(f"thread waits for {name}")

        return Event()


def test_a_buffer_is_filled_again_only_when_it_was_read(monkeypatch: pytest.MonkeyPatch) -> None:
    streams = Streams()
    monkeypatch.setattr(torch, "get_device_module", lambda device: streams)
    upload = Upload(CPU)
    for batch in range(3):
        streams.said.clear()
        with upload(images(1).numpy()):
            streams.said.append("forward")
        assert [line for line in streams.said if line != "all"] == [
            f"thread waits for filled {batch % 2}",  # before pinned memory is written
            f"copies waits for read {batch % 2}",  # before the device's is
            "on copies",
            f"filled {batch % 2} after copies",
            f"compute waits for filled {batch % 2}",
            "forward",
            f"read {batch % 2} after compute",
        ]


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
    return Preprocessor.from_checkpoint(Path(directory))


def cuda(preprocessor: Preprocessor) -> Cuda:
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


@pytest.mark.usefixtures("_flags")
@pytest.mark.parametrize("captured", [False, True], ids=["eager", "graphs"])
@pytest.mark.parametrize("count", [1, 3, 4])
@pytest.mark.parametrize("size", [(SIDE, SIDE), (SIDE, 2 * SIDE)])
def test_its_answers_are_the_rewritten_network_s(
    preprocessor: Preprocessor, captured: bool, count: int, size: tuple[int, int]
) -> None:
    ours = cuda(preprocessor)
    if captured:
        ours.capture(4, capture, seconds)
    plain = Rewritten(Network(network()), preprocessor, name="cpu", device=CPU, dtype=FP32)
    pixels = photos(count, *size)
    scores, expected = ours.forward(list(pixels)), plain.forward(pixels)
    assert scores.dtype == FP32
    # A batch of another size may be computed in another order.
    assert (scores - expected).abs().max() < 1e-5 * expected.abs().max()
    for one in scores:
        assert np.array_equal(ours.mask(one, (50, 70)), plain.mask(one, (50, 70)))


@pytest.mark.usefixtures("_flags")
def test_scores_outlive_the_next_forward(preprocessor: Preprocessor) -> None:
    """A graph writes where it wrote before; what was given away may not change with it."""
    ours = cuda(preprocessor)
    ours.capture(4, capture, seconds)
    scores = ours.forward(photos(2))
    before = scores.clone()
    ours.forward(255 - photos(2))
    assert torch.equal(scores, before)


@pytest.mark.usefixtures("_flags")
def test_graphs_are_for_squares_only(preprocessor: Preprocessor) -> None:
    ours = cuda(preprocessor)
    ours.capture(4, capture, seconds)
    assert ours._graphs
    taken: list[int] = []
    plain = ours._graphs.__class__.__call__

    def noted(self: Graphs, pixels: torch.Tensor) -> torch.Tensor:
        taken.append(len(pixels))
        return plain(self, pixels)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Graphs, "__call__", noted)
        ours.forward(photos(2, SIDE, 2 * SIDE))
        assert taken == []
        ours.forward(photos(2))
        assert taken == [2]


@pytest.mark.usefixtures("_flags")
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


@pytest.mark.usefixtures("_flags")
@pytest.mark.parametrize("confidence", [False, True])
@pytest.mark.parametrize("logits", [False, True])
def test_an_answer_has_what_was_asked_for(
    preprocessor: Preprocessor, confidence: bool, logits: bool
) -> None:
    ours = cuda(preprocessor)
    [scores] = ours.forward(photos(1))
    answer = ours.answer(scores, (50, 70), confidence=confidence, logits=logits)()
    mask, sure = mask_with_confidence(scores, (50, 70))
    assert answer
    assert np.array_equal(answer.mask, mask)
    assert answer.mask.dtype == np.uint8
    assert (answer.confidence is not None) == confidence
    assert (answer.logits is not None) == logits
    if answer.confidence is not None:
        assert np.array_equal(answer.confidence, sure)
    if answer.logits is not None:
        assert np.array_equal(answer.logits, scores.numpy())


@pytest.mark.usefixtures("_flags")
def test_scores_that_are_no_numbers_are_told(preprocessor: Preprocessor) -> None:
    ours = cuda(preprocessor)
    for value in (np.nan, np.inf):
        scores = torch.zeros(7, 4, 4)
        scores[3, 2, 1] = value
        assert ours.answer(scores, (8, 8))() is None


def picture(width: int, height: int, seed: int) -> Image.Image:
    levels = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(levels).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.usefixtures("_flags")
@pytest.mark.parametrize("captured", [False, True], ids=["eager", "graphs"])
def test_a_segmenter_gives_every_image_of_a_batch_its_own(
    preprocessor: Preprocessor, captured: bool, tmp_path: Path
) -> None:
    """More views than a forward takes: the graph of the first runs again while its scores are held."""
    ours = cuda(preprocessor)
    if captured:
        ours.capture(2, capture, seconds)
    plain = Rewritten(Network(network()), preprocessor, name="cpu", device=CPU, dtype=FP32)
    sound, expected = (segmenter_of(one, preprocessor, tmp_path) for one in (ours, plain))
    sound.self_test()
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


def segmenter_of(backend: Any, preprocessor: Preprocessor, directory: Path) -> Segmenter:
    network().save_pretrained(directory)
    return Segmenter(
        Checkpoint(directory, "tiny", "1"),
        backend,
        preprocessor,
        max_batch_size=2,
        max_score_bytes=2**24,
    )


@pytest.mark.usefixtures("_flags")
def test_launch_does_not_wait_for_the_masks(
    preprocessor: Preprocessor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, waited = cuda(preprocessor), []
    begun = ours.answer

    def answer(*args: Any, **kwargs: Any) -> Any:
        wait = begun(*args, **kwargs)
        return lambda: (waited.append(1), wait())[1]

    monkeypatch.setattr(ours, "answer", answer)
    segmenter = segmenter_of(ours, preprocessor, tmp_path)
    ending = segmenter.launch([segmenter.prepare(picture(70, 50, seed)) for seed in range(2)])
    assert waited == []
    arrived = ending()
    assert waited == [1, 1]
    assert [one.output().mask.shape for one in arrived] == [(50, 70)] * 2
    assert waited == [1, 1]


@pytest.mark.usefixtures("_flags")
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
        segmenter_of(ours, preprocessor, tmp_path).warm_up()
    assert type(caught.value) is raised
    if raised is ModelError:
        assert "in batches of 2" in str(caught.value)


@pytest.mark.usefixtures("_flags")
@pytest.mark.parametrize("place", ["forward", "answer"])
def test_a_lost_card_is_told_and_the_batch_is_not_run_again_in_parts(
    preprocessor: Preprocessor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    ours, told, runs = cuda(preprocessor), [], []

    def lost(*_: Any, **__: Any) -> Any:
        runs.append(place)
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nCompile with")

    monkeypatch.setattr(ours, place, lost if place == "forward" else lambda *_, **__: lost)
    segmenter = segmenter_of(ours, preprocessor, tmp_path)
    segmenter.on_device_lost = told.append
    with pytest.raises(RuntimeError, match="illegal memory"):
        segmenter.run([segmenter.prepare(picture(70, 50, seed)) for seed in range(2)])
    assert len(told) == len(runs) == 1


# Loading.


@pytest.mark.usefixtures("_flags")
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
            "MASKQ_DTYPE is bfloat16: compute capability 7.5 has no bfloat16 (it begins at 8.0): "
            "float16 instead"
        ]
    )


@pytest.mark.usefixtures("_flags")
@pytest.mark.parametrize(("scale", "expected"), [(1.0, FP16), (1e5, BF16)])
def test_auto_takes_the_half_precision_whose_masks_agree_most(
    preprocessor: Preprocessor,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    scale: float,
    expected: torch.dtype,
) -> None:
    """Scaled up by one layer and down by the next: what lies between overflows fp16."""
    monkeypatch.setattr(load, "capability", lambda device: H200)
    source = network()
    with torch.no_grad():
        source.head.head[0].weight *= scale
        source.head.head[4].weight /= scale
        source.head.head[1].bias *= scale
    with caplog.at_level(logging.INFO):
        ours = load_cuda(Network(source), preprocessor, device=CPU, dtype="auto")
    assert ours.dtype == expected
    assert "places where masks agree with float32's" in caplog.text
    assert ours.forward(photos(1)).isfinite().all()


@pytest.mark.usefixtures("_flags")
def test_the_classifier_stays_in_float32_and_float32_is_no_tf32(
    preprocessor: Preprocessor,
) -> None:
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    ours = load_cuda(Network(network()), preprocessor, device=CPU, dtype="float16")
    types = {name: value.dtype for name, value in ours._network.named_parameters()}
    assert types.pop("head.classifier.weight") == types.pop("head.classifier.bias") == FP32
    assert set(types.values()) == {FP16}
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32


# Masks without the kernel.


def noise() -> torch.Tensor:
    return torch.randn(9, 12, 12, generator=torch.Generator().manual_seed(2))


class Failing:
    """A kernel that cannot run here."""

    def __init__(self, error: Exception) -> None:
        self.error, self.asked = error, 0

    def __call__(self, *_: Any, **__: Any) -> Drawn:
        self.asked += 1
        raise self.error


@pytest.mark.parametrize("confidence", [False, True])
def test_a_kernel_that_fails_is_replaced_for_good_and_that_is_said_once(
    caplog: pytest.LogCaptureFixture, confidence: bool
) -> None:
    failing: Any = Failing(RuntimeError("Failed to find C compiler. Please specify\nvia CC"))
    draw = Masks(failing)
    assert draw.fused
    with caplog.at_level(logging.WARNING, logger=masks.__name__):
        for _ in range(3):
            drawn = draw(noise(), (50, 41), confidence=confidence)
            assert np.array_equal(drawn.mask.numpy(), upsampled_argmax(noise(), (50, 41)))
            assert (drawn.confidence is not None) == confidence
    assert failing.asked == 1
    assert not draw.fused
    [record] = caplog.records
    assert "RuntimeError: Failed to find C compiler. Please specify)" in record.getMessage()


def test_an_image_that_does_not_fit_is_no_fault_of_the_kernel() -> None:
    failing: Any = Failing(torch.OutOfMemoryError("CUDA out of memory"))
    draw = Masks(failing)
    with pytest.raises(torch.OutOfMemoryError):
        draw(noise(), (50, 41))
    assert draw.fused


def test_a_kernel_that_found_no_room_is_tried_again() -> None:
    failing: Any = Failing(RuntimeError("Triton Error [CUDA]: out of memory"))
    draw = Masks(failing)
    for _ in range(2):
        drawn = draw(noise(), (50, 41))
        assert np.array_equal(drawn.mask.numpy(), upsampled_argmax(noise(), (50, 41)))
    assert failing.asked == 2


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RuntimeError("CUDA error: an illegal memory access was encountered"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublas…"), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), False),
        (RuntimeError("CUDA error: out of memory"), False),  # beside torch's own allocator
        (RuntimeError("CUDA error: invalid configuration argument"), False),  # a launch refused
        (RuntimeError("shapes cannot be multiplied"), False),
        (ValueError("CUDA error"), False),
    ],
)
def test_what_ends_a_card(error: Exception, expected: bool) -> None:
    assert is_fault(error) == expected


def test_a_lost_card_is_no_fault_of_the_kernel_s() -> None:
    failing: Any = Failing(RuntimeError("CUDA error: an illegal memory access was encountered"))
    draw = Masks(failing)
    with pytest.raises(RuntimeError, match="illegal"):
        draw(noise(), (50, 41))
    assert draw.fused


def test_more_than_32_bits_can_count_are_drawn_in_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    failing: Any = Failing(RuntimeError("not to be asked"))
    monkeypatch.setattr(masks, "_INDEXED", 50 * 41)
    drawn = Masks(failing)(noise()[:, :2, :2], (50, 41))
    assert drawn.mask.shape == (50, 41)
    assert failing.asked == 0


def test_without_triton_masks_are_drawn_in_bands(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def missing(tile: object = None) -> None:
        raise ModuleNotFoundError("No module named 'triton'")

    monkeypatch.setattr(masks, "Fused", missing)
    with caplog.at_level(logging.WARNING, logger=masks.__name__):
        draw = masks.load(torch.device("cuda", 0))
    assert not draw.fused
    assert "No module named 'triton'" in caplog.text
    assert draw(noise(), (5, 4)).mask.shape == (5, 4)
