"""All jobs at once: the rate end to end, and its ratio E to the bare forward's in the same run."""

from __future__ import annotations

import statistics
import time
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
from bench.scenarios.service import Cost, running

JOBS = 200
WARM_UP = 8


def run(options: Options) -> Findings:
    jobs = options.jobs or JOBS
    with running(options.model, workers=options.workers) as service:
        uris = pictures.stored(service, jobs)
        load.all_at_once(service, uris[:WARM_UP])
        bares = [bare.measure(service, seconds=options.seconds)]
        began_s, before = time.time(), service.cost()
        ended = load.all_at_once(service, uris)
        cost = service.cost().since(before)
        batches, used = service.batches(began_s), memory(service)
        bares.append(bare.measure(service, seconds=options.seconds))
    rate = jobs / load.span_s(ended)
    figures = {
        "jobs": jobs,
        "jobs_a_second": round(rate, 3),
        **compared(rate, bares),
        **cpu_ms_a_job(cost, jobs),
        **beyond_forward(cost, jobs, bares),
        **used,
        **price(options, rate),
    }
    return Findings(
        figures,
        {"stages": stages.rows(ended), "batches": batch_rows(batches)},
        {"batches": plots.bars("Batches of the model", histogram(batches), "images in the batch")},
    )


def compared(rate: float, bares: list[bare.Bare]) -> dict[str, Any]:
    """E and what it is made of; the bare rates are those of the best size of batch."""
    size = bares[0].best
    forward = [one.forward[size].rate for one in bares]
    whole = [one.whole[size].rate for one in bares]
    return {
        "E": round(rate / statistics.fmean(forward), 3),
        "E_to_forward_and_mask": round(rate / statistics.fmean(whole), 3),
        "bare_forward_a_second": [round(one, 3) for one in forward],
        "bare_forward_and_mask_a_second": [round(one, 3) for one in whole],
        "bare_batch": size,
        "bare_threads": bares[0].threads,
        "bare_in_thread": [one.in_thread for one in bares],
        "device": bares[0].device,
        "dtype": bares[0].dtype,
        "backend": bares[0].backend,
    }


def beyond_forward(cost: Cost, jobs: int, bares: list[bare.Bare]) -> dict[str, float]:
    """What of the worker's processor time a bare forward, or forward and mask, does not take."""
    size = bares[0].best
    forward_s = statistics.fmean(one.forward[size].cpu_s for one in bares)
    whole_s = statistics.fmean(one.whole[size].cpu_s for one in bares)
    job_s = cost.worker / jobs
    return {
        "bare_forward_cpu_ms": round(1e3 * forward_s, 3),
        "bare_forward_and_mask_cpu_ms": round(1e3 * whole_s, 3),
        "cpu_share_beyond_forward": round((job_s - forward_s) / job_s, 3),
        "cpu_share_beyond_forward_and_mask": round((job_s - whole_s) / job_s, 3),
    }
