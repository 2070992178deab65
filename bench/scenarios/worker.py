"""`python -m bench.scenarios.worker`: the real worker, which also writes down what is measured.

--batches FOLDER   each batch that the model ran: when, how many images, how long, the processor's time
--requests FOLDER  how many calls of the object store, by kind
--null             the model's forward is replaced by scores of one drawn image (bench/null_model.py)
--forward-ms MS    forward and mask are replaced by a sleep of so many milliseconds for each image, in
                   which another device would compute them

Nothing else differs from `python -m maskq_worker`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import torch

from bench.null_model import on_another_device, without_forward
from bench.scenarios import processes
from maskq_worker import __main__ as worker
from maskq_worker.batching.interface import BatchContext, PendingBatch
from maskq_worker.broker import bootstep
from maskq_worker.model import ModelInput, PendingOutput, Segmenter, load_segmenter
from maskq_worker.storage.object_store import ObjectStore

REQUESTS_EVERY_S = 0.2
_REQUESTS = ("get", "find", "put", "create", "delete", "list_of")


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--batches", type=Path)
    options.add_argument("--requests", type=Path)
    options.add_argument("--null", action="store_true")
    options.add_argument("--forward-ms", type=float)
    chosen = options.parse_args()
    sys.argv = sys.argv[:1]  # the worker reads its own

    def load(settings: Any, **options: Any) -> Segmenter:
        segmenter = load_segmenter(settings, **options)
        if chosen.null:
            without_forward(segmenter)
        if chosen.forward_ms is not None:
            on_another_device(segmenter, chosen.forward_ms / 1e3)
        if chosen.batches:
            note_batches(segmenter, _file(chosen.batches))
        return segmenter

    bootstep.load_segmenter = load
    if chosen.requests:
        note_requests(chosen.requests / str(os.getpid()))
    return worker.main()


class Forwards(threading.local):
    """What the forwards of this thread took since `clear`."""

    seconds = 0.0
    cpu_s = 0.0

    def clear(self) -> None:
        self.seconds = self.cpu_s = 0.0


@dataclass(frozen=True, slots=True)
class NotedBatch:
    """A batch that writes its line when it has ended."""

    pending: PendingBatch[PendingOutput]
    file: int
    size: int
    began_at: float  # by time.time()
    began: float  # by time.perf_counter()
    forwards: Forwards
    forward_s: float
    forward_cpu_s: float

    def wait(self) -> Sequence[PendingOutput | Exception]:
        self.forwards.clear()
        outputs = self.pending.wait()  # on a CPU with several images at once this computes
        took = time.perf_counter() - self.began
        forward_s = self.forward_s + self.forwards.seconds
        times = f"{took:.6f} {forward_s:.6f} {self.forward_cpu_s + self.forwards.cpu_s:.6f}"
        os.write(self.file, f"{self.began_at:.6f} {self.size} {times}\n".encode())
        return outputs


def note_batches(segmenter: Segmenter, file: int) -> None:
    """A line for each batch: when it began, its size, seconds until the model's thread was done with
    it (on a CPU with the masks, too, that it made), of these until all was launched (on a CPU: the
    forward), and the processor's for the forward."""
    submit_batch, forward = segmenter.submit_batch, segmenter.backend.forward
    forwards = Forwards()
    helping = list[int]()  # OpenMP's threads for the model's; those for masks are others

    def timed_forward(pixels: Any) -> Any:
        if not helping:
            helping.extend(processes.openmp_threads())
        own = [] if torch.get_num_threads() == 1 else helping
        began, cpu = time.perf_counter(), time.thread_time() + processes.threads_s(own)
        scores = forward(pixels)
        forwards.cpu_s += time.thread_time() + processes.threads_s(own) - cpu
        forwards.seconds += time.perf_counter() - began
        return scores

    def noted_submit_batch(batch: Sequence[ModelInput], context: BatchContext) -> NotedBatch:
        forwards.clear()
        began_at, began = time.time(), time.perf_counter()
        pending = submit_batch(batch, context)
        launched_s = time.perf_counter() - began
        forward_s = launched_s if segmenter.info.device != "cpu" else forwards.seconds
        return NotedBatch(
            pending, file, len(batch), began_at, began, forwards, forward_s, forwards.cpu_s
        )

    if segmenter.info.device == "cpu":  # elsewhere a forward takes none, and to ask would slow it
        segmenter.backend.forward = timed_forward  # type: ignore[method-assign]
    segmenter.submit_batch = noted_submit_batch  # type: ignore[assignment,method-assign]


def note_requests(file: Path) -> None:
    """How often each call of the object store was made, which is one HTTP request but for listings.

    Counted, and written down a few times a second: a write for each call would cost as much as it.
    """
    counts: Counter[str] = Counter()
    for name in _REQUESTS:
        setattr(ObjectStore, name, _counted(name, getattr(ObjectStore, name), counts))

    def write_down() -> None:
        written: Counter[str] = Counter()
        while True:
            if counts != written:
                written = counts.copy()
                new = file.with_suffix(".new")
                new.write_text(json.dumps(written))
                new.replace(file)
            time.sleep(REQUESTS_EVERY_S)

    threading.Thread(target=write_down, daemon=True).start()


def _counted(name: str, method: Callable[..., Any], counts: Counter[str]) -> Callable[..., Any]:
    @wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        counts[name] += 1  # by some threads at once: a figure to the hundredth does not mind one
        return method(*args, **kwargs)

    return call


def _file(folder: Path) -> int:
    """One for each process; what is appended in one write is never mixed with another thread's."""
    return os.open(folder / str(os.getpid()), os.O_CREAT | os.O_WRONLY | os.O_APPEND)


if __name__ == "__main__":
    sys.exit(main())
