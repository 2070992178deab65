"""A day with bursts on fleets of fixed sizes and on an autoscaled one: waiting time and GPU hours.

`python -m bench.autoscaling` simulates it second by second; nothing is run. The arrivals are random,
with a quiet night, a busy day and bursts. The autoscaler is the product's `desired_workers` (class
Demand of maskq.ledger.calls.queueing) behind KEDA's polling and the horizontal pod autoscaler's rules
with their defaults. "backlog alone" leaves out what arrives. `--plot FILE.png` draws the first day
(needs matplotlib).

What is assumed, and can be changed: the speed of a worker, the time until a new one serves (node,
image and weights), and the day's shape.
"""

from __future__ import annotations

import argparse
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bench import report
from maskq.ledger.calls.queueing import Demand
from maskq.ledger.fair_queue import Rate

DAY_S: Final = 86_400
QUIET_S: Final = range(1 * 3600, 5 * 3600)  # no job is submitted
BURST_S: Final = 240

# KEDA and the horizontal pod autoscaler, their defaults but for KEDA's polling interval (30).
SYNC_S: Final = 15
TOLERANCE: Final = 0.1
SCALE_DOWN_WINDOW_S: Final = 300
COOLDOWN_S: Final = 300

Policy = Callable[["Fleet"], int]


def arrivals(seed: int, peak_per_s: float, bursts: int) -> NDArray[np.int64]:
    """Jobs submitted in each second: a day's curve, with bursts of four times the peak."""
    chance = np.random.default_rng(seed)
    seconds = np.arange(DAY_S)
    rate = peak_per_s * (0.5 - 0.5 * np.cos(2 * np.pi * (seconds - 3 * 3600) / DAY_S)) ** 2
    rate[list(QUIET_S)] = 0
    for start in chance.integers(6 * 3600, DAY_S - BURST_S, bursts):
        rate[start : start + BURST_S] += 4 * peak_per_s
    found: NDArray[np.int64] = chance.poisson(rate)
    return found


@dataclass
class Fleet:
    """Workers of one model and their queue. A tick is a second."""

    jobs_per_s: float  # of one worker
    start_s: int  # until a new worker serves
    serving: int
    now: int = 0
    starting: deque[int] = field(default_factory=deque)  # when each one serves
    queue: deque[list[int]] = field(default_factory=deque)  # [submitted at, jobs]
    queued: int = 0
    running: int = 0
    worker_s: int = 0
    starts: int = 0
    waits: list[tuple[int, int, int]] = field(default_factory=list)  # (seconds, jobs, started at)
    sizes: list[int] = field(default_factory=list)
    arrived: deque[int] = field(default_factory=lambda: deque(maxlen=150))  # of the last seconds
    _spare: float = 0.0  # of a job, left of the last second

    @property
    def size(self) -> int:
        return self.serving + len(self.starting)

    def resize(self, size: int) -> None:
        """New workers start; what is too many drains, those first that do not serve yet."""
        for _ in range(size - self.size):
            self.starting.append(self.now + self.start_s)
            self.starts += 1
        while self.size > size:
            if self.starting:
                self.starting.pop()
            else:
                self.serving -= 1

    def tick(self, submitted: int) -> None:
        while self.starting and self.starting[0] <= self.now:
            self.starting.popleft()
            self.serving += 1
        self.arrived.append(submitted)
        if submitted:
            self.queue.append([self.now, submitted])
            self.queued += submitted
        capacity = self.serving * self.jobs_per_s + self._spare
        room = int(capacity)
        self.running = 0
        while room and self.queue:
            oldest = self.queue[0]
            taken = min(room, oldest[1])
            self.waits.append((self.now - oldest[0], taken, self.now))
            oldest[1] -= taken
            room -= taken
            self.running += taken
            if not oldest[1]:
                self.queue.popleft()
        self.queued -= self.running
        self._spare = capacity - int(capacity) if self.queue else 0.0
        self.worker_s += self.size
        self.sizes.append(self.size)
        self.now += 1

    def demand(self) -> Demand:
        return Demand(
            "model",
            queued=self.queued,
            startable=self.queued,
            running=self.running,
            workers=self.serving,
            arrivals_per_s=sum(self.arrived) / max(1, len(self.arrived)),
            rate=None,
            rate_of_one=Rate(self.jobs_per_s, self.jobs_per_s, self.jobs_per_s),
        )


