"""All jobs at once: the rate end to end, and its ratio E to the bare forward's in the same run.

In rounds, since other machines share the processor: the bare forward is measured before and after each,
and E is the median of the rounds' ratios. Two figures need no second process and so see no drift: the
share of the time in which the worker's model was in its forward, and of the worker's processor time.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.scenarios import bare, load, pictures, plots, stages
from bench.scenarios.findings import (
    Findings,
    Options,
    batch_rows,
    cpu_ms_a_job,
    histogram,
    memory,
    price,
)
from bench.scenarios.service import Batch, Cost, Service, running

JOBS = 200
ROUNDS = 10
WARM_UP = 8


@dataclass(frozen=True, slots=True)
class Round:
    """Some jobs at once, and the bare forward before and after them."""

    before: bare.Bare
    after: bare.Bare
    ended: list[stages.Ended]
    batches: list[Batch]
    cost: Cost

    @property
    def rate(self) -> float:
        return len(self.ended) / load.span_s(self.ended)

    @property
    def efficiency(self) -> float:
        return self.rate / statistics.fmean(self.forward_rates)

    @property
    def forward_rates(self) -> list[float]:
        size = self.after.best  # the only one that was measured again
        return [one.forward[size].rate for one in (self.before, self.after)]

    @property
    def lane_rates(self) -> list[float]:
        """Of forwards side by side; none where a worker has one lane."""
        measured = (self.before.side_by_side, self.after.side_by_side)
        return [one.rate for one in measured if one]

    @property
    def whole_rates(self) -> list[float]:
        size = self.after.best
        return [one.whole[size].rate for one in (self.before, self.after)]

    @property
    def in_forward(self) -> float:
        """Share of the time from the first arrival to the last end, for one worker and each lane."""
        lane_s = load.span_s(self.ended) * self.after.lanes
        return sum(batch.forward_s for batch in self.batches) / lane_s

    @property
    def beyond_forward(self) -> float:
        """Share of the workers' processor time."""
        return 1 - sum(batch.forward_cpu_s for batch in self.batches) / self.cost.worker


def run(options: Options) -> Findings:
    rounds_wanted = min(ROUNDS, options.jobs or JOBS)
    jobs = (options.jobs or JOBS) // rounds_wanted * rounds_wanted
    with running(options.model, workers=options.workers) as service:
        uris = pictures.stored(service, jobs)
        load.all_at_once(service, uris[:WARM_UP])
        rounds = []
        with bare.started(service, seconds=options.seconds) as measure:
            last = measure()
            for number in range(rounds_wanted):
                rounds.append(round_of(service, uris[number::rounds_wanted], last, measure))
                last = rounds[-1].after
        used = memory(service)
    ended = [job for one in rounds for job in one.ended]
    batches = [batch for one in rounds for batch in one.batches]
    figures = {"jobs": jobs, "rounds": len(rounds), **compared(rounds, options), **used}
    return Findings(
        figures,
        {"stages": stages.rows(ended), "batches": batch_rows(batches)},
        {"batches": plots.bars("Batches of the model", histogram(batches), "images in the batch")},
    )


def round_of(service: Service, uris: Sequence[str], before: bare.Bare, measure: Any) -> Round:
    began_s, cost_before = time.time(), service.cost()
    ended = load.all_at_once(service, uris)
    cost, batches = service.cost().since(cost_before), service.batches(began_s)
    return Round(before, measure(), ended, batches, cost)


def compared(rounds: Sequence[Round], options: Options) -> dict[str, Any]:
    """E and what it is made of; the bare rates are those of the best size of batch."""
    one, rate = rounds[0].after, _median([each.rate for each in rounds])
    lanes = [each.rate / statistics.fmean(each.lane_rates) for each in rounds if each.lane_rates]
    figures = {
        "jobs_a_second": rate,
        "E": _median([each.efficiency for each in rounds]),
        "E_by_round": [round(each.efficiency, 3) for each in rounds],
        "E_to_forward_and_mask": _median(
            [each.rate / statistics.fmean(each.whole_rates) for each in rounds]
        ),
        **({"E_to_forwards_side_by_side": _median(lanes)} if lanes else {}),
        "bare_forward_a_second": [
            round(rate, 4)
            for rate in (*rounds[0].forward_rates[:1], *(r.forward_rates[1] for r in rounds))
        ],
        "bare_batch": one.best,
        "bare_threads": one.threads,
        "bare_in_thread": one.in_thread,
        "device": one.device,
        "dtype": one.dtype,
        "backend": one.backend,
    }
    if one.device == "cpu":
        figures["cpu_share_beyond_forward"] = _median([each.beyond_forward for each in rounds])
    if options.workers == 1:
        figures["time_share_in_forward"] = _median([each.in_forward for each in rounds])
    costs = [cpu_ms_a_job(each.cost, len(each.ended)) for each in rounds]
    figures |= {name: _median([cost[name] for cost in costs]) for name in costs[0]}
    return figures | price(options, rate)


def _median(values: Sequence[float]) -> float:
    return round(statistics.median(values), 4)
