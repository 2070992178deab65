"""How many jobs and images a process handles at the same time, if the settings do not say."""

from __future__ import annotations

import os
from dataclasses import dataclass

from maskq_worker.process.cores import Machine, images_of
from maskq_worker.settings import WorkerSettings


@dataclass(frozen=True, slots=True)
class Capacity:
    max_batch_size: int  # images of a forward
    concurrency: int  # jobs in flight
    batches: int  # on the device at the same time; on a CPU, each on a core


def capacity_of(settings: WorkerSettings, *, cuda: bool) -> Capacity:
    """The settings' capacity, else one that suits the device.

    A GPU is fast with large batches: one batch computes, one is queued behind it, and two more are
    fetched, prepared, encoded or stored. A CPU computes an image on each core, and must not wait for
    the store: as many images are ready, and two jobs are fetched or stored. With MASKQ_MAX_BATCH_SIZE,
    in 8 bits and with transformers' network it computes one batch at a time: the network is not loaded
    when this is asked, so its `thread_safe_forwards` is not known.
    """
    batch = settings.max_batch_size
    if cuda:
        batch = batch or 16
        return Capacity(batch, settings.concurrency or 4 * batch, batches=2)
    if batch is not None or settings.dtype == "int8" or settings.backend == "transformers":
        batch = batch or 1
        return Capacity(batch, settings.concurrency or batch + 4, batches=1)
    images = _images(settings)
    return Capacity(1, settings.concurrency or max(5, 2 * images + 2), batches=images)


def _images(settings: WorkerSettings) -> int:
    """An image for each thread, if the memory and MASKQ_CONCURRENCY allow as many; else one."""
    machine = Machine.read()
    chosen = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    threads = int(chosen) if chosen.isdigit() and int(chosen) else machine.cores
    memory = machine.memory_bytes
    if memory is not None:  # processes with as many threads share it
        memory //= max(1, machine.cores // threads)
    if settings.concurrency is not None and settings.concurrency < threads:
        return 1
    return images_of(threads, memory, settings.max_decoded_bytes)
