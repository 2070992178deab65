"""The deployment: is the default model served, do workers live, sweep and agree."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Final

from maskq.cli.doctor.check import Check, Finding, Role, Target, ok, trouble, unknown, warning
from maskq.client.client import Client
from maskq.contract.deployment.overview import Overview
from maskq.contract.deployment.workers import WorkerState
from maskq.errors import MaskqError

_LATE_SWEEP_S: Final = 10.0
_SILENT_S: Final = 25.0
_START: Final = "start a worker: `maskq worker`"


class DeploymentCheck(Check):
    area = "deployment"
    roles = frozenset(Role)

    def run(self, target: Target) -> Iterator[Finding]:
        try:
            with Client.from_env() as client:
                overview, workers = client.overview(), client.workers()
        except MaskqError as error:
            yield unknown("workers", f"not checked: {error}")
            return
        yield _default_model(overview)
        yield _alive(workers)
        yield from _backlog(overview)
        if workers:
            yield _sweeper(overview)
            yield from _agreement(workers)
        yield _webhooks(overview)


def _default_model(overview: Overview) -> Finding:
    name = overview.default.name
    if name is None:
        return warning(
            "default model",
            "several models are known, or none: requests that name none are refused",
            "maskq models default NAME",
        )
    served = next((one for one in overview.queues if one.model == name), None)
    if served is None:
        return trouble(
            "default model",
            f"no worker has ever served {name}",
            f"{_START}, or maskq models default NAME",
        )
    if not served.workers:
        return trouble("default model", f"no worker for {name} is alive: its jobs wait", _START)
    return ok("default model", f"{name}, served by {served.workers} workers")


def _alive(workers: Sequence[WorkerState]) -> Finding:
    odd = [one.owner for one in workers if (one.beat_age_s or 0.0) > _SILENT_S]
    away = [one.owner for one in workers if one.store_away]
    if odd:
        return warning(
            "workers", f"{', '.join(odd)} said nothing for {_SILENT_S:.0f} s", "look at their logs"
        )
    if away:
        return trouble(
            "workers",
            f"{', '.join(away)} claim nothing: their object store is away",
            "maskq doctor there",
        )
    if not workers:
        return warning("workers", "none is alive", _START)
    return ok("workers", f"{len(workers)} alive")


def _backlog(overview: Overview) -> Iterator[Finding]:
    for queue in overview.queues:
        if queue.queued and not queue.workers and queue.model != overview.default.name:
            yield trouble(
                "queue", f"{queue.queued} jobs wait for {queue.model}, which none serves", _START
            )


def _sweeper(overview: Overview) -> Finding:
    age_s = overview.totals.sweeper_age_s
    if age_s is None or age_s > _LATE_SWEEP_S:
        last = "none was ever made" if age_s is None else f"the last was {age_s:.0f} s ago"
        return trouble(
            "sweeper",
            f"no worker sweeps ({last}): lost jobs and deadlines are not handled",
            "look for 'sweep' in the workers' logs",
        )
    return ok("sweeper", f"swept {age_s:.0f} s ago")


def _agreement(workers: Sequence[WorkerState]) -> Iterator[Finding]:
    labels: dict[str, set[str]] = defaultdict(set)
    revisions: dict[str, set[str]] = defaultdict(set)
    for one in workers:
        labels[one.model].add(one.labels_digest)
        revisions[one.model].add(one.revision)
    for model, found in revisions.items():
        if len(labels[model]) > 1:
            yield trouble(
                "revisions",
                f"workers of {model} have other classes than others: a class id has two meanings",
                "give one of the models a MASKQ_MODEL_NAME of its own",
            )
        elif len(found) > 1:
            yield warning(
                "revisions",
                f"{model} is served in {len(found)} revisions: {', '.join(sorted(found))}",
                "nothing during a rolling upgrade; else a MASKQ_MODEL_NAME for each",
            )
        else:
            yield ok("revisions", f"all workers of {model} serve {found.pop()}")


def _webhooks(overview: Overview) -> Finding:
    totals = overview.totals
    if totals.webhooks_overdue:
        return trouble(
            "webhooks",
            f"{totals.webhooks_overdue} are overdue: nobody posts them",
            "maskq worker --role webhooks",
        )
    return ok("webhooks", f"{totals.webhooks_due} due, none overdue")
