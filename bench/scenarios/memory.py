"""The worker's resident memory over thousands of jobs of many sizes, with a forward that is free."""

from __future__ import annotations

import itertools
import random
import statistics
import time
from collections.abc import Iterator, Sequence

from bench.scenarios import pictures, plots, processes
from bench.scenarios.findings import Findings, Options, memory
from bench.scenarios.service import Service, running
from maskq.contract import JobStatus

JOBS = 10_000
BATCH = 250  # jobs that wait at a time
SIDES = (64, 96, 160, 240, 320, 480, 640, 800, 1024, 1280)  # px, of 4:3 images
_EVERY_S = 0.5

Sample = tuple[int, float]  # jobs done, MiB


def run(options: Options) -> Findings:
    jobs = options.jobs or JOBS
    with running(options.model, null=True) as service:
        uris = [
            pictures.store(service, f"side-{side}", pictures.scene(side, (side, side * 3 // 4)))
            for side in SIDES
        ]
        chosen = random.Random(options.seed).choices(uris, k=jobs)
        samples = list(sampled(service, chosen))
        used = memory(service)
    return Findings(
        {"jobs": jobs, "seed": options.seed, **flatness(samples, jobs), **used},
        {"resident memory": rows(samples, jobs)},
        {"rss": plots.line("Resident memory of the worker", samples, "jobs", "MiB")},
    )


def sampled(service: Service, uris: Sequence[str]) -> Iterator[Sample]:
    """While the jobs run, twice a second, and after each batch."""
    for done in range(0, len(uris), BATCH):
        some = uris[done : done + BATCH]
        batch = service.client.submit_many(some)
        while (ended := sum(batch.progress().counts.values())) < len(some):
            yield done + ended, processes.rss_mib(service.pids)
            time.sleep(_EVERY_S)
        succeeded = batch.progress().counts.get(JobStatus.SUCCEEDED, 0)
        if succeeded < len(some):
            raise RuntimeError(f"{len(some) - succeeded} of {len(some)} jobs did not succeed")
        yield done + len(some), processes.rss_mib(service.pids)


def flatness(samples: Sequence[Sample], jobs: int) -> dict[str, float]:
    """The second half of the first tenth of the jobs is the plateau that the last tenth is held to."""
    tenth = jobs / 10
    plateau = _median(
        [mib for done, mib in samples if tenth / 2 <= done <= tenth] or [samples[0][1]]
    )
    last = _median([mib for done, mib in samples if done >= jobs - tenth])
    after = [sample for sample in samples if sample[0] >= tenth]
    return {
        "plateau_mib": round(plateau, 1),
        "last_mib": round(last, 1),
        "last_to_plateau": round(last / plateau, 4),
        "slope_kib_per_1000_jobs": round(1024 * 1000 * slope(after), 1),
    }


def slope(samples: Sequence[Sample]) -> float:
    """MiB a job, by least squares."""
    if len({done for done, _ in samples}) < 2:
        return 0.0
    return statistics.linear_regression(*zip(*samples, strict=True)).slope


def rows(samples: Sequence[Sample], jobs: int) -> list[dict[str, float]]:
    """A row for each tenth."""
    edges = [round(jobs * n / 10) for n in range(11)]
    table = []
    for low, high in itertools.pairwise(edges):
        within = [mib for done, mib in samples if low < done <= high]
        if within:
            table.append(
                {
                    "jobs": high,
                    "median MiB": round(_median(within), 1),
                    "largest MiB": round(max(within), 1),
                }
            )
    return table


def _median(values: Sequence[float]) -> float:
    return statistics.median(values)
