"""How many jobs and images a process handles at the same time, if the settings do not say."""

from __future__ import annotations

from dataclasses import dataclass

from maskq_worker.settings import WorkerSettings


@dataclass(frozen=True, slots=True)
class Capacity:
    max_batch_size: int  # images a forward
    concurrency: int  # jobs in flight
    batches: int  # on the device at the same time


def capacity_of(settings: WorkerSettings, *, cuda: bool) -> Capacity:
    """The settings' capacity, else one that suits the device.

    A GPU is fast with large batches: one batch computes, one is queued behind it, and two more are
    fetched, prepared, encoded or stored. A CPU gains nothing from batches, and nothing is queued on it:
    a launch returns when the scores are computed. It must not wait for the store, so there are five
    jobs: one computes, one makes its mask, one is ready, and two are fetched or stored. With four jobs
    a small job takes a twentieth less processor time, but a slow store delays the others.
    """
    batch = settings.max_batch_size or (16 if cuda else 1)
    jobs = 4 * batch if cuda else batch + 4
    return Capacity(batch, settings.concurrency or jobs, batches=2 if cuda else 1)
