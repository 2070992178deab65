"""Poisson arrivals, open loop, at a share of the capacity: latency by stage, beside a simulation.

The simulation has the very same arrivals and one server with the measured T(b), of the forward: the
next one begins while masks are made, so everything else is the delay that a job has at light load. It
is run twice: with the T(b) of the bare process (the median of each size, measured before; half of what
it changed until after the run is added), and, on a CPU, with the batches of this run in their own
order, which have in them what the worker's other threads, and the machine's other work, took from the
model. (On a GPU nobody waits for a forward alone.)
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
CAPACITY_JOBS = 100
LIGHT_JOBS = 20


@dataclass(frozen=True, slots=True)
class Measured:
    """One run of the scenario."""

    capacity: float  # jobs a second, all at once
    delay_ms: float  # of a job at light load, without its forward
    alone: bare.Bare  # before
    drift: float  # of the bare forward from before to after, as a ratio
    arrivals_s: list[float]
    ended: list[stages.Ended]
    batches: list[Batch]
    cost: Cost
    used: dict[str, float | None]


def run(options: Options) -> Findings:
    seen = measure(options)
    curves = {
        "measured": [job.latency_ms for job in seen.ended],
        "simulated, T(b) bare": simulated(seen, simulation.typical(_bare_durations(seen))),
    }
    if seen.alone.device == "cpu":
        service = simulation.replayed(_durations(seen))
        curves["simulated, T(b) of the run"] = simulated(seen, service)
    figures = {
        "jobs": len(seen.ended),
        "seed": options.seed,
        "capacity_jobs_a_second": round(seen.capacity, 3),
        "load": options.load,
        "arrivals_a_second": round(len(seen.ended) / seen.arrivals_s[-1], 3),
        "light_load_delay_ms": round(seen.delay_ms, 2),
        "bare_forward_ms": {
            size: round(1e3 * speed.median_s, 2) for size, speed in seen.alone.forward.items()
        },
        "bare_forward_after_to_before": round(seen.drift, 3),
        "forward_in_the_run_ms": round(
            1e3 * statistics.median(batch.forward_s for batch in seen.batches), 2
        ),
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
    with running(options.model) as service:
        uris = pictures.stored(service, max(jobs, CAPACITY_JOBS))
        load.all_at_once(service, uris[:LIGHT_JOBS])
        few = uris[: min(CAPACITY_JOBS, jobs)]
        capacity = len(few) / load.span_s(load.all_at_once(service, few))
        delay_ms = light_delay_ms(service, uris[: min(LIGHT_JOBS, jobs)])
        with bare.started(service, seconds=options.seconds) as bare_now:
            alone = bare_now()
            arrivals_s = simulation.poisson(options.load * capacity, jobs, options.seed)
            began_s, before = time.time(), service.cost()
            ended = load.on_schedule(service, uris[:jobs], arrivals_s)
            cost = service.cost().since(before)
            ((size, after),) = bare_now().forward.items()
        drift = after.median_s / alone.forward[size].median_s
        batches = service.batches(began_s)
        return Measured(
            capacity, delay_ms, alone, drift, arrivals_s, ended, batches, cost, memory(service)
        )


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


def simulated(seen: Measured, service: simulation.ServiceTime) -> list[float]:
    """Latencies in ms."""
    seconds = simulation.simulate(seen.arrivals_s, service, max_batch=max(seen.alone.forward))
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


def _durations(seen: Measured) -> dict[int, list[float]]:
    return simulation.by_size((batch.size, batch.forward_s) for batch in seen.batches)


def _bare_durations(seen: Measured) -> dict[int, list[float]]:
    middle = (1 + seen.drift) / 2
    return {size: [speed.median_s * middle] for size, speed in seen.alone.forward.items()}


def _short(name: str) -> str:
    return name.replace(", ", "_").replace("T(b)", "").replace(" ", "_").replace("__", "_")
