"""Make the backend of our own network: choose its precision, bring it to the GPU."""

from __future__ import annotations

import copy
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import torch
from torch import nn

from maskq_worker.model.cuda import precision
from maskq_worker.model.cuda.backend import CudaBackend
from maskq_worker.model.cuda.coarse import coarse
from maskq_worker.model.cuda.fused.cuda_operations import CudaOperations, load_operations
from maskq_worker.model.cuda.fused.network import FusedNetwork
from maskq_worker.model.cuda.normalise import Normalise
from maskq_worker.model.network import Network
from maskq_worker.model.self_test import golden_image

if TYPE_CHECKING:
    from collections.abc import Sequence

    from maskq_worker.model.preprocess.preprocessor import Preprocessor

_log = logging.getLogger(__name__)


def load_cuda(
    network: Network,
    preprocessor: Preprocessor,
    *,
    device: torch.device,
    dtype: str,
) -> CudaBackend:
    """Make the backend. If the GPU lacks the dtype, another one replaces it, and the log says so.

    Graphs are recorded by `warm_up` only.

    Args:
        network: float32, on any device; it may not be used any more.
        device: the GPU.
        dtype: auto | float32 | float16 | bfloat16.
    """
    precision.exact_float32()
    choice = precision.choose(capability(device), dtype)
    if choice.missing:
        _log.warning("MASKQ_DTYPE is %s: %s", dtype, choice.missing)
    whole = coarse(network).to(device)
    chosen = choice.dtypes[0]
    if dtype == "auto" and chosen is not torch.float32:  # even a single candidate may overflow
        # In a thread of its own: cuDNN keeps, per thread, the algorithms that it chose first, and here
        # it chooses them without trying.
        with ThreadPoolExecutor(1) as thread:
            chosen = thread.submit(best_dtype, whole, preprocessor, device, choice.dtypes).result()
    made, operations = in_dtype(whole, chosen, device)
    return CudaBackend(made, preprocessor, device=device, dtype=chosen, operations=operations)


def in_dtype(
    network: Network, dtype: torch.dtype, device: torch.device
) -> tuple[nn.Module, CudaOperations | None]:
    """The network in a dtype, with the faster layers in half precision where they work.

    network: of `coarse`, float32, on the device; it may not be used any more.
    """
    precision.lower(network, dtype)
    operations = None if dtype is torch.float32 else load_operations(device, dtype)
    if operations is None:
        return network, None
    return FusedNetwork(network, operations, dtype), operations


def capability(device: torch.device) -> tuple[int, int]:
    """The compute capability of a GPU; (0, 0) for a CPU."""
    return torch.cuda.get_device_capability(device) if device.type == "cuda" else (0, 0)


@torch.inference_mode()
def best_dtype(
    network: Network,
    preprocessor: Preprocessor,
    device: torch.device,
    dtypes: Sequence[torch.dtype],
) -> torch.dtype:
    """The dtype whose scores of a drawn image agree most with float32's.

    network: float32; it is left unchanged.
    """
    pixels = torch.from_numpy(preprocessor(golden_image()))[None].to(device)

    def scores(one: nn.Module, dtype: torch.dtype) -> torch.Tensor:
        answer: torch.Tensor = one(Normalise(preprocessor, device, dtype)(pixels))
        return answer

    exact = scores(network, torch.float32)
    shares = {
        dtype: precision.agreement(
            scores(in_dtype(copy.deepcopy(network), dtype, device)[0], dtype), exact
        )
        for dtype in dtypes
    }
    chosen = precision.best(shares)
    said = ", ".join(
        f"{precision.name(dtype)} " + ("overflows" if share is None else f"{share:.4%}")
        for dtype, share in shares.items()
    )
    _log.info(
        "%s; share of scores with the same best class as float32: %s", precision.name(chosen), said
    )
    return chosen
