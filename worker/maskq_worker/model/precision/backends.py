"""Load one network of a checkpoint to a device, in one type."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from maskq_worker.model.checkpoint.loading import TransformersNetwork
from maskq_worker.model.cuda.faults import NO_KERNELS
from maskq_worker.model.cuda.load import load_cuda
from maskq_worker.model.cuda.precision import exact_float32
from maskq_worker.model.errors import ModelError
from maskq_worker.model.native_backend import NativeBackend
from maskq_worker.model.network import Network
from maskq_worker.model.precision.devices import choose_device
from maskq_worker.model.transformers_backend import TRANSFORMERS, TransformersBackend

if TYPE_CHECKING:
    from maskq_worker.model.backend import Backend
    from maskq_worker.model.families.family import Family
    from maskq_worker.model.preprocess.preprocessor import Preprocessor


def load_backend(
    directory: Path,
    preprocessor: Preprocessor,
    family: Family,
    *,
    backend: str,
    device: str,
    dtype: str,
) -> Backend:
    """Load a checkpoint's network to a device.

    Args:
        directory: the checkpoint, in the hub's layout.
        backend: auto | transformers | cpu | cuda.
        device: auto | cpu | cuda.
        dtype: auto | float32 | float16 | bfloat16. auto is float32, and half precision for our own
            network on a GPU.

    Raises:
        ModelError: with what to do.
    """
    chosen = choose_device(device, backend)
    if chosen.type == "cuda":
        exact_float32()
    plain = torch.float32 if dtype == "auto" else getattr(torch, dtype)
    if backend == TRANSFORMERS:
        return TransformersBackend(
            TransformersNetwork(family.transformers_network(directory, plain)).to(chosen),
            preprocessor,
            device=chosen,
            dtype=plain,
            supports_rectangles=not family.squares,
        )
    network = family.network(directory, chosen)
    if not isinstance(network, Network):
        return NativeBackend(
            network.to(chosen, plain),
            preprocessor,
            name=TRANSFORMERS,
            device=chosen,
            dtype=plain,
            supports_rectangles=not family.squares,
        )
    if chosen.type == "cuda":
        return _load_cuda(network, preprocessor, chosen, dtype)
    network.to(plain).head.classifier.float()
    return NativeBackend(network, preprocessor, name=chosen.type, device=chosen, dtype=plain)


def _load_cuda(
    network: Network, preprocessor: Preprocessor, device: torch.device, dtype: str
) -> Backend:
    try:
        return load_cuda(network, preprocessor, device=device, dtype=dtype)
    except RuntimeError as error:
        if NO_KERNELS not in str(error):
            raise
        raise ModelError(
            f"torch {torch.__version__} has no kernels for {torch.cuda.get_device_name(device)}: "
            "install one that was built for this card, or set MASKQ_DEVICE=cpu"
        ) from error
