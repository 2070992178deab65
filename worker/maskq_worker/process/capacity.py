"""How many jobs and images a process handles at the same time, if the settings do not say."""

from __future__ import annotations

import os
from dataclasses import dataclass

from maskq_worker.process.cores import Machine, images_of
from maskq_worker.settings import WorkerSettings


@dataclass(frozen=True, slots=True)
class Capacity:
    max_batch_size: int  # images of a forward, or side by side
    concurrency: int  # jobs in flight
    batches: int  # on the device at the same time


def capacity_of(settings: WorkerSettings, *, cuda: bool, side_by_side: bool = True) -> Capacity:
    """The settings' capacity, else one that suits the device.

    A GPU is fast with large batches: one batch computes, one is queued behind it, and two more are
    fetched, prepared, encoded or stored. On a CPU nothing is queued: a launch returns when scores and
    masks are computed. Several images are computed side by side, and it must not wait for the store: as
    many are ready, and three jobs are fetched or stored.

    side_by_side: whether the network can compute several images at once on a CPU.
    """
    batch = settings.max_batch_size
    if batch is None:
        batch = 16 if cuda else _images(settings) if side_by_side else 1
    jobs = 4 * batch if cuda else 2 * batch + 3
    return Capacity(batch, settings.concurrency or jobs, batches=2 if cuda else 1)


def _images(settings: WorkerSettings) -> int:
    machine = Machine.read()
    chosen = os.environ.get("OMP_NUM_THREADS", "")
    threads = int(chosen) if chosen.isdigit() and int(chosen) else machine.cores
    return images_of(machine, threads, settings.max_decoded_bytes)
