"""End to end: all jobs at once through a stack on this machine, with 1, 2, 3 processes on the card."""

from __future__ import annotations

import os
import re
import time
from typing import Any

from bench.gpu.subject import Subject
from bench.gpu.timing import reason
from bench.scenarios import load, pictures, processes
from bench.scenarios.service import Service, running

PROCESSES = (1, 2, 3)  # on the card
WARM_UP = 64  # jobs, before each
SECONDS = 12.0  # of the measured load, about
MOST_S = 60.0  # that one number of processes may take: what is left is for the others
START = (
    "the processes of a row start together, as those of `maskq worker --processes-per-gpu` do: cuDNN "
    "chooses its algorithms, and each batch size's graph is timed, while the others do so on the card"
)


def run(subject: Subject) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    graphs: dict[str, list[str]] = {}
    for count in PROCESSES[:2] if subject.dry else PROCESSES:
        rows.append({"processes": count})
        try:
            rows[-1] |= one(subject, count, graphs)
        except Exception as error:  # noqa: BLE001 - three may not fit where two do
            rows[-1]["failed"] = reason(error)
    rates = [row["jobs_s"] for row in rows if "jobs_s" in row]
    bare = subject.found.get("bare_images_s")
    return {
        "rows": rows,
        "start": START,
        "graphs_ms": graphs,
        "best_jobs_s": max(rates, default=None),
        "E": round(max(rates) / bare, 3) if bare and rates else None,
        "bare_images_s": bare,
    }


def one(subject: Subject, count: int, graphs: dict[str, list[str]]) -> dict[str, Any]:
    """What tells where the time went stands beside the rate: cores that everybody kept busy."""
    os.environ["MASKQ_DEVICE"] = subject.device.type
    warm, seconds = (4, 0.0) if subject.dry else (WARM_UP, SECONDS)
    with running(str(subject.directory), workers=count) as service:
        graphs[f"{count} processes"] = _graphs(service)
        uris = pictures.stored(service, warm)
        load.all_at_once(service, uris)
        quick = _measured(service, uris * 2)
        jobs = round(min(seconds, MOST_S) * quick["jobs_s"]) or 8
        found = _measured(service, [uris[number % warm] for number in range(jobs)])
        return {**found, "gpu_memory_mib": processes.gpu_mib()}


def _graphs(service: Service) -> list[str]:
    """What each process logged of its graphs; where they differ, they were in one another's way."""
    logs = sorted((service.stack.directory / "logs").glob("*.log"))
    said = [re.findall(r"CUDA graphs by batch size, in ms: (.*)", log.read_text()) for log in logs]
    return [times for each in said for times in each]


def _measured(service: Service, uris: list[str]) -> dict[str, Any]:
    began_s, before = time.time(), service.cost()
    ended = load.all_at_once(service, uris)
    took, cost = load.span_s(ended), service.cost().since(before)
    batches = [batch.size for batch in service.batches(began_s)]
    return {
        "jobs": len(uris),
        "jobs_s": round(len(uris) / took, 2),
        "mean_batch": round(sum(batches) / max(1, len(batches)), 2),
        **{
            f"cores_{name}": round(getattr(cost, name) / took, 2)
            for name in ("worker", "store", "redis", "client")
        },
    }
