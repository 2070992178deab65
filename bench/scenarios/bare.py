"""The bare forward: the same weights, threads and batch, in a process that does nothing else.

`python -m bench.scenarios.bare` runs the forward alone (8-bit pixels on the host to scores, as the
worker's model thread calls it), then forward and mask, by turns, for as many seconds as a line of its
input says, and prints the figures as a line of JSON. It does so in the main thread and in one of its
own, as a worker does, because OpenMP's threads wait differently where there are several pools of them.
The faster one counts, since E is not to be flattered, and so does the faster size of batch; from the
second line on only these are measured. Where a worker computes an image on each core while several
wait, that is measured too: its rate is above that of one forward on all cores.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.scenarios.pictures import PLAIN, scene
from bench.scenarios.service import ROOT, Service
from maskq_worker.model.pending import compute_on_one_core
from maskq_worker.process.capacity import capacity_of
from maskq_worker.process.cpu import cpu_environment

if TYPE_CHECKING:
    from maskq_worker.model import ModelInput, Segmenter

_LEAST = 2  # runs of each


@dataclass(frozen=True, slots=True)
class Speed:
    """Of one way at one size of batch."""

    median_s: float  # a batch
    rate: float  # images a second, over all runs


@dataclass(frozen=True, slots=True)
class Bare:
    device: str
    dtype: str
    backend: str
    threads: int
    in_thread: str  # main | own: which of the two was faster
    forward: dict[int, Speed]  # by size of batch
    whole: dict[int, Speed]  # forward and masks
    lanes: int  # images that a worker computes at the same time, each on a core; 1: batches
    side_by_side: Speed | None = None  # forwards of one image in all lanes at once

    @property
    def best(self) -> int:
        """The size of batch with the highest rate of forwards."""
        return max(self.forward, key=lambda size: self.forward[size].rate)


def measure(service: Service, *, seconds: float, size: tuple[int, int] = PLAIN) -> Bare:
    """Once, every size of batch; arguments as of `started`."""
    with started(service, seconds=seconds, size=size) as again:
        return again()


@contextmanager
def started(
    service: Service, *, seconds: float, size: tuple[int, int] = PLAIN
) -> Iterator[Callable[[], Bare]]:
    """A process with a worker's settings and share of the cores, which measures when it is called.

    seconds: for each size of batch, in each thread; size: (width, height) px of the image, which
    masks depend on.
    """
    child = subprocess.Popen(
        [sys.executable, "-m", "bench.scenarios.bare", "--size", str(size[0]), str(size[1])],
        env=os.environ | cpu_environment(len(service.stack.workers)), cwd=ROOT, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert child.stdin is not None
    assert child.stdout is not None
    stdin, stdout = child.stdin, child.stdout

    def measured_now() -> Bare:
        stdin.write(f"{seconds}\n")
        stdin.flush()
        if not (line := stdout.readline()):
            raise RuntimeError(f"the bare forward's process ended with {child.wait()}")
        return parse(json.loads(line))

    try:
        yield measured_now
    finally:
        stdin.close()  # it has no more lines to read, and ends
        child.wait()
        stdout.close()


def parse(document: dict[str, Any]) -> Bare:
    def speeds(way: str) -> dict[int, Speed]:
        return {int(size): Speed(**each) for size, each in document[way].items()}

    found = document | {"forward": speeds("forward"), "whole": speeds("whole")}
    if "side_by_side" in document:
        found["side_by_side"] = Speed(**document["side_by_side"])
    return Bare(**found)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--size", type=int, nargs=2, default=PLAIN)
    chosen = options.parse_args()

    import torch
    from PIL import Image

    from maskq_worker.model import load_segmenter
    from maskq_worker.settings import WorkerSettings

    settings = WorkerSettings.load()
    segmenter = load_segmenter(settings)
    item = segmenter.prepare(Image.open(io.BytesIO(scene(0, tuple(chosen.size)))).convert("RGB"))
    info = segmenter.info
    capacity = capacity_of(settings, cuda=info.device.startswith("cuda"))
    lanes = capacity.batches if segmenter.is_side_by_side else 1
    about = {
        "device": info.device,
        "dtype": info.dtype,
        "backend": info.backend,
        "threads": torch.get_num_threads(),
        "lanes": lanes,
    }
    places = ["main", "own"]
    batches = _powers_up_to(capacity.max_batch_size)
    with ThreadPoolExecutor(1) as thread:
        for line in sys.stdin:
            found = {
                place: measured(place, thread, segmenter, item, batches, float(line))
                for place in places
            }
            best = max(found, key=lambda place: _best_rate(found[place]["forward"])[0])
            about["in_thread"] = best
            if lanes > 1:
                about["side_by_side"] = in_lanes(lanes, segmenter, item, float(line))
            print(json.dumps(about | found[best]), flush=True)
            places, batches = [best], [_best_rate(found[best]["forward"])[1]]


def measured(
    place: str,
    thread: ThreadPoolExecutor,
    segmenter: Segmenter,
    item: ModelInput,
    batches: Sequence[int],
    seconds: float,
) -> dict[str, dict[int, dict[str, float]]]:
    """By way and size of batch, in this thread or in `thread`."""
    speeds: dict[str, dict[int, dict[str, float]]] = {"forward": {}, "whole": {}}
    for size in batches:
        pixels = np.stack([item.views.each[0].pixels] * size)
        ways: dict[str, Callable[[], Any]] = {
            "forward": partial(segmenter.backend.forward, pixels),
            "whole": partial(segmenter.run, [item] * size),
        }
        work = partial(by_turns, ways, size, seconds)
        for way, speed in (work() if place == "main" else thread.submit(work).result()).items():
            speeds[way][size] = speed
    return speeds


def in_lanes(
    lanes: int, segmenter: Segmenter, item: ModelInput, seconds: float
) -> dict[str, float]:
    """Forwards of one image, in as many threads at once, each on a core of its own."""
    pixels = np.stack([item.views.each[0].pixels])

    def lane(_: int) -> dict[str, float]:
        compute_on_one_core()
        return by_turns({"forward": partial(segmenter.backend.forward, pixels)}, 1, seconds)[
            "forward"
        ]

    with ThreadPoolExecutor(lanes) as threads:
        each = list(threads.map(lane, range(lanes)))
    return {
        "median_s": statistics.median(one["median_s"] for one in each),
        "rate": sum(one["rate"] for one in each),
    }


def by_turns(
    ways: Mapping[str, Callable[[], Any]], size: int, seconds: float
) -> dict[str, dict[str, float]]:
    """For `seconds`, one after another, so that what else runs here slows all of them."""
    for work in ways.values():
        work()
    took: dict[str, list[float]] = {way: [] for way in ways}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(min(took.values(), key=len)) < _LEAST:
        for way, work in ways.items():
            began = time.perf_counter()
            work()
            took[way].append(time.perf_counter() - began)
    return {
        way: {
            "median_s": statistics.median(took[way]),
            "rate": size * len(took[way]) / sum(took[way]),
        }
        for way in ways
    }


def _best_rate(speeds: Mapping[int, Mapping[str, float]]) -> tuple[float, int]:
    """The highest rate, and the size of batch that has it."""
    return max((speed["rate"], size) for size, speed in speeds.items())


def _powers_up_to(largest: int) -> list[int]:
    return sorted({2**n for n in range(largest.bit_length()) if 2**n <= largest} | {largest})


if __name__ == "__main__":
    main()
