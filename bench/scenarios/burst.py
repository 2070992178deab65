"""Nothing, then many jobs at once, then nothing: how long until all are done."""

from __future__ import annotations

import statistics
import time

from bench.scenarios import bare, load, pictures, stages
from bench.scenarios.findings import Findings, Options, Row, batch_rows, memory
from bench.scenarios.service import running

JOBS = 32
ROUNDS = 3
IDLE_S = 3.0  # leases, timers and idle threads are as they are between bursts


def run(options: Options) -> Findings:
    jobs = options.jobs or JOBS
    with running(options.model, workers=options.workers) as service:
        uris = pictures.stored(service, jobs)
        load.all_at_once(service, uris)
        alone = bare.measure(service, seconds=options.seconds)
        bursts, began_s = [], time.time()
        for _ in range(ROUNDS):
            time.sleep(IDLE_S)
            bursts.append(load.all_at_once(service, uris))
        batches, used = service.batches(began_s), memory(service)
    ideal_s = jobs / alone.whole[alone.best].rate
    rounds = [burst_row(number, burst, ideal_s) for number, burst in enumerate(bursts, start=1)]
    figures = {
        "jobs": jobs,
        "rounds": ROUNDS,
        "ideal_s": round(ideal_s, 3),  # forward and mask of all, and nothing else
        "drained_s": statistics.median(row["drained s"] for row in rounds),
        "drained_to_ideal": statistics.median(row["to ideal"] for row in rounds),
        "first_done_ms": statistics.median(row["first ms"] for row in rounds),
        **used,
    }
    ended = [job for burst in bursts for job in burst]
    return Findings(
        figures,
        {"bursts": rounds, "stages": stages.rows(ended), "batches": batch_rows(batches)},
    )


def burst_row(number: int, burst: list[stages.Ended], ideal_s: float) -> Row:
    drained_s = load.span_s(burst)
    return {
        "burst": number,
        "first ms": stages.rounded(min(job.latency_ms for job in burst)),
        "median ms": stages.rounded(statistics.median(job.latency_ms for job in burst)),
        "drained s": round(drained_s, 3),
        "to ideal": round(drained_s / ideal_s, 3),
    }
