"""`python -m bench.scenarios.worker`: the real worker, which also writes down what is measured.

--batches FOLDER   each batch that the model ran: when, how many images, how long, the processor's time
--requests FOLDER  how many calls of the object store, by kind
--null             the model's forward is replaced by scores of one drawn image (bench/null_model.py)

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
from functools import wraps
from pathlib import Path
from typing import Any

from bench.null_model import without_forward
from bench.scenarios import processes
from maskq_worker import __main__ as worker
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
    chosen = options.parse_args()
    sys.argv = sys.argv[:1]  # the worker reads its own

    def load(settings: Any) -> Segmenter:
        segmenter = load_segmenter(settings)
        if chosen.null:
            without_forward(segmenter)
        if chosen.batches:
            note_batches(segmenter, _file(chosen.batches))
        return segmenter

    bootstep.load_segmenter = load
    if chosen.requests:
        note_requests(chosen.requests / str(os.getpid()))
    return worker.main()


def note_batches(segmenter: Segmenter, file: int) -> None:
    """A line for each batch: when it began, its size, seconds until the model's thread was done with
    it (on a CPU with the masks, too, that it made), of these until all was launched (on a CPU: the
    forward), and the processor's for the forward."""
    launch, forward, spent = segmenter.launch, segmenter._forward, list[float]()
    helping = list[int]()  # OpenMP's threads for the model's; those for masks are others

    def timed_forward(pixels: Any) -> Any:
        if not helping:
            helping.extend(processes.openmp_threads())
        began = time.thread_time() + processes.threads_s(helping)
        scores = forward(pixels)
        spent.append(time.thread_time() + processes.threads_s(helping) - began)
        return scores

    def noted_launch(
        batch: Sequence[ModelInput],
    ) -> Callable[[], list[PendingOutput | Exception]]:
        spent.clear()
        began_at, began = time.time(), time.perf_counter()
        ending = launch(batch)
        forward_s, forward_cpu_s = time.perf_counter() - began, sum(spent)

        def noted_ending() -> list[PendingOutput | Exception]:
            scored = ending()
            took = time.perf_counter() - began
            line = f"{began_at:.6f} {len(batch)} {took:.6f} {forward_s:.6f} {forward_cpu_s:.6f}\n"
            os.write(file, line.encode())
            return scored

        return noted_ending

    if segmenter.info.device == "cpu":  # elsewhere a forward takes none, and to ask would slow it
        segmenter._forward = timed_forward  # type: ignore[method-assign]
    segmenter.launch = noted_launch  # type: ignore[method-assign]


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
