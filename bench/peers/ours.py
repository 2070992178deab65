"""maskq: worker processes as `maskq up` starts them, and the client."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

import torch
from demo_scenes.scenes import draw

from bench.peers.contender import WAIT_S, Contender
from bench.scenarios.processes import with_children
from maskq import Client
from maskq.contract.locations import S3Uri
from maskq_standalone.workers import Worker
from maskq_worker.model.checkpoint.folder import resolve
from maskq_worker.model.openvino import cache
from maskq_worker.model.openvino.load import quantize
from maskq_worker.model.precision import calibrate as half
from maskq_worker.model.precision import store

SEEDS = range(8_000_000, 8_000_018)  # of scenes that nobody else draws


class Maskq(Contender):
    dtype = "float32"
    precision: str | None = None
    workers: tuple[Worker, ...] = ()

    def start(self) -> None:
        chosen = {
            "OMP_NUM_THREADS": str(self.setup.threads),
            "MASKQ_DEVICE": "cpu",
            "MASKQ_DTYPE": self.dtype,
            "MASKQ_KEY_PREFIX": self.name,  # else another contender's worker would help
        }
        if self.precision:
            chosen["MASKQ_PRECISION"] = self.precision
        self.workers = tuple(self.stack.start_workers(self.setup.processes, chosen))

    def run(self, keys: Sequence[str]) -> list[str]:
        with Client.from_env(**self._settings()) as client:
            batch = client.submit_many([f"s3://{self.setup.bucket}/{key}" for key in keys])
            ended = {job.id: job for job in batch.as_completed(timeout=WAIT_S)}
            results = [ended[job.id].result() for job in batch.jobs]
        shares = [share for one in results if (share := one.details.uncertain_share) is not None]
        self.uncertain_share = fmean(shares) if shares else None
        return [S3Uri.parse(one.uri("mask")).key for one in results]

    def stop(self) -> None:
        for worker in self.workers:
            worker.child.stop(worker.kill_after_s)
            self.stack.workers.remove(worker)
        self.workers = ()

    @property
    def pids(self) -> list[int]:
        return [pid for worker in self.workers for pid in with_children(worker.pid)]

    def _settings(self) -> dict[str, str]:
        ours = ("redis_url", "s3_endpoint_url", "s3_bucket", "model")
        shared = {name: self.stack.environment[f"MASKQ_{name.upper()}"] for name in ours}
        return {**shared, "key_prefix": self.name}


class Maskq8(Maskq):
    """With the 8-bit network, which `calibrate` builds where it is not there."""

    dtype = "int8"


class MaskqHalf(Maskq):
    """With half precision, which `measure_half` measures where that was not done."""

    dtype = "bfloat16"
    precision = "fast"


class MaskqCertified(MaskqHalf):
    """And float32 again for images with many uncertain pixels."""

    precision = "certified"


def measure_half(directory: str) -> store.Record:
    """On drawn scenes. Served however well it agrees, as `calibrate`."""
    checkpoint = resolve(directory)
    images = (draw(seed).image for seed in SEEDS)
    found = store.find(checkpoint, MaskqHalf.dtype, torch.device("cpu"))
    return found or half.calibrate(checkpoint, images, dtype=MaskqHalf.dtype, threshold=0.0)


def calibrate(directory: str) -> cache.Record:
    """From drawn scenes, where it is not there yet. Served however well it agrees: what that costs in
    pixels is in the table."""
    checkpoint = resolve(directory)
    path = cache.folder(cache.Source.of(checkpoint)) / cache.RECORD
    if not path.is_file():
        quantize(checkpoint, (draw(seed).image for seed in SEEDS), threshold=0.0)
    return cache.load(checkpoint)[1]
