"""Calls about waiting: a job's place in the queue, and the work that each model has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from maskq.contract.options import Priority
from maskq.ledger.calls.base import Call, scripted
from maskq.ledger.fair_queue import Level, Rate, Share, claims_before, others_before


@dataclass(frozen=True, slots=True)
class QueuePlace:
    """Where a queued job stands, as the queue is now."""

    position: int  # jobs that start before it
    eta_s: tuple[float, float] | None  # it starts between these; None: unknown
    of_tenant: int = 0  # jobs of its own tenant among them


def place(job_id: str) -> Call[QueuePlace | None]:
    """A queued job's place; None if the job may not run now: it has started, ended or is deferred."""
    return scripted("position", parse_place, given=job_id)


def parse_place(answer: Sequence[Any]) -> QueuePlace | None:
    """From the answer of `queue_place` (lua/queue_place.lua)."""
    if not answer:
        return None
    priority, rank, workers, levels, (tenant, stride, start), others, pace = answer
    of_tenant = [
        Level(Priority(level), int(jobs), int(start)) for level, jobs, start in _rows(levels, 3)
    ]
    ahead = claims_before(Priority(priority), int(rank), of_tenant)
    shares = [
        Share(name, int(stride), int(start), int(jobs), float(stands_for))
        for name, stride, jobs, start, stands_for in _rows(others, 5)
    ]
    before_it = others_before(Share(tenant, int(stride), int(start)), ahead, shares)
    rate = rate_of(pace, int(workers))
    position = ahead + before_it
    return QueuePlace(position, rate.seconds(position) if rate else None, ahead)


def _rows(flat: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [flat[i : i + size] for i in range(0, len(flat), size)]


@dataclass(frozen=True, slots=True)
class Demand:
    """What a model has to do, and how fast its workers do it."""

    model: str
    queued: int
    startable: int  # queued jobs that are neither deferred nor above their tenant's cap
    running: int
    workers: int  # alive
    arrivals_per_s: float  # jobs submitted to run at once, in the last two to three minutes
    rate: Rate | None  # of all its workers together; None: no worker, or too few completions
    rate_of_one: Rate | None  # of one worker, as it was last measured; None: never

    @property
    def seconds(self) -> float | None:
        """Seconds that one worker needs for the running jobs and the startable ones. None: unknown."""
        jobs = self.startable + self.running
        if not jobs:
            return 0.0
        return jobs / self.rate_of_one.mean if self.rate_of_one else None

    @property
    def offered_load(self) -> float | None:
        """Workers that the arriving jobs keep busy. None: unknown."""
        if not self.arrivals_per_s:
            return 0.0
        return self.arrivals_per_s / self.rate_of_one.mean if self.rate_of_one else None

    def workers_for(self, target_wait_s: float) -> int:
        """How many workers keep up with new jobs and finish the present ones within this time.

        If it is unknown how fast a worker is: those that live, and at least one.
        """
        load, seconds = self.offered_load, self.seconds
        if load is None or seconds is None:
            return max(1, self.workers)
        return ceil(load + seconds / target_wait_s)


def demand() -> Call[list[Demand]]:
    """The demand of each known model, by name."""

    def parse(answer: Sequence[Sequence[Any]]) -> list[Demand]:
        return [parse_demand(row) for row in answer]

    return scripted("scale", parse)


def parse_demand(row: Sequence[Any]) -> Demand:
    """From a row of `demand_of` (lua/pace.lua)."""
    model, queued, startable, running, workers, (arrived, in_ms), recent, last = row
    return Demand(
        model,
        int(queued),
        int(startable),
        int(running),
        int(workers),
        arrivals_per_s=1000 * int(arrived) / int(in_ms),
        rate=rate_of(recent, int(workers)),
        rate_of_one=rate_of(recent) or rate_of(last),
    )


def rate_of(flat: Sequence[Any], workers: int = 1) -> Rate | None:
    """The rate of so many workers, from {completions, milliseconds of workers, …}.

    None: too few completions, or no worker.
    """
    counts = list(map(int, flat))
    found = Rate.of(list(zip(counts[::2], counts[1::2], strict=True)))
    return found.of_workers(workers) if found and workers else None
