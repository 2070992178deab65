"""The order in which jobs are claimed, and what follows from it for a job that waits.

First the tenant whose turn it is (lua/shares.lua: earliest eligible virtual deadline first). Then one
of its levels, by start-time fair queueing (Goyal, Vin, Cheng 1996): a level that has jobs starts again
its stride after its last start, the earliest start is served, and in a tie the more urgent level. Then
the oldest job. docs/decisions/fair-shares.md has the reasons.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from types import MappingProxyType
from typing import Final

from maskq.contract.options import Priority

# 6 : 3 : 1 of a tenant's claims, while all have jobs
STRIDES: Final[Mapping[Priority, int]] = MappingProxyType(
    {Priority.HIGH: 5, Priority.NORMAL: 10, Priority.LOW: 30}
)
_FEWEST: Final = 10  # completions from which a rate is known
_FEWEST_A_MINUTE: Final = 5


@dataclass(frozen=True, slots=True)
class Level:
    """A tenant's jobs of one priority that may run now."""

    priority: Priority
    jobs: int
    start: int  # of its next claim, in the tenant's own time


def claims_before(own: Priority, ahead: int, levels: Sequence[Level]) -> int:
    """A tenant's claims before one of its jobs, if no job comes, ends early or is deferred meanwhile.

    ahead: claims of the job's own level before it.
    """
    by_urgency = list(Priority)
    starts = {one.priority: one.start for one in levels}
    start = starts[own] + ahead * STRIDES[own]
    count = ahead
    for one in levels:
        if one.priority is not own:
            wins_tie = by_urgency.index(one.priority) < by_urgency.index(own)
            # Its claims start at one.start, one.start + stride, …: those before `start` come first.
            room = start - one.start + (1 if wins_tie else 0)
            count += min(one.jobs, max(0, ceil(room / STRIDES[one.priority])))
    return count


@dataclass(frozen=True, slots=True)
class Share:
    """A tenant that waits for its turn."""

    tenant: str
    stride: int  # of virtual time that a claim takes: the smaller, the larger its weight
    start: int  # of its next claim, in the model's virtual time
    jobs: int = 0  # that may run now
    stands_for: float = 1.0  # tenants: of very many, some stand for the others


def others_before(own: Share, ahead: int, others: Sequence[Share]) -> int:
    """Claims of other tenants before a job's.

    Exact for tenants of equal weights; else one more or less a tenant, since who is ahead of its share
    has to wait although its deadline is earlier. An estimate if some tenants stand for others.

    ahead: claims of the job's own tenant before it.
    """
    deadline = own.start + (ahead + 1) * own.stride
    count = 0.0
    for one in others:
        # Its claims have the deadlines one.start + stride, one.start + 2 strides, …
        room = deadline - one.start + (1 if one.tenant < own.tenant else 0)
        count += one.stands_for * min(one.jobs, max(0, ceil(room / one.stride) - 1))
    return round(count)


@dataclass(frozen=True, slots=True)
class Rate:
    """Jobs that workers complete in a second while jobs wait, and the bounds of that."""

    lowest: float
    mean: float
    highest: float

    @classmethod
    def of(cls, minutes: Sequence[tuple[int, int]]) -> Rate | None:
        """One worker's, from each minute's completions and milliseconds of workers.

        None: they are too few. Two workers take 2000 milliseconds of workers in a second. The
        bounds are two standard deviations of a random count, or the slowest and fastest minute.
        """
        jobs, ms = (sum(each) for each in zip(*minutes, strict=True)) if minutes else (0, 0)
        if jobs < _FEWEST or ms <= 0:
            return None
        mean, spread = 1000 * jobs / ms, 2 / sqrt(jobs)
        each = [1000 * n / t for n, t in minutes if n >= _FEWEST_A_MINUTE and t > 0]
        return cls(
            min(mean * (1 - spread), *each, mean), mean, max(mean * (1 + spread), *each, mean)
        )

    def of_workers(self, count: int) -> Rate:
        """Of so many workers that are as fast."""
        return Rate(self.lowest * count, self.mean * count, self.highest * count)

    def seconds(self, jobs: int) -> tuple[float, float]:
        """Between which seconds from now a job starts that has so many before it."""
        return jobs / self.highest, (jobs + 1) / self.lowest
