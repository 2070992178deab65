"""From our own network to the backend: its precision, its place."""

from __future__ import annotations

import copy
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import torch
from torch import nn

from maskq_worker.model.cuda import precision
from maskq_worker.model.cuda.backend import Cuda
from maskq_worker.model.cuda.coarse import coarse
from maskq_worker.model.cuda.normalise import Normalise
from maskq_worker.model.network import Network

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
) -> Cuda:
    """network: float32, on any device; it may not be used any more. dtype: auto, or one of torch's.

    What the card lacks is replaced, and the log says so. Graphs are recorded by `warm_up` only.
    """
    precision.exact_float32()
    choice = precision.choose(capability(device), dtype)
    if choice.missing:
        _log.warning("MASKQ_DTYPE is %s: %s", dtype, choice.missing)
    whole = coarse(network).to(device)
    chosen = choice.dtypes[0]
    if dtype == "auto" and chosen is not torch.float32:  # one alone may overflow, too
        # In a thread of its own: what cuDNN chose in a thread, here without trying, it keeps there.
        with ThreadPoolExecutor(1) as thread:
            chosen = thread.submit(measured, whole, preprocessor, device, choice.dtypes).result()
    return Cuda(precision.lower(whole, chosen), preprocessor, device=device, dtype=chosen)


def capability(device: torch.device) -> tuple[int, int]:
    """Compute capability of a card; (0, 0) of the CPU."""
    return torch.cuda.get_device_capability(device) if device.type == "cuda" else (0, 0)


@torch.inference_mode()
def measured(
    network: nn.Module,
    preprocessor: Preprocessor,
    device: torch.device,
    dtypes: Sequence[torch.dtype],
) -> torch.dtype:
    """The type whose masks of a drawn image agree most with float32's; network: float32, unchanged."""
    from maskq_worker.model.segmenter import golden_image

    pixels = torch.from_numpy(preprocessor(golden_image()))[None].to(device)

    def scores(one: nn.Module, dtype: torch.dtype) -> torch.Tensor:
        answer: torch.Tensor = one(Normalise(preprocessor, device, dtype)(pixels))
        return answer

    exact = scores(network, torch.float32)
    shares = {
        dtype: precision.agreement(
            scores(precision.lower(copy.deepcopy(network), dtype), dtype), exact
        )
        for dtype in dtypes
    }
    chosen = precision.best(shares)
    said = ", ".join(
        f"{precision.name(dtype)} " + ("overflows" if share is None else f"{share:.4%}")
        for dtype, share in shares.items()
    )
    _log.info("%s; places where masks agree with float32's: %s", precision.name(chosen), said)
    return chosen