def fixed(size: int) -> Policy:
    return lambda fleet: size


class Autoscaler:
    """`desired_workers`, as KEDA and the horizontal pod autoscaler follow it."""

    def __init__(
        self, target_wait_s: float, most: int, least: int = 0, backlog_alone: bool = False
    ) -> None:
        self._target_wait_s = target_wait_s
        self._most = most
        self._least = least
        self._backlog_alone = backlog_alone
        self._active_at = -COOLDOWN_S
        self._recent: deque[tuple[int, int]] = deque()

    def __call__(self, fleet: Fleet) -> int:
        if fleet.now % SYNC_S:
            return fleet.size
        demand = fleet.demand()
        if self._backlog_alone:
            demand = replace(demand, arrivals_per_s=0.0)
        desired = demand.workers_for(self._target_wait_s)
        if desired:
            self._active_at = fleet.now
        if not fleet.size:
            self._recent.clear()
            return min(1, desired)
        if fleet.now - self._active_at >= COOLDOWN_S and not self._least:
            return 0
        if abs(desired / fleet.size - 1) <= TOLERANCE:
            desired = fleet.size
        # It grows to twice its size or by four within a quarter of a minute, and shrinks to the
        # largest size that was desired in the last minutes.
        desired = min(desired, max(2 * fleet.size, fleet.size + 4), self._most)
        desired = max(desired, 1, self._least)
        self._recent.append((fleet.now, desired))
        while self._recent[0][0] <= fleet.now - SCALE_DOWN_WINDOW_S:
            self._recent.popleft()
        return max(desired, min(fleet.size, max(size for _, size in self._recent)))


def simulate(submitted: NDArray[np.int64], policy: Policy, fleet: Fleet) -> Fleet:
    """The fleet after the day."""
    for count in submitted:
        fleet.resize(policy(fleet))
        fleet.tick(int(count))
    return fleet


def wait_percentiles(fleet: Fleet, *shares: float) -> list[int]:
    """Seconds that a job waited, of the jobs that were started."""
    ordered = sorted(fleet.waits)
    total, found, seen = sum(jobs for _, jobs, _ in ordered), [], 0
    wanted = deque(sorted(shares))
    for seconds, jobs, _ in ordered:
        seen += jobs
        while wanted and seen >= wanted[0] * total:
            found.append(seconds)
            wanted.popleft()
    return found


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--jobs-per-s", type=float, default=20.0, help="of one worker")
    options.add_argument("--start-s", type=int, default=90, help="until a new worker serves")
    options.add_argument("--peak", type=float, default=60.0, help="jobs a second at noon")
    options.add_argument(
        "--bursts", type=int, default=6, help="of four minutes, four times the peak"
    )
    options.add_argument("--days", type=int, default=5)
    options.add_argument("--plot", type=Path, metavar="FILE.png")
    chosen = options.parse_args()
    days = [arrivals(seed, chosen.peak, chosen.bursts) for seed in range(chosen.days)]
    kinds = fleets(chosen.peak, chosen.jobs_per_s, float(np.mean(days)))
    rows, first = [], {}
    for name, (policy, size) in kinds.items():
        done = [
            simulate(day, policy(), Fleet(chosen.jobs_per_s, chosen.start_s, serving=size))
            for day in days
        ]
        first[name] = done[0]
        rows.append({"fleet": name, **figures(done)})
    print(
        f"{chosen.days} days of {int(np.mean([day.sum() for day in days]))} jobs; a worker does "
        f"{chosen.jobs_per_s:g} jobs a second and serves {chosen.start_s} s after its start\n"
    )
    print(report.table(rows))
    if chosen.plot:
        draw(days[0], first, chosen.plot)


