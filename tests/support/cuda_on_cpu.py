"""The CUDA backend on a CPU: its data types, cards by their capability, and a tiny network."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

CPU = torch.device("cpu")
FP32, FP16, BF16 = torch.float32, torch.float16, torch.bfloat16
T4, L4, H200, P100 = (7, 5), (8, 9), (9, 0), (6, 0)
SIDE = 32


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Several would only wait for one another on networks as small as these."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def flags() -> Iterator[None]:
    """What `load_cuda` sets is the process's."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before
