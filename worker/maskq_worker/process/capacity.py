"""How much a process takes on, where the settings leave it open."""

from __future__ import annotations

from dataclasses import dataclass

from maskq_worker.settings import WorkerSettings


@dataclass(frozen=True, slots=True)
class Capacity:
    max_batch_size: int  # images a forward
    concurrency: int  # jobs in flight
    batches: int  # on the device at once


def capacity_of(settings: WorkerSettings, *, cuda: bool) -> Capacity:
    """A GPU wants large batches: one computes, one is queued behind it, and two more are fetched,
    prepared, encoded and stored. A CPU gains nothing from a batch, and nothing is queued there: it has
    computed the scores once they are launched. But no wait for the store may keep it idle: one job
    computes, one makes its mask, one is ready, and two are fetched or stored. With one of these a small
    job takes a twentieth less processor time, but a slow store is felt."""
    batch = settings.max_batch_size or (16 if cuda else 1)
    jobs = 4 * batch if cuda else batch + 4
    return Capacity(batch, settings.concurrency or jobs, batches=2 if cuda else 1)
