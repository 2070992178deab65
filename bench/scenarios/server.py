"""Poisson arrivals, open loop, at a share of the capacity: latency by stage, beside a simulation.

The simulation has the very same arrivals and one server with the measured T(b), of the forward; all
else is the delay that a job has at light load. (Where somebody waits the next forward begins while
masks are made. Where nobody does the model's thread makes them, and whoever comes just then waits for
that, too, which the simulation does not know.) Where a worker computes an image on each core, there is
a server for each core, and T(1) is that of forward and mask. On a CPU, where decoding takes from the
forward, it matters when T(b) is measured:

- `T(b) of the capacity`: at full load, in a run before, of whose rate the load is a share, and in one
  after, for what the machine changed. The load is meant so, and so this is the one to compare with.
- `T(b) of the run`: the forwards of this run in their own order, with whatever slowed them down.
- `T(b) bare`: of a process that does nothing else, one forward on all cores, before; half of what
  changed until after is added. To a server with it the same arrivals are a lower load.

On a GPU nobody waits for a forward alone, and the bare one is the only one.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.scenarios import bare, load, pictures, plots, simulation, stages
from bench.scenarios.findings import (
    Findings,
    Options,
    Row,
    batch_rows,
    cpu_ms_a_job,
    histogram,
    memory,
)
from bench.scenarios.service import Batch, Cost, Service, running

JOBS = 1000
CAPACITY_JOBS = 100  # before, and again after
LIGHT_JOBS = 20


@dataclass(frozen=True, slots=True)
class Measured:
    """One run of the scenario."""

    capacity: float  # jobs a second, all at once, before
    capacity_after: float
    delay_ms: float  # of a job at light load, without its forward
    alone: bare.Bare  # before
    drift: float  # of the bare forward from before to after, as a ratio
    arrivals_s: list[float]
    ended: list[stages.Ended]
    batches: list[Batch]
    full_load: list[Batch]  # of the runs that the capacity was measured in, before and after
    cost: Cost
    used: dict[str, float | None]


def run(options: Options) -> Findings:
    seen = measure(options)
    curves = {
        "measured": [job.latency_ms for job in seen.ended],
        "simulated, T(b) bare": simulated(seen, simulation.typical(_bare_durations(seen))),
    }
    if seen.alone.device == "cpu":
        for name, batches in (("capacity", seen.full_load), ("run", seen.batches)):
            service = simulation.replayed(_durations(batches, seen.alone.lanes))
            curves[f"simulated, T(b) of the {name}"] = simulated(
                seen, service, servers=seen.alone.lanes
            )
    figures = {
        "jobs": len(seen.ended),
        "seed": options.seed,
        "capacity_jobs_a_second": round(seen.capacity, 3),
        "capacity_after_jobs_a_second": round(seen.capacity_after, 3),
        "load": options.load,
        "arrivals_a_second": round(len(seen.ended) / seen.arrivals_s[-1], 3),
        "light_load_delay_ms": round(seen.delay_ms, 2),
        "bare_forward_ms": {
            size: round(1e3 * speed.median_s, 2) for size, speed in seen.alone.forward.items()
        },
        "bare_forward_after_to_before": round(seen.drift, 3),
        "forward_at_capacity_ms": _median_ms(seen.full_load),
        "forward_in_the_run_ms": _median_ms(seen.batches),
        **{
            f"to_{_short(name)}": ratios(curves["measured"], curves[name]) for name in [*curves][1:]
        },
        **cpu_ms_a_job(seen.cost, len(seen.ended)),
        **seen.used,
        "device": seen.alone.device,
        "dtype": seen.alone.dtype,
        "backend": seen.alone.backend,
    }
    return Findings(
        figures,
        {
            "latency, ms": latency_rows(curves),
            "stages": stages.rows(seen.ended),
            "batches": batch_rows(seen.batches),
        },
        {
            "latency": plots.percentiles("Latency from the scheduled arrival", curves),
            "batches": plots.bars(
                "Batches of the model", histogram(seen.batches), "images in the batch"
            ),
        },
    )


def measure(options: Options) -> Measured:
    jobs = options.jobs or JOBS
    few = min(CAPACITY_JOBS, max(jobs // 4, 1))
    with running(options.model) as service:
        uris = pictures.stored(service, jobs)
        load.all_at_once(service, uris[:few])
        capacity, before = at_capacity(service, uris[:few])
        delay_ms = light_delay_ms(service, uris[: min(LIGHT_JOBS, few)])
        with bare.started(service, seconds=options.seconds) as bare_now:
            alone = bare_now()
            arrivals_s = simulation.poisson(options.load * capacity, jobs, options.seed)
            began_s, cost_before = time.time(), service.cost()
            ended = load.on_schedule(service, uris, arrivals_s)
            cost, batches = service.cost().since(cost_before), service.batches(began_s)
            ((size, bare_after),) = bare_now().forward.items()
        drift = bare_after.median_s / alone.forward[size].median_s
        capacity_after, after = at_capacity(service, uris[:few])
        used = memory(service)
    return Measured(
        capacity, capacity_after, delay_ms, alone, drift, arrivals_s, ended, batches,
        before + after, cost, used,
    )  # fmt: skip


def at_capacity(service: Service, uris: Sequence[str]) -> tuple[float, list[Batch]]:
    """Jobs a second, all at once, and the batches of them."""
    began_s = time.time()
    return len(uris) / load.span_s(load.all_at_once(service, uris)), service.batches(began_s)


def light_delay_ms(service: Service, uris: Sequence[str]) -> float:
    """What a job takes beside its forward when it has the service to itself: the median."""
    began_s = time.time()
    ended = load.one_by_one(service, uris)
    batches = service.batches(began_s)
    if len(batches) != len(ended):
        raise RuntimeError(f"{len(ended)} jobs one by one were {len(batches)} batches")
    beside = (
        job.latency_ms - 1e3 * batch.forward_s for job, batch in zip(ended, batches, strict=True)
    )
    return statistics.median(beside)


def simulated(seen: Measured, service: simulation.ServiceTime, *, servers: int = 1) -> list[float]:
    """Latencies in ms."""
    seconds = simulation.simulate(
        seen.arrivals_s, service, max_batch=max(seen.alone.forward), servers=servers
    )
    return [1e3 * one + seen.delay_ms for one in seconds]


def latency_rows(curves: Mapping[str, Sequence[float]]) -> list[Row]:
    return [
        {
            "": name,
            "mean": stages.rounded(statistics.fmean(values)),
            **stages.percentiles(values),
            "max": stages.rounded(max(values)),
        }
        for name, values in curves.items()
    ]


def ratios(measured: Sequence[float], expected: Sequence[float]) -> dict[str, float | None]:
    """Measured ÷ simulated, by percentile."""
    pairs = zip(
        stages.percentiles(measured).items(), stages.percentiles(expected).values(), strict=True
    )
    return {name: round(a / b, 3) if a and b else None for (name, a), b in pairs}


def _durations(batches: Sequence[Batch], lanes: int) -> dict[int, list[float]]:
    """How long a batch kept its server busy: until its forward ended, in a lane until its mask did."""
    return simulation.by_size(
        (batch.size, batch.seconds if lanes > 1 else batch.forward_s) for batch in batches
    )


def _median_ms(batches: Sequence[Batch]) -> float:
    return round(1e3 * statistics.median(batch.forward_s for batch in batches), 2)


def _bare_durations(seen: Measured) -> dict[int, list[float]]:
    middle = (1 + seen.drift) / 2
    return {size: [speed.median_s * middle] for size, speed in seen.alone.forward.items()}


def _short(name: str) -> str:
    return name.replace(", ", "_").replace("T(b)", "").replace(" ", "_").replace("__", "_")