def fleets(
    peak: float, jobs_per_s: float, mean: float
) -> dict[str, tuple[Callable[[], Policy], int]]:
    """Name → (its policy, made for each day anew; workers at midnight)."""
    for_mean, for_noon, for_bursts = (
        math.ceil(rate / jobs_per_s) for rate in (1.1 * mean, 1.1 * peak, 5.2 * peak)
    )
    found: dict[str, tuple[Callable[[], Policy], int]] = {}
    for name, size in (("mean", for_mean), ("noon", for_noon), ("bursts", for_bursts)):
        found[f"fixed for the {name}: {size}"] = (partial(fixed, size), size)
    for target in (15, 60, 240):
        found[f"autoscaled, target {target} s"] = (partial(Autoscaler, target, for_bursts), 0)
    found["autoscaled, target 60 s, at least 1"] = (partial(Autoscaler, 60, for_bursts, 1), 1)
    found["autoscaled, target 60 s, backlog alone"] = (
        partial(Autoscaler, 60, for_bursts, backlog_alone=True),
        0,
    )
    return found


def figures(days: Sequence[Fleet]) -> dict[str, object]:
    """Each the mean of the days."""
    waits = np.mean([wait_percentiles(day, 0.5, 0.95, 0.99, 1.0) for day in days], axis=0)
    busy = sum(sum(jobs for _, jobs, _ in day.waits) / day.jobs_per_s for day in days)
    return {
        "GPU hours a day": round(sum(day.worker_s for day in days) / len(days) / 3600, 1),
        "busy": f"{busy / sum(day.worker_s for day in days):.0%}",
        "starts": round(sum(day.starts for day in days) / len(days)),
        **{
            f"wait {name}": f"{seconds:.0f} s"
            for name, seconds in zip(("p50", "p95", "p99", "max"), waits, strict=True)
        },
        "left at midnight": round(sum(day.queued for day in days) / len(days)),
    }


def draw(submitted: NDArray[np.int64], days: dict[str, Fleet], path: Path) -> None:
    """The first day: jobs submitted, workers of two fleets, and how long jobs waited."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    shown = {name: days[name] for name in days if "for the noon" in name or name.endswith("60 s")}
    colours = dict(zip(shown, ("#b0563a", "#2b6cb0"), strict=True))
    hours = np.arange(DAY_S // 60) / 60
    figure, axes = plt.subplots(3, 1, figsize=(9, 7), sharex=True, layout="constrained")
    axes[0].fill_between(hours, submitted.reshape(-1, 60).mean(axis=1), color="#9aa5b1", lw=0)
    axes[0].set_ylabel("jobs submitted\na second")
    for name, fleet in shown.items():
        sizes = np.array(fleet.sizes).reshape(-1, 60).mean(axis=1)
        axes[1].step(hours, sizes, color=colours[name], label=name, lw=1.2)
        axes[2].plot(hours, longest_waits(fleet), color=colours[name], lw=1.2)
    axes[1].set_ylabel("workers")
    axes[1].legend(frameon=False, loc="upper left")
    axes[2].set_ylabel("longest wait of jobs\nstarted that minute, s")
    axes[2].set_yscale("symlog", linthresh=10)
    axes[2].set_ylim(bottom=0)
    axes[2].set_xlabel("hour of the day")
    axes[2].set_xlim(0, 24)
    axes[2].set_xticks(range(0, 25, 3))
    for each in axes:
        each.spines[["top", "right"]].set_visible(False)
        each.grid(axis="y", color="#e2e6ea")
        each.set_axisbelow(True)
    figure.savefig(path, dpi=100)


def longest_waits(fleet: Fleet) -> list[int]:
    found = [0] * (DAY_S // 60)
    for seconds, _, started in fleet.waits:
        found[started // 60] = max(found[started // 60], seconds)
    return found


if __name__ == "__main__":
    main()
