"""The model thread fed from memory: what it loses against the bare forward, without store and queue."""

from __future__ import annotations

import threading
import time
from typing import Any

from bench.gpu.subject import Subject
from bench.gpu.timing import release
from maskq_worker.batching.batcher import MicroBatcher
from maskq_worker.model import (
    ModelInput,
    PendingOutput,
    Segmenter,
    load_segmenter,
    run_self_test,
    warm_up,
)
from maskq_worker.process.capacity import Capacity, capacity_of
from maskq_worker.settings import WorkerSettings

SECONDS = 6.0


def run(subject: Subject) -> dict[str, Any]:
    """As workers run it, and with one batch less on the device, to see what queueing ahead is worth."""
    settings = WorkerSettings(model=str(subject.directory), device=subject.device.type)
    size = capacity_of(settings, cuda=subject.device.type == "cuda")
    segmenter = load_segmenter(settings)
    try:
        return {
            f"{batches} at once": _measured(subject, segmenter, size, batches)
            for batches in sorted({size.batches, 1}, reverse=True)
        }
    finally:
        segmenter.close()
        release(subject.device)


def _measured(
    subject: Subject, segmenter: Segmenter, size: Capacity, batches: int
) -> dict[str, Any]:
    launched: list[int] = []
    batcher: MicroBatcher[ModelInput, PendingOutput] = MicroBatcher(
        segmenter,
        max_batch_size=size.max_batch_size,
        name="bench-model",
        max_running_batches=batches,
        side_by_side=segmenter.is_side_by_side,
        initialise=lambda: _ready(segmenter),
        on_batch=launched.append,
    )
    batcher.start()
    try:
        rate = _rate(subject, segmenter, batcher, size.concurrency)
    finally:
        batcher.close(drain=False)
    bare = subject.found.get("bare_images_s")
    return {
        "threads": size.concurrency,
        "max_batch_size": size.max_batch_size,
        "mean_batch": round(sum(launched) / max(1, len(launched)), 2),
        "images_s": round(rate, 2),
        "of_bare_forward": round(rate / bare, 3) if bare else None,
    }


def _ready(segmenter: Segmenter) -> None:
    warm_up(segmenter)
    run_self_test(segmenter)


def _rate(subject: Subject, segmenter: Segmenter, batcher: Any, threads: int) -> float:
    """Each thread hands in an image, waits for its mask, and hands in the next."""
    items = [segmenter.prepare(image) for image in subject.scenes(4)]
    end = time.perf_counter() + (0.5 if subject.dry else SECONDS)
    done = [0] * threads

    def ask(number: int) -> None:
        while time.perf_counter() < end:
            batcher.submit(items[number % len(items)]).result().wait()
            done[number] += 1

    each = [threading.Thread(target=ask, args=(number,)) for number in range(threads)]
    began = time.perf_counter()
    for thread in each:
        thread.start()
    for thread in each:
        thread.join()
    return sum(done) / (time.perf_counter() - began)
