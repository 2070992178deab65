"""`python -m bench.scenarios.worker`: the real worker, which also writes down what is measured.

--batches FOLDER   each batch that the model ran: when, how many images, how long
--requests FOLDER  each call of the object store
--null             the model's forward is replaced by scores of one drawn image (bench/null_model.py)

Nothing else differs from `python -m maskq_worker`.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

from bench.null_model import without_forward
from maskq_worker import __main__ as worker
from maskq_worker import bootstep
from maskq_worker.model import ModelInput, ModelOutput, Segmenter, load_segmenter
from maskq_worker.object_store import ObjectStore

_REQUESTS = ("get", "find", "put", "create", "delete", "delete_under", "list_under", "answers")
Run = Callable[[Sequence[ModelInput]], list[ModelOutput | Exception]]


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
            segmenter.run = noted(segmenter.run, _file(chosen.batches))  # type: ignore[method-assign, assignment]
        return segmenter

    bootstep.load_segmenter = load
    if chosen.requests:
        note_requests(_file(chosen.requests))
    return worker.main()


def noted(run: Run, file: int) -> Run:
    """`run`, which writes a line for each batch: when it began, its size, seconds, of the forward."""

    def and_noted(batch: Sequence[ModelInput]) -> list[ModelOutput | Exception]:
        began_at, began = time.time(), time.perf_counter()
        outputs = run(batch)
        took = time.perf_counter() - began
        forward = next((one.forward_ms / 1e3 for one in outputs if isinstance(one, ModelOutput)), 0)
        os.write(file, f"{began_at:.6f} {len(batch)} {took:.6f} {forward:.6f}\n".encode())
        return outputs

    return and_noted


def note_requests(file: int) -> None:
    """One line for each call of the object store, which is one HTTP request but for listings."""
    for name in _REQUESTS:
        if method := getattr(ObjectStore, name, None):
            setattr(ObjectStore, name, _announced(name, method, file))


def _announced(name: str, method: Callable[..., Any], file: int) -> Callable[..., Any]:
    line = f"{name}\n".encode()

    @wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        os.write(file, line)
        return method(*args, **kwargs)

    return call


def _file(folder: Path) -> int:
    """One for each process; what is appended in one write is never mixed with another thread's."""
    return os.open(folder / str(os.getpid()), os.O_CREAT | os.O_WRONLY | os.O_APPEND)


if __name__ == "__main__":
    sys.exit(main())
