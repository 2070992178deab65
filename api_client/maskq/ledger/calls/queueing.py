"""Calls about waiting: a job's place in the queue, and the work that each model has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from maskq.contract.options import Priority
from maskq.ledger.calls.base import Call, scripted
from maskq.ledger.fair_queue import Level, Rate, claims_before


@dataclass(frozen=True, slots=True)
class QueuePlace:
    """Where a queued job stands, as the queue is now."""

    position: int  # jobs that start before it
    eta_s: tuple[float, float] | None  # it starts between these; None: unknown


def place(job_id: str) -> Call[QueuePlace | None]:
    """A queued job's place; None if the job may not run now: it has started, ended or is deferred."""

    def parse(answer: Sequence[Any]) -> QueuePlace | None:
        if not answer:
            return None
        own, ahead, workers, flat, pace = answer
        levels = [
            Level(Priority(level), int(jobs), int(start))
            for level, jobs, start in zip(flat[::3], flat[1::3], flat[2::3], strict=True)
        ]
        position = claims_before(Priority(own), int(ahead), levels)
        rate = _rate(pace) if int(workers) else None
        return QueuePlace(position, rate.seconds(position) if rate else None)

    return scripted("position", parse, given=job_id)


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
            Demand(model, int(queued), int(running), int(workers), _rate(pace))
            for model, queued, running, workers, pace in answer
        ]

    return scripted("scale", parse)


def _rate(flat: Sequence[Any]) -> Rate | None:
    counts = list(map(int, flat))
    return Rate.of(list(zip(counts[::2], counts[1::2], strict=True)))
