"""A queue in front of one model, replayed: what latency the arrivals alone explain.

A server takes, whenever it is free, what waits, up to a batch; a batch of b takes T(b). There is one
server, or one for each image that is computed on a core of its own. Everything else that happens to a
job is a delay of its own, which the caller adds.
"""

from __future__ import annotations

import heapq
import itertools
import random
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

ServiceTime = Callable[[int], float]  # size of a batch → seconds
Durations = Mapping[int, Sequence[float]]  # size of a batch → seconds, as measured, in order


def poisson(rate: float, count: int, seed: int) -> list[float]:
    """`count` arrivals at `rate` a second: seconds from the start, rising; the same for a seed."""
    draw = random.Random(seed)
    return list(itertools.accumulate(draw.expovariate(rate) for _ in range(count)))


def simulate(
    arrivals_s: Sequence[float], service: ServiceTime, *, max_batch: int = 1, servers: int = 1
) -> list[float]:
    """Seconds from each arrival to the end of its batch; `arrivals_s` must rise."""
    latencies: list[float] = []
    free_at = [0.0] * servers  # a heap: the first is the server that is free first
    while (first := len(latencies)) < len(arrivals_s):
        begin = max(free_at[0], arrivals_s[first])
        end = first + 1
        while end < len(arrivals_s) and end - first < max_batch and arrivals_s[end] <= begin:
            end += 1
        ends_at = begin + service(end - first)
        heapq.heapreplace(free_at, ends_at)
        latencies += [ends_at - arrival for arrival in arrivals_s[first:end]]
    return latencies


def by_size(batches: Iterable[tuple[int, float]]) -> dict[int, list[float]]:
    """(size, seconds) of each batch, sorted into `Durations`."""
    sorted_in: dict[int, list[float]] = defaultdict(list)
    for size, seconds in batches:
        sorted_in[size].append(seconds)
    return dict(sorted_in)


def typical(durations: Durations) -> ServiceTime:
    """The median of each size; between two sizes in proportion, beyond the last as the last."""
    medians = sorted((size, statistics.median(each)) for size, each in durations.items())
    if not medians:
        raise ValueError("no batch was measured, so there is no service time")
    return lambda size: _between(medians, size)


def replayed(durations: Durations) -> ServiceTime:
    """Each size's own durations in their order, from the start again when they are used up."""
    fallback = typical(durations)
    turns: dict[int, Iterator[float]] = {
        size: itertools.cycle(each) for size, each in durations.items()
    }
    return lambda size: next(turns[size]) if size in turns else fallback(size)


def _between(medians: Sequence[tuple[int, float]], size: int) -> float:
    for (low, low_s), (high, high_s) in itertools.pairwise(medians):
        if low <= size <= high:
            return low_s + (high_s - low_s) * (size - low) / (high - low)
    return medians[0][1] if size <= medians[0][0] else medians[-1][1]
