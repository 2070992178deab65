"""Measure a checkpoint's network in half precision, and store the figures."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from maskq_worker.model.backend import name_of
from maskq_worker.model.checkpoint.files import CONFIG, read_json
from maskq_worker.model.errors import ModelError
from maskq_worker.model.families import family_of
from maskq_worker.model.precision import store
from maskq_worker.model.precision.backends import load_backend
from maskq_worker.model.precision.measure import measure, refuse_too_few, samples

if TYPE_CHECKING:
    from PIL import Image

    from maskq_worker.model.checkpoint.folder import Checkpoint

THRESHOLD: Final = 0.98  # of pixels that agree with float32


def calibrate(
    checkpoint: Checkpoint,
    images: Iterable[Image.Image],
    *,
    dtype: str,
    threshold: float = THRESHOLD,
    backend: str = "auto",
    device: str = "auto",
    on_image: Callable[[int, int], object] = lambda _done, _of: None,
) -> store.Record:
    """Compare the masks of a network in half precision with float32's, and store the figures.

    Below the threshold they are stored, too, but no worker serves the network.

    Args:
        images: RGB, upright, any size.
        dtype: bfloat16 | float16.
        threshold: the share of pixels that must have float32's class, 0..1.
        backend, device: as MASKQ_BACKEND and MASKQ_DEVICE.
        on_image: is called with the number of images that are compared, and of all.

    Raises:
        ModelError: with what to do.
    """
    family = family_of(read_json(checkpoint.directory / CONFIG), checkpoint.directory)
    preprocessor = family.preprocessor(checkpoint.directory)
    given = samples(preprocessor, images)
    refuse_too_few(given, f"measure {dtype}")
    exact, half = (
        load_backend(
            checkpoint.directory, preprocessor, family, backend=backend, device=device, dtype=one
        )
        for one in ("float32", dtype)
    )
    if name_of(half.dtype) != dtype:
        raise ModelError(f"{half.device} does not compute in {dtype}: choose another --dtype")
    measured = measure(exact.forward, half.forward, given, lambda done: on_image(done, len(given)))
    return store.store(
        checkpoint, dtype, half.device, measured, backend=half.name, threshold=threshold
    )
