"""Images of 0.2 to 24 megapixels by chance: what small ones wait because of large ones."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Mapping, Sequence

from bench.scenarios import load, pictures, simulation, stages
from bench.scenarios.findings import Findings, Options, Row, batch_rows, cpu_ms_a_job, memory, price
from bench.scenarios.service import Service, running

JOBS = 200
MEGAPIXELS = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0, 12.0, 24.0)  # each as likely as the others
ALONE = 3  # of each size, one after another
_WARM_UP = 3


def run(options: Options) -> Findings:
    jobs = options.jobs or JOBS
    with running(options.model, workers=options.workers) as service:
        uris = {size: _stored(service, size) for size in MEGAPIXELS}
        load.all_at_once(service, [uris[MEGAPIXELS[0]]] * _WARM_UP)
        alone = {uri: load.one_by_one(service, [uri] * ALONE) for uri in uris.values()}
        chosen = random.Random(options.seed).choices([*uris.values()], k=jobs)
        some = chosen[: max(len(MEGAPIXELS), jobs // 4)]
        capacity = len(some) / load.span_s(load.all_at_once(service, some))
        arrivals_s = simulation.poisson(options.load * capacity, jobs, options.seed)
        began_s, before = time.time(), service.cost()
        ended = load.on_schedule(service, chosen, arrivals_s)
        cost, batches = service.cost().since(before), service.batches(began_s)
        used = memory(service)
    figures = {
        "jobs": jobs,
        "seed": options.seed,
        "capacity_jobs_a_second": round(capacity, 3),
        "load": options.load,
        **cpu_ms_a_job(cost, jobs),
        **used,
        **price(options, capacity),
    }
    classes = [_row(size, alone[uri], _of(uri, ended)) for size, uri in uris.items()]
    return Findings(
        figures,
        {"by size": classes, "stages": stages.rows(ended), "batches": batch_rows(batches)},
    )


def _stored(service: Service, megapixels: float) -> str:
    body = pictures.scene(1, pictures.sized(megapixels))
    return pictures.store(service, f"{megapixels:g}-megapixels", body)


def _of(uri: str, ended: Sequence[stages.Ended]) -> list[stages.Ended]:
    return [job for job in ended if job.record.request.image_uri == uri]


def _row(size: float, alone: Sequence[stages.Ended], ended: Sequence[stages.Ended]) -> Row:
    """alone: with the service to itself; ended: among all others."""
    by_itself = statistics.median(job.latency_ms for job in alone)
    latencies = [job.latency_ms for job in ended]
    among = statistics.median(latencies) if latencies else None
    return {
        "MP": size,
        "jobs": len(ended),
        "alone ms": stages.rounded(by_itself),
        "p50 ms": None if among is None else stages.rounded(among),
        "p99 ms": stages.percentile(latencies, 99) if latencies else None,
        "max ms": stages.rounded(max(latencies)) if latencies else None,
        "p50 to alone": None if among is None else round(among / by_itself, 2),
        **_own_work([stages.parts(job) for job in ended]),
    }


def _own_work(split: Sequence[Mapping[str, float]]) -> Row:
    """Medians of where the time went: waiting for a thread, the model, its own work."""
    if not split:
        return {"queue": None, "model": None, "own": None}
    waits = ("submit", "queue", "model")
    own = [sum(v for k, v in each.items() if k not in waits) for each in split]
    return {
        "queue": stages.rounded(statistics.median(each["queue"] for each in split)),
        "model": stages.rounded(statistics.median(each["model"] for each in split)),
        "own": stages.rounded(statistics.median(own)),
    }
