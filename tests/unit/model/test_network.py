"""Our own network against transformers', on small networks of random weights."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import BIT, HYBRID, SMALL, VARIANTS, network
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional
from transformers import DPTConfig
from transformers.models.bit.modeling_bit import WeightStandardizedConv2d
from transformers.models.dpt.image_processing_pil_dpt import DPTImageProcessorPil

from maskq_worker.model import ModelError, goes_to_gpu, load_segmenter, run_self_test, warm_up
from maskq_worker.model.backend import Backend
from maskq_worker.model.families import dpt as dpt_family
from maskq_worker.model.masks.comparison import untied_differences
from maskq_worker.model.native_backend import NativeBackend
from maskq_worker.model.network import Network, UnsupportedError, rewrites, upsampled
from maskq_worker.model.network.neck import Project
from maskq_worker.model.network.rewrites import upsample
from maskq_worker.model.network.supported import check
from maskq_worker.model.network.upsampled import convolve_upsampled, on_the_small_map
from maskq_worker.model.precision.backends import load_backend
from maskq_worker.model.precision.devices import choose_device
from maskq_worker.model.preprocess.from_checkpoint import load_preprocessor
from maskq_worker.model.self_test import golden_image
from maskq_worker.process.capacity import capacity_of
from maskq_worker.settings import WorkerSettings

pytestmark = pytest.mark.slow

# Of the largest score. What rounds is summed in another order; nothing else differs.
TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-5}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Several would only wait for one another on networks as small as these."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pixels(height: int, width: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    draw = torch.Generator().manual_seed(9)
    return torch.randn(2, 3, height, width, generator=draw).to(dtype)


def photos(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(9).integers(0, 256, (2, height, width, 3), dtype=np.uint8)


def reference(source: Any, values: torch.Tensor) -> torch.Tensor:
    """transformers' parts, the neck called with the grid that its own forward leaves out."""
    height, width = values.shape[-2:]
    config = source.config
    if config.is_hybrid:
        source.dpt.embeddings.image_size = (height, width)  # it refuses all others
    outputs = source.dpt(values, output_hidden_states=True)
    raw = list(outputs.intermediate_activations or [])
    states = [
        state
        for index, state in enumerate(outputs.hidden_states[1:])
        if index in config.backbone_out_indices[len(raw) :]
    ]
    grid = height // config.patch_size, width // config.patch_size
    answer: torch.Tensor = source.head(source.neck(raw + states, *grid))
    return answer


def difference(ours: torch.Tensor, expected: torch.Tensor) -> float:
    assert ours.shape == expected.shape
    assert ours.dtype == expected.dtype
    return ((ours - expected).abs().max() / expected.abs().max()).item()


