"""The naive Celery task of bench/peers, its network on the card: prefork, one image a forward."""

from __future__ import annotations

import gc
import os
import time
from itertools import cycle, islice
from typing import Any

from bench.gpu.subject import Subject
from bench.gpu.timing import reason
from bench.peers import scenes
from bench.peers.celery_peer import CeleryPeer
from bench.scenarios.service import environment
from maskq_standalone.stack import Stack

PROCESSES = (1, 4)
SECONDS = 12.0  # of the measured load, about


class OnTheCard(CeleryPeer):
    """Its network moves to the device that NAIVE_DEVICE names."""

    def command(self) -> list[str]:
        return [part.replace("peers.celery_task", "gpu.naive_task") for part in super().command()]

    def environment(self) -> dict[str, str]:
        return {"NAIVE_DEVICE": os.environ["NAIVE_DEVICE"]}


def run(subject: Subject) -> dict[str, Any]:
    threads = str(os.cpu_count() or 1)
    settings = {"NAIVE_DEVICE": subject.device.type, "OMP_NUM_THREADS": threads}
    with (
        environment({**settings, "MASKQ_DEVICE": subject.device.type}),
        Stack(workers=0, model=str(subject.directory), log_level="WARNING") as stack,
    ):
        rows: list[dict[str, Any]] = []
        for count in PROCESSES[:1] if subject.dry else PROCESSES:
            rows.append({"processes": count})
            try:
                rows[-1] |= one(subject, stack, count)
            except Exception as error:  # noqa: BLE001 - four may not fit where one does
                rows[-1]["failed"] = reason(error)
            gc.collect()  # results that end after their Redis try to reach it, for 20 s each
        return {"rows": rows}


def one(subject: Subject, stack: Stack, processes: int) -> dict[str, Any]:
    peer = OnTheCard(
        f"celery:{processes}", stack, model=str(subject.directory), processes=processes, batch=1
    )
    bodies = scenes.jpegs(4, 0.3)
    bucket, client = stack.s3.bucket, stack.s3.client()
    keys = scenes.upload(client, bucket, f"naive/{processes}", bodies, 8 * processes)
    try:
        peer.start()
        peer.run(keys)  # the first forward of a process is slow
        jobs = round((0.0 if subject.dry else SECONDS) * rate(peer, keys)) or 4
        return {"jobs": jobs, "images_s": round(rate(peer, [*islice(cycle(keys), jobs)]), 2)}
    finally:
        peer.stop()


def rate(peer: OnTheCard, keys: list[str]) -> float:
    """Images a second, all asked for at once."""
    began = time.perf_counter()
    peer.run(keys)
    return len(keys) / (time.perf_counter() - began)
