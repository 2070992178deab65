"""The bare forwards of both networks: what no queue and no server can beat with them."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from bench.peers.plain import Model, decoded
from maskq_worker.model import load_segmenter
from maskq_worker.settings import WorkerSettings


class Forwards:
    """One image, batch 1, all threads, in this process; by turns."""

    def __init__(self, directory: str, reference: Model, body: bytes) -> None:
        settings = WorkerSettings(model=directory, device="cpu", dtype="float32")
        self._segmenter = load_segmenter(settings)
        image = decoded(body)
        ours = self._segmenter.prepare(image).views.each[0].pixels[None]
        theirs = reference.pixels([image])
        self._ways: dict[str, Callable[[], object]] = {
            "ours": lambda: self._segmenter.backend.forward(ours),
            "transformers": lambda: reference.network(pixel_values=theirs),
        }
        self.seconds: dict[str, list[float]] = {way: [] for way in self._ways}
        self.measure()
        self._warm_up_s, self.seconds = self.seconds, {way: [] for way in self._ways}

    @torch.inference_mode()
    def measure(self) -> None:
        """One forward of each."""
        for way, forward in self._ways.items():
            began = time.perf_counter()
            forward()
            self.seconds[way].append(time.perf_counter() - began)

    def slowest_s(self) -> float:
        """Of the warm-up."""
        return max(max(each) for each in self._warm_up_s.values())