def both(source: Any, values: torch.Tensor, *, square: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores of ours and of transformers; of its own forward for what it takes, squares."""
    ours = Network(copy.deepcopy(source))
    with torch.inference_mode():
        expected = source(pixel_values=values).logits if square else reference(source, values)
        return ours(values), expected


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("variant", VARIANTS)
def test_scores_are_transformers_own(variant: str, dtype: torch.dtype) -> None:
    source = network(dtype, **VARIANTS[variant])
    ours, expected = both(source, pixels(64, 64, dtype), square=True)
    assert expected.std(dim=(2, 3)).min() > 0.01  # else the test could not fail
    assert difference(ours, expected) < TOLERANCE[dtype]


@pytest.mark.parametrize("variant", ["as Intel's", "readout added", "other sizes"])
@pytest.mark.parametrize("side", [32, 96, 80])
def test_squares_of_other_sizes_than_trained(variant: str, side: int) -> None:
    source = network(**VARIANTS[variant])
    ours, expected = both(source, pixels(side, side), square=True)
    assert difference(ours, expected) < 1e-10


@pytest.mark.parametrize(
    "variant", ["as Intel's", "many channels in the head", "other sizes", "hybrid"]
)
@pytest.mark.parametrize("size", [(32, 96), (96, 32), (80, 48), (64, 144), (32, 128)])
def test_rectangles_are_transformers_parts_with_the_grid_passed_on(
    variant: str, size: tuple[int, int]
) -> None:
    source = network(**VARIANTS[variant])
    ours, expected = both(source, pixels(*size), square=False)
    assert difference(ours, expected) < 1e-10


def test_the_reference_for_rectangles_is_transformers_own_on_squares() -> None:
    source, values = network(), pixels(64, 64)
    with torch.inference_mode():
        assert torch.equal(reference(source, values), source(pixel_values=values).logits)


def test_the_scrambling_of_rectangles_does_not_leak_in() -> None:
    """64 x 256 px are 4 x 16 patches: transformers takes the 64 for a square of 8 x 8."""
    source, values = network(), pixels(64, 256)
    ours, expected = both(source, values, square=False)
    with torch.inference_mode():
        scrambled = source(pixel_values=values).logits
    assert scrambled.shape == (2, 7, 128, 128)
    assert ours.shape == (2, 7, 64, 256)
    assert difference(ours, expected) < 1e-10
    reshaped = functional.interpolate(scrambled, size=(64, 256), mode="bilinear")
    assert difference(ours, reshaped) > 0.1


def test_one_network_takes_sizes_in_any_order() -> None:
    source = network()
    ours = Network(copy.deepcopy(source))
    with torch.inference_mode():
        for size in [(64, 64), (32, 96), (96, 32), (64, 64), (32, 96)]:
            assert difference(ours(pixels(*size)), reference(source, pixels(*size))) < 1e-10


def test_the_input_is_left_as_it_was() -> None:
    values = pixels(64, 64)
    before = values.clone()
    Network(network())(values)
    assert torch.equal(values, before)


def test_an_image_s_scores_do_not_depend_on_its_batch() -> None:
    ours, values = Network(network()), pixels(64, 64)
    assert difference(ours(values[1:]), ours(values)[1:]) < 1e-10


def test_what_nobody_reads_is_not_there() -> None:
    source = network(**VARIANTS["as Intel's"])
    ours = Network(copy.deepcopy(source))
    assert len(ours.transformer.blocks) == 4  # the fifth layer's output goes nowhere
    kinds = {type(module) for module in ours.modules()}
    assert not kinds & {nn.BatchNorm2d, nn.Dropout}
    fewer = sum(p.numel() for p in source.parameters()) - sum(p.numel() for p in ours.parameters())
    dropped = [
        source.auxiliary_head,
        source.dpt.layernorm,
        source.dpt.encoder.layer[4],
        source.neck.fusion_stage.layers[0].residual_layer1,
    ]
    assert fewer > sum(p.numel() for module in dropped for p in module.parameters())
    assert not any(parameter.requires_grad for parameter in ours.parameters())


# Each rewrite alone.


def drawn(module: Any) -> Any:
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draw))
    return module.double().eval()


@pytest.mark.parametrize("bias", [True, False])
def test_a_norm_folds_into_the_convolution_before_it(bias: bool) -> None:
    convolution = drawn(nn.Conv2d(5, 6, 3, padding=1, stride=2, bias=bias))
    norm = drawn(nn.BatchNorm2d(6))
    norm.running_mean.uniform_(-2, 2)
    norm.running_var.uniform_(0.1, 3)
    values = torch.randn(2, 5, 9, 7, dtype=torch.float64)
    folded = rewrites.fold_batch_norm(convolution, norm)
    assert difference(folded(values), norm(convolution(values)).detach()) < 1e-13


def test_a_fold_is_computed_in_float64_and_rounded_once() -> None:
    convolution, norm = drawn(nn.Conv2d(5, 6, 3)), drawn(nn.BatchNorm2d(6))
    exact = rewrites.fold_batch_norm(convolution, norm)
    rounded = rewrites.fold_batch_norm(convolution.float(), norm.float())
    assert rounded.weight.dtype == torch.float32
    # The inputs are rounded, too: three roundings of 6e-8 at most.
    assert ((rounded.weight - exact.weight) / exact.weight).abs().max() < 2e-7


@pytest.mark.parametrize("bias", [True, False])
def test_weights_are_standardised_once(bias: bool) -> None:
    source = drawn(WeightStandardizedConv2d(5, 6, 3, padding=None, bias=bias, eps=1e-8))
    values = torch.randn(2, 5, 9, 7, dtype=torch.float64)
    ours = rewrites.standardise(source, source.eps)(values)
    assert difference(ours, source(values).detach()) < 1e-13


@pytest.mark.parametrize("bias", [True, False])
def test_the_readout_is_projected_once(bias: bool) -> None:
    linear = drawn(nn.Linear(12, 6, bias=bias))
    tokens = torch.randn(2, 10, 6, dtype=torch.float64)
    patches, readout = tokens[:, 1:], tokens[:, :1]
    joined = torch.cat([patches, readout.expand_as(patches)], dim=2)
    expected = functional.gelu(linear(joined)).detach()
    assert difference(Project(linear, nn.GELU())(tokens), expected) < 1e-13


@pytest.mark.parametrize("bias", [True, False])
def test_a_projection_commutes_with_upsampling(bias: bool) -> None:
    projection = drawn(nn.Conv2d(6, 4, 1, bias=bias))
    values = torch.randn(2, 6, 5, 3, dtype=torch.float64)
    expected = projection(upsample(values)).detach()
    assert difference(upsample(projection(values)), expected) < 1e-13


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 2), (8, 8), (9, 33), (40, 16)])
def test_a_convolution_of_an_upsampled_map_is_computed_on_the_small_one(
    size: tuple[int, int],
) -> None:
    convolution = drawn(nn.Conv2d(6, 5, 3, padding=1))
    values = torch.randn(2, 6, *size, dtype=torch.float64)
    expected = convolution(upsample(values)).detach()
    assert difference(on_the_small_map(convolution, values), expected) < 1e-13


def test_the_faster_way_is_taken_by_the_number_of_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    monkeypatch.setattr(
        upsampled, "on_the_small_map", lambda layer, _: taken.append(layer.in_channels)
    )
    for channels in (64, 256):
        convolve_upsampled(nn.Conv2d(channels, 1, 3, padding=1), torch.zeros(1, channels, 2, 2))
    assert taken == [256]


def test_a_projection_is_a_layer_of_tokens_with_the_same_weights() -> None:
    projection = drawn(nn.Conv2d(6, 4, 1))
    values = torch.randn(2, 6, 5, 3, dtype=torch.float64)
    linear = rewrites.as_linear(projection)
    assert linear.weight.data_ptr() == projection.weight.data_ptr()
    expected = projection(values).detach().flatten(2).transpose(1, 2)
    assert difference(linear(values.flatten(2).transpose(1, 2)), expected) < 1e-13


# What it does not know.

UNKNOWN: dict[str, tuple[dict[str, Any], str]] = {
    "activation": ({"hidden_act": "silu"}, "hidden_act 'silu'"),
    "other head": ({"head_in_index": 1}, "head_in_index 1"),
    "backbone": (
        {**HYBRID, "backbone_config": {**BIT, "layer_type": "preactivation"}},
        "layer_type",
    ),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_what_the_network_does_not_know_it_refuses_before_it_takes_anything(case: str) -> None:
    changes, said = UNKNOWN[case]
    source = network(**changes)
    before = [name for name, _ in source.named_parameters()]
    with pytest.raises(UnsupportedError, match=said):
        Network(source)
    assert [name for name, _ in source.named_parameters()] == before


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"backbone_out_indices": [0, 1, 1, 2]}, "backbone_out_indices"),
        ({"patch_size": [16, 16]}, "patch_size"),
    ],
)
def test_configurations_that_transformers_itself_cannot_run(
    changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(UnsupportedError, match=said):
        check(DPTConfig(**{**SMALL, **changes}))


# As a backend.


@pytest.fixture(scope="module")
def save(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    def save(**changes: Any) -> Path:
        directory = tmp_path_factory.mktemp("checkpoint") / "tiny"
        network(torch.float32, **changes).save_pretrained(directory)
        DPTImageProcessorPil(size={"height": 64, "width": 64}).save_pretrained(directory)
        return directory

    return save


def load(directory: Path, **options: str) -> Backend:
    chosen = {"backend": "cpu", "device": "auto", "dtype": "auto", **options}
    return load_backend(directory, load_preprocessor(directory), dpt_family.DPT, **chosen)


@pytest.mark.parametrize("variant", ["as Intel's", "hybrid"])
def test_the_cpu_backend_s_answers_are_transformers_own(
    save: Callable[..., Path], variant: str
) -> None:
    directory = save(**VARIANTS[variant])
    ours, expected = (load(directory, backend=name) for name in ("cpu", "transformers"))
    assert isinstance(ours, NativeBackend)
    assert (ours.name, str(ours.device), ours.dtype) == ("cpu", "cpu", torch.float32)
    values = photos(64, 64)
    scores = ours.forward(values), expected.forward(values)
    assert difference(*scores) < 2e-5
    for one in scores[0]:
        mask, exact = ours.mask(one, (150, 97)), expected.mask(one, (150, 97))
        assert mask.dtype == np.uint8
        assert untied_differences(one, mask, exact) == 0
    assert difference(*scores) < 2e-5  # a mask leaves the scores as they were


def test_a_segmenter_with_it_passes_its_self_test(save: Callable[..., Path]) -> None:
    directory = save()
    segmenter = load_segmenter(WorkerSettings(model=str(directory), backend="cpu"))
    assert segmenter.info.backend == "cpu"
    warm_up(segmenter)
    run_self_test(segmenter)
    [output] = segmenter.run([segmenter.prepare(golden_image())])
    assert not isinstance(output, Exception)
    segmenter.close()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_half_precision_the_classifier_stays_in_float32(
    save: Callable[..., Path], dtype: torch.dtype
) -> None:
    directory = save(**VARIANTS["as Intel's"])
    backend = load(directory, dtype=str(dtype).removeprefix("torch."))
    assert isinstance(backend, NativeBackend)
    types = {name: parameter.dtype for name, parameter in backend.network.named_parameters()}
    assert types.pop("head.classifier.weight") == types.pop("head.classifier.bias") == torch.float32
    assert set(types.values()) == {dtype}
    assert backend.dtype == dtype
    values = photos(64, 64)
    exact = load(directory).forward(values)
    scores = backend.forward(values)
    assert scores.dtype == torch.float32
    assert difference(scores, exact) < 0.1


def test_an_unknown_network_is_left_to_transformers_and_that_is_said(
    save: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    directory = save(hidden_act="silu")
    with caplog.at_level(logging.WARNING, logger=dpt_family.__name__):
        backend = load(directory)
    assert backend.name == "transformers"
    [record] = caplog.records
    assert "hidden_act 'silu'" in record.getMessage()
    assert backend.forward(photos(64, 64)).shape == (2, 7, 64, 64)


def test_auto_takes_our_own(save: Callable[..., Path]) -> None:
    backend = load(save(), backend="auto", device="cpu")
    assert type(backend) is NativeBackend
    assert backend.name == "cpu"


def test_a_backend_names_its_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto", "cpu").type == "cpu"
    assert choose_device("auto", "cuda") == choose_device("cuda", "cuda") == torch.device("cuda", 0)
    for device, backend in (("cpu", "cuda"), ("cuda", "cpu")):
        with pytest.raises(ModelError, match="set only one"):
            choose_device(device, backend)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ModelError, match="torch finds no GPU"):
        choose_device("auto", "cuda")


@pytest.mark.parametrize(
    ("device", "backend", "dtype", "expected"),
    [
        ("auto", "auto", "auto", True),
        ("auto", "cpu", "auto", False),
        ("cpu", "auto", "auto", False),
        ("auto", "auto", "int8", False),
    ],
)
def test_sizes_follow_the_device_that_auto_finds(
    monkeypatch: pytest.MonkeyPatch, device: str, backend: Any, dtype: Any, expected: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    settings = WorkerSettings(model="demo", device=device, backend=backend, dtype=dtype)
    assert goes_to_gpu(settings) is expected
    assert capacity_of(settings, cuda=goes_to_gpu(settings)).max_batch_size == (
        16 if expected else 1
    )
