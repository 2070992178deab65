"""The naive Celery task of bench/peers, its network on the card: prefork, one image a forward."""

from __future__ import annotations

import gc
import os
import time
from typing import Any

from bench.gpu.subject import Subject
from bench.gpu.timing import release
from bench.peers import scenes
from bench.peers.celery_peer import CeleryPeer
from bench.scenarios.service import environment
from maskq_standalone.stack import Stack

PROCESSES = (1, 4)
JOBS = 400  # for each process


class OnTheCard(CeleryPeer):
    """Its network moves to the device that MASKQ_BENCH_DEVICE names."""

    def command(self) -> list[str]:
        return [part.replace("peers.celery_task", "gpu.naive_task") for part in super().command()]

    def environment(self) -> dict[str, str]:
        return {"NAIVE_DEVICE": os.environ["NAIVE_DEVICE"]}


def run(subject: Subject) -> dict[str, Any]:
    release(subject.device)
    threads = str(os.cpu_count() or 1)
    settings = {"NAIVE_DEVICE": subject.device.type, "OMP_NUM_THREADS": threads}
    with (
        environment({**settings, "MASKQ_DEVICE": subject.device.type}),
        Stack(workers=0, model=str(subject.directory), log_level="WARNING") as stack,
    ):
        counts = PROCESSES[:1] if subject.dry else PROCESSES
        return {"rows": [one(subject, stack, count) for count in counts]}


def one(subject: Subject, stack: Stack, processes: int) -> dict[str, Any]:
    peer = OnTheCard(
        f"celery:{processes}", stack, model=str(subject.directory), processes=processes, batch=1
    )
    bodies = scenes.jpegs(4, 0.3)
    bucket, client = stack.s3.bucket, stack.s3.client()
    jobs = 4 if subject.dry else JOBS * processes
    try:
        peer.start()
        peer.run(scenes.upload(client, bucket, f"warm/{processes}", bodies, 8 * processes))
        keys = scenes.upload(client, bucket, f"naive/{processes}", bodies, jobs)
        began = time.perf_counter()
        peer.run(keys)
        rate = jobs / (time.perf_counter() - began)
    finally:
        gc.collect()  # results that end after their Redis try to reach it, for 20 s each
        peer.stop()
    return {"processes": processes, "jobs": jobs, "images_s": round(rate, 2)}
