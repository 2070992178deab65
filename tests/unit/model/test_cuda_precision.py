"""Which data type a card computes in."""

from __future__ import annotations

import pytest
import torch
from support import cuda_on_cpu
from support.cuda_on_cpu import BF16, FP16, FP32, H200, L4, P100, T4

from maskq_worker.model.cuda import precision

pytestmark = pytest.mark.slow

one_thread = cuda_on_cpu.one_thread

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
