"""Load the model of a worker's settings: find the checkpoint, choose the backend, warm it up.

Imports torch only inside functions: `maskq_worker.model` must be importable without it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from maskq.contract import Output
from maskq_worker.errors import PermanentError
from maskq_worker.model.checkpoint.files import CONFIG, read_json
from maskq_worker.model.checkpoint.folder import Checkpoint, resolve
from maskq_worker.model.checkpoint.labels import read_labels
from maskq_worker.model.errors import ModelError
from maskq_worker.model.families import family_of
from maskq_worker.model.inputs_and_outputs import ModelInfo
from maskq_worker.model.segmenter import Segmenter
from maskq_worker.model.self_test import golden_image
from maskq_worker.process.capacity import capacity_of

if TYPE_CHECKING:
    import torch

    from maskq_worker.model.backend import Backend
    from maskq_worker.model.families.family import Family
    from maskq_worker.model.network import Network
    from maskq_worker.model.preprocess.preprocessor import Preprocessor
    from maskq_worker.settings import WorkerSettings


def load_segmenter(
    settings: WorkerSettings,
    *,
    on_device_lost: Callable[[str, Exception], None] | None = None,
) -> Segmenter:
    """Find, load and check the model of the settings.

    Args:
        on_device_lost: as of `Segmenter`.

    Raises:
        ModelError: with what to do.
    """
    if not settings.model:
        raise ModelError("MASKQ_MODEL is not set: a hub id, a folder in the hub's layout or `demo`")
    checkpoint = resolve(settings.model, settings.model_revision)
    checkpoint.begin_sha256()
    config = read_json(checkpoint.directory / CONFIG)
    family = family_of(config, checkpoint.directory)
    preprocessor = family.preprocessor(checkpoint.directory)
    backend = _backend_of(settings, checkpoint, preprocessor, family)
    return Segmenter(
        describe(checkpoint, backend, preprocessor, name=settings.model_name),
        backend,
        preprocessor,
        max_batch_size=capacity_of(settings, cuda=backend.device.type == "cuda").max_batch_size,
        max_score_bytes=settings.max_score_bytes,
        multiple=family.multiple(config, min(preprocessor.frame.size)),
        on_device_lost=on_device_lost,
    )


def describe(
    checkpoint: Checkpoint,
    backend: Backend,
    preprocessor: Preprocessor,
    *,
    name: str | None = None,
) -> ModelInfo:
    """Describe a model. name: as it is served; default: the checkpoint's own."""
    return ModelInfo(
        name=name or checkpoint.name,
        revision=checkpoint.revision or f"sha256:{checkpoint.sha256}",
        labels=read_labels(checkpoint.directory),
        backend=backend.name,
        device=str(backend.device),
        dtype=str(backend.dtype).removeprefix("torch."),
        input_size=preprocessor.frame.size,
        preprocessing=preprocessor.description,
    )


def warm_up(segmenter: Segmenter) -> None:
    """Prepare a GPU: run once as jobs will, and with a full batch, which takes the memory it needs.

    On a CPU the self-test does as much. Call it in the model's own thread.

    Raises:
        ModelError: if the model does not run. An error after which the GPU is lost is raised as it is:
            another process may find the GPU working.
    """
    info = segmenter.info
    try:
        _warm_up(segmenter)
    except (PermanentError, RuntimeError) as error:
        if segmenter.guard.is_lost(error):
            raise
        raise ModelError(
            f"{info.name} does not run on {info.device} in batches of "
            f"{segmenter.max_batch_size}: {error}"
        ) from error


def _warm_up(segmenter: Segmenter) -> None:
    segmenter.backend.warm_up(segmenter.max_batch_size)
    if segmenter.backend.device.type == "cpu":
        return
    mask = segmenter.prepare(golden_image())
    # The mask kernel is compiled once with confidence and once without: before a job waits for it.
    confidence = segmenter.prepare(golden_image(), outputs=frozenset({Output.CONFIDENCE}))
    for batch in ([confidence], [mask], [mask] * segmenter.max_batch_size):
        for output in segmenter.run(batch):
            if isinstance(output, Exception):
                raise ModelError(f"{segmenter.info.name} fails on a drawn image: {output}")


def goes_to_gpu(settings: WorkerSettings) -> bool:
    """Whether `load_segmenter` loads the model to a GPU. Raises ModelError for a missing GPU."""
    if settings.dtype == "int8":  # for CPUs
        return False
    return choose_device(settings.device, settings.backend).type == "cuda"


def _backend_of(
    settings: WorkerSettings, checkpoint: Checkpoint, preprocessor: Preprocessor, family: Family
) -> Backend:
    if settings.dtype != "int8":
        return load_backend(
            checkpoint.directory,
            preprocessor,
            family,
            backend=settings.backend,
            device=settings.device,
            dtype=settings.dtype,
        )
    if family.model_type != "dpt":
        raise ModelError(
            f"MASKQ_DTYPE is int8, which {family.architecture} does not support: set it to float32"
        )
    if settings.backend not in ("auto", "cpu") or settings.device not in ("auto", "cpu"):
        raise ModelError(
            f"MASKQ_DTYPE is int8, which is for CPUs; MASKQ_BACKEND is {settings.backend} and "
            f"MASKQ_DEVICE {settings.device}: set one or the other to auto"
        )
    from maskq_worker.model.openvino.load import load_openvino

    return load_openvino(checkpoint, preprocessor)


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
    import torch

    from maskq_worker.model.checkpoint.loading import TransformersNetwork
    from maskq_worker.model.cuda.precision import exact_float32
    from maskq_worker.model.native_backend import NativeBackend
    from maskq_worker.model.network import Network
    from maskq_worker.model.transformers_backend import TRANSFORMERS, TransformersBackend

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
    import torch

    from maskq_worker.model.cuda.faults import NO_KERNELS
    from maskq_worker.model.cuda.load import load_cuda

    try:
        return load_cuda(network, preprocessor, device=device, dtype=dtype)
    except RuntimeError as error:
        if NO_KERNELS not in str(error):
            raise
        raise ModelError(
            f"torch {torch.__version__} has no kernels for {torch.cuda.get_device_name(device)}: "
            "install one that was built for this card, or set MASKQ_DEVICE=cpu"
        ) from error


def choose_device(device: str, backend: str = "auto") -> torch.device:
    """Choose the device: that of the backend, else the first visible GPU, else the CPU.

    A GPU that the settings name is never replaced by a CPU. Raises ModelError.
    """
    import torch

    if backend in ("cpu", "cuda"):
        if device not in ("auto", backend):
            raise ModelError(
                f"MASKQ_BACKEND is {backend} and MASKQ_DEVICE is {device}: set only one of them"
            )
        device = backend
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        return torch.device("cpu")
    if device != "cuda":
        raise ModelError(
            f"MASKQ_DEVICE is {device!r}; expected auto, cpu or cuda (CUDA_VISIBLE_DEVICES picks "
            "the GPU)"
        )
    if not torch.cuda.is_available():
        raise ModelError(
            "MASKQ_DEVICE is cuda, but torch finds no GPU here: check the driver, "
            "CUDA_VISIBLE_DEVICES and that torch was built for CUDA, or set MASKQ_DEVICE=cpu"
        )
    return torch.device("cuda", 0)
