"""maskq: worker processes as `maskq up` starts them, and the client."""

from __future__ import annotations

from collections.abc import Sequence

from bench.peers.contender import WAIT_S, Contender
from maskq import Client
from maskq.contract.places import S3Place
from maskq_standalone.workers import DRAIN_S, Worker


class Maskq(Contender):
    workers: tuple[Worker, ...] = ()

    def start(self) -> None:
        threads = {"OMP_NUM_THREADS": str(self.setup.threads), "MASKQ_DEVICE": "cpu"}
        self.workers = tuple(self.stack.start_workers(self.setup.processes, threads))

    def run(self, keys: Sequence[str]) -> list[str]:
        with Client.from_env(**self._settings()) as client:
            batch = client.submit_many([f"s3://{self.setup.bucket}/{key}" for key in keys])
            ended = {job.id: job for job in batch.as_completed(timeout=WAIT_S)}
            places = [ended[job.id].result().uri("mask") for job in batch.jobs]
        return [S3Place.parse(place).key for place in places]

    def stop(self) -> None:
        for worker in self.workers:
            worker.child.stop(DRAIN_S)
            self.stack.workers.remove(worker)
        self.workers = ()

    def _settings(self) -> dict[str, str]:
        ours = ("redis_url", "s3_endpoint_url", "s3_bucket", "model")
        return {name: self.stack.environment[f"MASKQ_{name.upper()}"] for name in ours}
