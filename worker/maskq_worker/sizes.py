"""How much a process takes on, where the settings leave it open."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

from maskq_worker.settings import WorkerSettings

# Batches on the device at once: while the forward of one is computed, the masks of another are.
BATCHES: Final = 2


@dataclass(frozen=True, slots=True)
class Sizes:
    max_batch_size: int  # images a forward
    concurrency: int  # jobs in flight


def cpu_share(processes: int) -> dict[str, str]:
    """The environment of one of several processes on a machine's CPU: its share of the cores.

    Each would otherwise run as many threads as there are cores, and they would wait for one another.
    As libgomp comes they also wait awake, for milliseconds, on cores that job threads, Redis and store
    need. What is set already stays.
    """
    share = {
        "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // processes)),
        "GOMP_SPINCOUNT": "1000",  # some microseconds: a forward alone is as fast as with its 300,000
    }
    return {name: value for name, value in share.items() if name not in os.environ}


def sizes(settings: WorkerSettings, *, cuda: bool) -> Sizes:
    """A GPU wants large batches: one computes, one is queued behind it, and two more are fetched,
    prepared, encoded and stored. A CPU gains nothing from a batch, but no wait for the store may keep
    it idle."""
    batch = settings.max_batch_size or (16 if cuda else 1)
    jobs = 4 * batch if cuda else batch + 4
    return Sizes(batch, settings.concurrency or jobs)
