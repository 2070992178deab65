"""Load the model of a worker's settings: find the checkpoint, load its networks, warm them up.

Imports torch only inside functions: `maskq_worker.model` must be importable without it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from maskq.contract import Output
from maskq_worker.errors import PermanentError
from maskq_worker.model.backend import name_of
from maskq_worker.model.checkpoint.files import CONFIG, read_json
from maskq_worker.model.checkpoint.folder import Checkpoint, resolve
from maskq_worker.model.checkpoint.labels import read_labels
from maskq_worker.model.errors import ModelError
from maskq_worker.model.families import family_of
from maskq_worker.model.inputs_and_outputs import ModelInfo
from maskq_worker.model.precision.devices import choose_device
from maskq_worker.model.segmenter import Segmenter
from maskq_worker.model.self_test import golden_image
from maskq_worker.process.capacity import capacity_of

if TYPE_CHECKING:
    from maskq_worker.model.backend import Backend
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
    from maskq_worker.model.precision.choice import load_networks

    checkpoint = resolve(settings.model, settings.model_revision)
    checkpoint.begin_sha256()
    config = read_json(checkpoint.directory / CONFIG)
    family = family_of(config, checkpoint.directory)
    preprocessor = family.preprocessor(checkpoint.directory)
    networks = load_networks(settings, checkpoint, preprocessor, family)
    backend = networks.backend
    capacity = capacity_of(settings, cuda=backend.device.type == "cuda")
    return Segmenter(
        describe(
            checkpoint,
            backend,
            preprocessor,
            name=settings.model_name,
            precision=networks.precision,
        ),
        backend,
        preprocessor,
        rating=networks.rating,
        max_batch_size=capacity.max_batch_size,
        side_by_side=backend.device.type == "cpu" and capacity.batches > 1,
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
    precision: str | None = None,
) -> ModelInfo:
    """Describe a model.

    name: as it is served; default: the checkpoint's own. precision: as of `ModelInfo`.
    """
    return ModelInfo(
        name=name or checkpoint.name,
        revision=checkpoint.revision or f"sha256:{checkpoint.sha256}",
        labels=read_labels(checkpoint.directory),
        backend=backend.name,
        device=str(backend.device),
        dtype=name_of(backend.dtype),
        input_size=preprocessor.frame.size,
        preprocessing=preprocessor.description,
        precision=precision,
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
    for backend in segmenter.backends:
        backend.warm_up(segmenter.max_batch_size)
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
