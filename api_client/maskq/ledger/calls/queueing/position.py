"""Calls about waiting: a job's place in the queue, and the work that each model has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
        Share(name, int(stride), int(start), int(jobs))
        for name, stride, jobs, start in _rows(others, 4)
    ]
    before_it = others_before(Share(tenant, int(stride), int(start)), ahead, shares)
    rate = rate_of(pace) if int(workers) else None
    position = ahead + before_it
    return QueuePlace(position, rate.seconds(position) if rate else None, ahead)


def _rows(flat: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [flat[i : i + size] for i in range(0, len(flat), size)]


@dataclass(frozen=True, slots=True)
class Demand:
    """What a model has to do, and how fast its workers do it."""

    model: str
    queued: int
    running: int
    workers: int  # alive
    rate: Rate | None  # of all its workers together; None: too few completions


def demand() -> Call[list[Demand]]:
    """The demand of each known model, by name."""

    def parse(answer: Sequence[Sequence[Any]]) -> list[Demand]:
        return [
            Demand(model, int(queued), int(running), int(workers), rate_of(pace))
            for model, queued, running, workers, pace in answer
        ]

    return scripted("scale", parse)


def rate_of(flat: Sequence[Any]) -> Rate | None:
    """The rate of a model's workers, from {completions, milliseconds, …}; None: too few completions."""
    counts = list(map(int, flat))
    return Rate.of(list(zip(counts[::2], counts[1::2], strict=True)))
