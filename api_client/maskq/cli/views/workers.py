"""maskq workers: which worker serves what since when, and how busy it is."""

from __future__ import annotations

from typing import Final

import typer

from maskq.cli.jobs import Json
from maskq.cli.reporting.tables import aligned, moment, seconds
from maskq.client.client import Client
from maskq.contract.deployment.workers import WorkerState
from maskq.inert import print_error, print_json, print_lines

_HEAD: Final = (
    "WORKER", "MODEL", "DEVICE", "BATCH", "IN HAND", "JOBS/S", "BEAT", "STATE", "SINCE (UTC)",
    "VERSION",
)  # fmt: skip
_SILENT_S: Final = 25.0  # since the last heartbeat: two are missing
_UNKNOWN: Final = "?"  # a worker of an older version does not say it


def register(app: typer.Typer) -> None:
    app.command("workers")(workers)


def workers(as_json: Json = False) -> None:
    """List the live workers: model, device, batch, jobs in hand, jobs a second, last heartbeat."""
    with Client.from_env() as client:
        found = client.workers()
    if as_json:
        print_json({"workers": [worker.model_dump(mode="json") for worker in found]})
        return
    if not found:
        print_error("maskq: no worker is alive; start one with `maskq worker`")
        return
    print_lines(*aligned(_HEAD, map(_row, found)))


def state(worker: WorkerState) -> str:
    """What a worker does: serving, draining, silent, or waiting for its store."""
    if worker.draining:
        return "draining"
    if worker.store_away:
        return "store away"
    if worker.beat_age_s is not None and worker.beat_age_s > _SILENT_S:
        return "silent"
    return "serving"


def busy(worker: WorkerState) -> str:
    """Jobs in hand of those that it takes at a time."""
    if worker.in_hand is None:
        return _UNKNOWN
    return f"{worker.in_hand}/{worker.concurrency}" if worker.concurrency else str(worker.in_hand)


def rate(worker: WorkerState) -> str:
    """Jobs a second in the last minute."""
    return _UNKNOWN if worker.jobs_per_s is None else f"{worker.jobs_per_s:.2f}"


def beat(worker: WorkerState) -> str:
    """How long ago it last said what it does."""
    age_s = worker.beat_age_s
    return _UNKNOWN if age_s is None else seconds(age_s)


def _row(worker: WorkerState) -> tuple[str, ...]:
    return (
        worker.owner,
        worker.model,
        " ".join(filter(None, (worker.device, worker.dtype, worker.precision))),
        str(worker.max_batch_size or _UNKNOWN),
        busy(worker),
        rate(worker),
        beat(worker),
        state(worker),
        moment(worker.since_ms),
        worker.version or _UNKNOWN,
    )
