"""Images a second of the bare forward, by batch: transformers as it comes, ours, ours with graphs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from bench.gpu.subject import Subject
from bench.gpu.timing import peak_mib, reason, release, seconds, wall_seconds
from maskq_worker.model.backend import PendingMask
from maskq_worker.model.cuda.backend import CudaBackend
from maskq_worker.model.cuda.faults import is_fault

SIZE = (480, 640)  # px (H, W) of the images that masks are drawn for
SMALL = (48, 64)  # the same, dry
SLOW_MS = 1500.0  # a batch


def run(subject: Subject) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    memory, broken = {}, {}
    for name, ways in (
        ("transformers float32", partial(transformers, subject, torch.float32)),
        ("transformers float16", partial(transformers, subject, torch.float16)),
        ("ours", partial(ours, subject)),
    ):
        try:
            release(subject.device)
            for row in ways():
                rows.append(row)
                subject.keep(rows)
        except RuntimeError as error:  # the rows before it are wanted
            broken[name] = reason(error)
        memory[name] = peak_mib(subject.device)
    rates = [row["images_s"] for row in rows if row["way"].startswith("bare, ours") and "ms" in row]
    bare = subject.found["bare_images_s"] = max(rates, default=None)
    found = {"rows": rows, "best_bare_images_s": bare, "memory": memory}
    return {"failed": broken, **found} if broken else found


def transformers(subject: Subject, dtype: torch.dtype) -> Iterator[dict[str, Any]]:
    network = subject.transformers(dtype)
    name = str(dtype).removeprefix("torch.")
    for batch in subject.batches:
        values = subject.normalised(subject.pixels(batch), dtype)
        with torch.inference_mode(), torchs_own_tf32():
            forward = partial(network, pixel_values=values)
            row = _row(subject, f"bare, transformers {name}", batch, forward)
        yield row
        if row.get("ms", math.inf) > SLOW_MS:
            return  # on a small card larger batches take minutes or do not fit, and say nothing new


@contextmanager
def torchs_own_tf32() -> Iterator[None]:
    """As torch comes: convolutions in TF32, matrix products not. `Subject` turns it off for all."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = True
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def ours(subject: Subject) -> Iterator[dict[str, Any]]:
    backend, size = subject.ours(), SMALL if subject.dry else SIZE
    dtype = str(backend.dtype).removeprefix("torch.")
    for batch in subject.batches:
        pixels = subject.pixels(batch)
        with torch.inference_mode():
            for way, forward in bare(backend, pixels).items():
                yield _row(subject, f"bare, ours {dtype}, {way}", batch, forward)
        host = list(pixels.cpu().numpy())
        yield _row(subject, f"from 8 bit in memory, {dtype}", batch, partial(backend.forward, host))
        yield _row(subject, f"to masks in memory, {dtype}", batch, Ahead(backend, host, size))
        waiting = partial(wall_seconds, Waiting(backend, host, size), subject.device, runs=5)
        yield _tried("to masks, each batch waited for", batch, waiting)


def bare(backend: CudaBackend, pixels: torch.Tensor) -> dict[str, Callable[[], Any]]:
    """Pixels that lie on the device to scores there: normalised, forward, upsampled."""
    ways = {"eager": lambda: backend.upsample(backend.compute(pixels))}
    if backend.graphs is not None:
        graphs = backend.graphs
        ways["graphs"] = lambda: backend.upsample(graphs(pixels))
    return ways


class Waiting:
    """A batch from pixels in memory to masks in memory."""

    def __init__(self, backend: CudaBackend, images: list[Any], size: tuple[int, int]) -> None:
        self._backend, self._images, self._size = backend, images, size

    def __call__(self) -> None:
        for mask in self.queue():
            mask.wait()

    def queue(self) -> list[PendingMask]:
        scores = self._backend.forward(self._images)
        return [self._backend.start_mask(one, self._size) for one in scores]


class Ahead(Waiting):
    """The same, but a batch is waited for only when the next one is queued."""

    def __init__(self, backend: CudaBackend, images: list[Any], size: tuple[int, int]) -> None:
        super().__init__(backend, images, size)
        self._before: list[PendingMask] = []

    def __call__(self) -> None:
        queued = self.queue()
        for mask in self._before:
            mask.wait()
        self._before = queued


def _row(subject: Subject, way: str, batch: int, forward: Callable[[], Any]) -> dict[str, Any]:
    least_s = 0.01 if subject.dry else 0.4
    return _tried(way, batch, partial(seconds, forward, subject.device, least_s=least_s))


def _tried(way: str, batch: int, measure: Callable[[], float]) -> dict[str, Any]:
    """One row. What finds no memory says so in its own, and the others are measured."""
    row = {"way": way, "batch": batch}
    try:
        took = measure()
    except RuntimeError as error:  # torch.OutOfMemoryError, or cuBLAS' and cuDNN's words for it
        if is_fault(error):
            raise  # nothing can be measured in this process any more
        return {**row, "failed": reason(error)}
    return {**row, "ms": round(1e3 * took, 3), "images_s": round(batch / took, 2)}
