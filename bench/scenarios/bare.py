"""The bare forward: the same weights, threads and batch, in a process that does nothing else.

`python -m bench.scenarios.bare` runs the forward alone (8-bit pixels on the host to scores, as the
worker's model thread calls it), then forward and mask, by turns, and prints the figures as JSON. It
does so in the main thread and in one of its own, as a worker does, because OpenMP's threads wait
differently where there are several pools of them. The faster one counts: E is not to be flattered.
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
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.scenarios.pictures import PLAIN, scene
from bench.scenarios.service import ROOT, Service
from maskq_worker.sizes import cpu_share, sizes

if TYPE_CHECKING:
    from maskq_worker.model import ModelInput, Segmenter

_LEAST = 3  # runs of each


@dataclass(frozen=True, slots=True)
class Speed:
    """Of one way at one size of batch."""

    median_s: float  # a batch
    rate: float  # images a second, over all runs
    cpu_s: float  # an image


@dataclass(frozen=True, slots=True)
class Bare:
    device: str
    dtype: str
    backend: str
    threads: int
    in_thread: str  # main | own: which of the two was faster
    forward: dict[int, Speed]  # by size of batch
    whole: dict[int, Speed]  # forward and masks

    @property
    def best(self) -> int:
        """The size of batch with the highest rate of forwards."""
        return max(self.forward, key=lambda size: self.forward[size].rate)


def measure(service: Service, *, seconds: float, size: tuple[int, int] = PLAIN) -> Bare:
    """In a process of its own, with a worker's settings and share of the cores.

    seconds: for each size of batch, in each thread; size: (width, height) px of the image, which
    masks depend on.
    """
    share = cpu_share(len(service.stack.workers))
    command = [sys.executable, "-m", "bench.scenarios.bare", "--seconds", str(seconds)]
    done = subprocess.run(
        [*command, "--size", str(size[0]), str(size[1])],
        env=os.environ | share, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    return parse(json.loads(done.stdout))


def parse(document: dict[str, Any]) -> Bare:
    def speeds(way: str) -> dict[int, Speed]:
        return {int(size): Speed(**each) for size, each in document[way].items()}

    return Bare(**document | {"forward": speeds("forward"), "whole": speeds("whole")})


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=float, default=10.0)
    options.add_argument("--size", type=int, nargs=2, default=PLAIN)
    chosen = options.parse_args()

    import torch
    from PIL import Image

    from maskq_worker.model import load_segmenter
    from maskq_worker.settings import WorkerSettings

    settings = WorkerSettings.load()
    segmenter = load_segmenter(settings)
    item = segmenter.prepare(Image.open(io.BytesIO(scene(0, tuple(chosen.size)))).convert("RGB"))
    largest = sizes(settings, cuda=segmenter.info.device.startswith("cuda")).max_batch_size
    with ThreadPoolExecutor(1) as thread:
        places = {
            "main": measured(segmenter, item, largest, chosen.seconds),
            "own": thread.submit(measured, segmenter, item, largest, chosen.seconds).result(),
        }
    best = max(places, key=lambda place: max(s["rate"] for s in places[place]["forward"].values()))
    document = {
        "device": segmenter.info.device,
        "dtype": segmenter.info.dtype,
        "backend": segmenter.info.backend,
        "threads": torch.get_num_threads(),
        "in_thread": best,
        **places[best],
    }
    print(json.dumps(document))


def measured(
    segmenter: Segmenter, item: ModelInput, largest: int, seconds: float
) -> dict[str, dict[int, dict[str, float]]]:
    """By way and size of batch, in the thread that calls."""
    speeds: dict[str, dict[int, dict[str, float]]] = {"forward": {}, "whole": {}}
    for size in _powers_up_to(largest):
        pixels = np.stack([item.views.each[0].pixels] * size)
        ways: dict[str, Callable[[], Any]] = {
            "forward": partial(segmenter._forward, pixels),
            "whole": partial(segmenter.run, [item] * size),
        }
        for way, speed in by_turns(ways, size, seconds).items():
            speeds[way][size] = speed
    return speeds


def by_turns(
    ways: Mapping[str, Callable[[], Any]], size: int, seconds: float
) -> dict[str, dict[str, float]]:
    """For `seconds`, one after another, so that what else runs here slows all of them."""
    for work in ways.values():
        work()
    took: dict[str, list[float]] = {way: [] for way in ways}
    cpu: dict[str, list[float]] = {way: [] for way in ways}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(min(took.values(), key=len)) < _LEAST:
        for way, work in ways.items():
            began, cpu_began = time.perf_counter(), time.process_time()
            work()
            took[way].append(time.perf_counter() - began)
            cpu[way].append(time.process_time() - cpu_began)
    return {
        way: {
            "median_s": statistics.median(took[way]),
            "rate": size * len(took[way]) / sum(took[way]),
            "cpu_s": statistics.fmean(cpu[way]) / size,
        }
        for way in ways
    }


def _powers_up_to(largest: int) -> list[int]:
    return sorted({2**n for n in range(largest.bit_length()) if 2**n <= largest} | {largest})


if __name__ == "__main__":
    main()
