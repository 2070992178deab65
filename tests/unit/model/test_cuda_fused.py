"""The faster layers of a GPU, as far as a CPU goes: the same scores as the network's own layers."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import networks
import pytest
import torch
from torch import nn

from maskq_worker.model.cuda import load
from maskq_worker.model.cuda.coarse import coarse
from maskq_worker.model.cuda.fused import cuda_operations
from maskq_worker.model.cuda.fused.cuda_operations import CudaOperations, check, load_operations
from maskq_worker.model.cuda.fused.network import FusedNetwork
from maskq_worker.model.cuda.fused.operations import SplitClassifier, TorchOperations
from maskq_worker.model.network import Network

CPU = torch.device("cpu")
HALF = [torch.float16, torch.bfloat16]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pixels(height: int = 64, width: int = 64) -> torch.Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("size", [(64, 64), (64, 128)])
@pytest.mark.parametrize("variant", networks.VARIANTS)
def test_a_fused_network_has_the_scores_of_the_plain_one(
    variant: str, size: tuple[int, int]
) -> None:
    def plain() -> Network:
        return coarse(Network(networks.network(torch.float32, **networks.VARIANTS[variant])))

    with torch.inference_mode():
        expected = plain()(pixels(*size))
        scores = FusedNetwork(plain(), TorchOperations(), torch.float16)(pixels(*size))
    assert scores.shape == expected.shape
    assert scores.is_contiguous(memory_format=torch.channels_last)
    assert (scores - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize("dtype", HALF)
def test_a_split_classifier_is_a_float32_classifier(dtype: torch.dtype) -> None:
    classifier = nn.Conv2d(256, 150, 1)
    values = torch.randn(1, 256, 5, 7).to(dtype)
    split = SplitClassifier.of(classifier, dtype)
    assert split.parts.dtype == dtype
    with torch.inference_mode():
        scores = TorchOperations().classify(values, split)
        exact = classifier.double()(values.double())
        rounded = classifier.to(dtype).double()(values.double())
    largest = exact.abs().max()
    assert (scores - exact).abs().max() < 1e-6 * largest
    assert (rounded - exact).abs().max() > 1e-4 * largest  # what it would be without the split


@pytest.mark.slow
def test_the_kernels_compute_what_torch_does() -> None:
    script = Path(__file__).parents[2] / "interpreted_operations.py"
    ended = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=False, timeout=300
    )
    assert ended.stdout == "ok\n", ended.stderr


@pytest.mark.parametrize("dtype", HALF)
def test_operations_that_agree_pass_the_check(dtype: torch.dtype) -> None:
    check(TorchOperations(), CPU, dtype)


@pytest.mark.parametrize(
    ("operation", "named"),
    [
        ("upsample", "upsampling"),
        ("convolve_and_rectify", "convolution with ReLU"),
        ("add_maps", "sum of two maps"),
        ("widen", "product with GELU"),
        ("add_and_normalise", "sum of tokens"),
        ("classify", "classifier"),
    ],
)
def test_an_operation_that_is_wrong_is_found(
    operation: str, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = TorchOperations()
    right = getattr(wrong, operation)

    def shifted(*given: Any, **options: Any) -> Any:
        answer = right(*given, **options)
        if isinstance(answer, tuple):
            return tuple(one if one is None else one + 1 for one in answer)
        return answer + torch.nan

    monkeypatch.setattr(wrong, operation, shifted)
    with pytest.raises(RuntimeError, match=f"{named} differs by"):
        check(wrong, CPU, torch.float16)


class NoCompiler(CudaOperations):
    def __init__(self) -> None:
        raise RuntimeError("Failed to find C compiler\nsecond line")


class LostCard(CudaOperations):
    def __init__(self) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")


def test_where_the_faster_layers_cannot_run_the_plain_ones_do_and_the_log_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cuda_operations, "CudaOperations", NoCompiler)
    with caplog.at_level(logging.WARNING):
        assert load_operations(torch.device("cuda"), torch.float16) is None
    assert "the faster layers cannot run (RuntimeError: Failed to find C compiler)" in caplog.text
    assert "second line" not in caplog.text
    network = coarse(Network(networks.network(torch.float32)))
    assert load.in_dtype(network, torch.float16, CPU) == (network, None)


def test_a_lost_card_is_not_taken_for_a_missing_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_operations, "CudaOperations", LostCard)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        load_operations(torch.device("cuda"), torch.float16)


def test_a_network_in_half_precision_has_the_faster_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "load_operations", lambda device, dtype: TorchOperations())
    plain = coarse(Network(networks.network(torch.float32)))
    fused, operations = load.in_dtype(plain, torch.bfloat16, CPU)
    assert isinstance(fused, FusedNetwork)
    assert operations is not None
    kept, none = load.in_dtype(coarse(Network(networks.network(torch.float32))), torch.float32, CPU)
    assert not isinstance(kept, FusedNetwork)
    assert none is None
    with torch.inference_mode():
        scores = fused(pixels().to(torch.bfloat16))
    assert scores.dtype == torch.float32


# For the cards themselves the compiler can be asked without one.

KERNELS: dict[str, tuple[dict[str, str], dict[str, Any]]] = {
    "upsample_twice": (
        {
            "values": "*fp16", "answer": "*fp16", "height": "i32", "width": "i32",
            "channels": "i32", "row_step": "fp32", "column_step": "fp32",
        },
        {"BLOCK": 1024},
    ),
    "add_bias_and_maps": (
        {
            **dict.fromkeys(["values", "bias", "shortcut", "other", "answer", "rectified"], "*fp16"),
            "places": "i32", "channels": "i32",
        },
        {"OTHER": True, "RECTIFIED": True, "PLACES": 8, "LANES": 128},
    ),
    "add_and_normalise": (
        {
            **dict.fromkeys(["tokens", "change", "weight", "bias", "total", "normed"], "*fp16"),
            "channels": "i32", "eps": "fp32",
        },
        {"LANES": 1024},
    ),
    "add_parts": (
        {
            **dict.fromkeys(["parts", "bias", "scores"], "*fp32"),
            **dict.fromkeys(["places", "classes", "stride"], "i32"), "scale": "fp32",
        },
        {"PARTS": 2, "PLACES": 8, "LANES": 128},
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("capability", [75, 89, 90], ids=["T4", "L4", "H200"])
@pytest.mark.parametrize("name", KERNELS)
def test_the_kernels_compile_for_the_cards(
    name: str, capability: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    from maskq_worker.model.cuda.fused import kernels

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    types, constants = KERNELS[name]
    signature = {**types, **dict.fromkeys(constants, "constexpr")}
    source = ASTSource(getattr(kernels, name), signature, constants)
    built = compile(
        source,
        target=GPUTarget("cuda", capability, 32),
        options={"num_warps": 4, "enable_fp_fusion": True},
    )
    assert built.asm["cubin"]
    assert built.metadata.shared < 48 * 1024
