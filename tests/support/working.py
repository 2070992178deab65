"""A worker's pipeline that runs jobs on a thread of this process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def working(bench: Any, model: str = "smallest") -> Iterator[None]:
    """While in the block, jobs of the model are run as they come."""
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(0.02):
            bench.pipeline.run(model)

    thread = threading.Thread(target=run, name="working")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=30)
