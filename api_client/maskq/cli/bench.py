"""maskq bench: measure the running service with many jobs of one image."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from maskq.cli.reporting.progress import Progress
from maskq.client.client import Client
from maskq.client.job import DEFAULT_WAIT_S, Job
from maskq.contract import JobRecord, JobStatus
from maskq.errors import JobFailed, MaskqError
from maskq.inert import print_json, print_lines

_PERCENTILES = (50, 90, 99)


def register(app: typer.Typer) -> None:
    app.command()(bench)


def bench(
    image: Annotated[Path, typer.Argument(help="the file that every job segments")],
    jobs: Annotated[int, typer.Option(min=1, help="number of jobs submitted at once")] = 100,
    alone: Annotated[
        int, typer.Option(min=0, help="number of jobs before that, one at a time")
    ] = 5,
    model: Annotated[str | None, typer.Option(help="the model's served name")] = None,
    price_per_hour: Annotated[
        float | None,
        typer.Option(help="price of the machines; prints the price of a million images"),
    ] = None,
    timeout: Annotated[
        float, typer.Option(help="seconds to wait for the next job to end")
    ] = DEFAULT_WAIT_S,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON document on stdout")] = False,
) -> None:
    """Measure the running service: images per second, and the time of each stage of a job.

    It first runs jobs one at a time, to measure latency without a queue, then all at once. It deletes
    the jobs and their outputs at the end.
    """
    with Client.from_env() as client:
        done = [client.submit(image, model=model)]
        try:
            source = _source(done[0], timeout)
            figures = {
                "one at a time": _alone(client, source, alone, model, timeout, done),
                "all at once": _together(client, source, jobs, model, timeout, done),
            }
        finally:
            for job in done:
                client.delete(job.id)
    rate = figures["all at once"].get("images_per_s")
    if price_per_hour is not None and rate:
        figures["all at once"]["price_per_million"] = round(price_per_hour / 3600 / rate * 1e6, 2)
    if as_json:
        print_json(figures)
        return
    for name, each in figures.items():
        print_lines(*_lines(name, each))


def _source(first: Job, timeout: float) -> str:
    """The URI of the image of the first job, which is not measured; the others segment it, too."""
    try:
        first.wait(timeout=timeout)
    except JobFailed as error:
        raise MaskqError(f"{error}; the measurement was stopped") from None
    return first.refresh().request.image_uri


def _alone(
    client: Client, source: str, number: int, model: str | None, timeout: float, done: list[Job]
) -> dict[str, Any]:
    seconds, before = [], len(done)
    with Progress(bar_only=True) as progress:
        for ended in range(number):
            progress.show(ended, "ended", of=number)
            began = time.perf_counter()
            done.append(client.submit(source, model=model))
            done[-1].wait(timeout=timeout)
            seconds.append(time.perf_counter() - began)
    return {"jobs": number, **_figures(seconds, [job.refresh() for job in done[before:]])}


def _together(
    client: Client, source: str, number: int, model: str | None, timeout: float, done: list[Job]
) -> dict[str, Any]:
    began = time.perf_counter()
    batch = client.submit_many([source] * number, model=model)
    done += batch.jobs
    records = []
    with Progress(bar_only=True) as progress:
        for job in batch.as_completed(timeout=timeout):
            if job.record is None or job.record.status is not JobStatus.SUCCEEDED:
                raise MaskqError(f"job {job.id} {job.status.value}; the measurement was stopped")
            records.append(job.record)
            progress.show(len(records), "ended", of=number)
    whole = time.perf_counter() - began
    waits = [(record.ended_ms or 0) / 1e3 - record.created_ms / 1e3 for record in records]
    return {"jobs": number, "images_per_s": round(number / whole, 2), **_figures(waits, records)}


def _figures(seconds: Sequence[float], records: Sequence[JobRecord]) -> dict[str, Any]:
    """Percentiles of the time from submit to end, and of each stage, in ms."""
    stages: dict[str, list[float]] = {"submit to end": [1e3 * one for one in seconds]}
    for record in records:
        started = record.started_ms or record.created_ms
        stages.setdefault("queued", []).append(started - record.created_ms)
        for stage, spent in (record.result.timings_ms if record.result else {}).items():
            stages.setdefault(stage, []).append(spent)
    return {
        "ms": {
            stage: {f"p{rank}": round(percentile(each, rank), 1) for rank in _PERCENTILES}
            for stage, each in stages.items()
            if each
        }
    }


def percentile(values: Sequence[float], rank: float) -> float:
    """The smallest value that is at least as large as `rank` per cent of the values."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(rank / 100 * len(ordered)) - 1)]


def _lines(name: str, figures: dict[str, Any]) -> list[str]:
    title = [f"{name}: {figures['jobs']} jobs"]
    if rate := figures.get("images_per_s"):
        title.append(f"{rate} images/s")
    if price := figures.get("price_per_million"):
        title.append(f"{price} a million images")
    lines = [", ".join(title)]
    for stage, each in figures["ms"].items():
        cells = "".join(f"{rank:>6} {value:8.1f} ms" for rank, value in each.items())
        lines.append(f"  {stage:<14}{cells}")
    return lines
