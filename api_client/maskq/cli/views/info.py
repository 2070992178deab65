"""maskq info: the deployment at a glance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import Any, Final

import typer

from maskq.cli.jobs import Json
from maskq.cli.reporting.tables import duration
from maskq.client.client import Client
from maskq.contract.deployment.overview import Overview, Queue
from maskq.contract.deployment.workers import WorkerState
from maskq.contract.models import ModelChoice, ServedModel
from maskq.inert import one_line, print_json, print_lines

_PROTOCOLS: Final = {
    "http_api": "v1",
    "events": "CloudEvents 1.0",
    "webhooks": "Standard Webhooks 1.0",
}
_CHOICES: Final = {
    ModelChoice.STORED: "set by `maskq models default`",
    ModelChoice.SETTING: "MASKQ_DEFAULT_MODEL",
    ModelChoice.CALLER: "MASKQ_MODEL",
    ModelChoice.ONLY: "the only one",
}
Line = tuple[str, str]


def register(app: typer.Typer) -> None:
    app.command("info")(info)


def info(as_json: Json = False) -> None:
    """Show the deployment: models, workers, queues, stores, versions, retention and limits."""
    with Client.from_env() as client:
        overview, models, workers = client.overview(), client.models(), client.workers()
    if as_json:
        print_json(_document(overview, models, workers))
        return
    for title, lines in _sections(overview, models, workers):
        print_lines(title)
        width = max((len(name) for name, _ in lines), default=0)
        for name, text in lines:
            print_lines(f"  {one_line(name):{width}}  {one_line(text)}".rstrip())


def _document(
    overview: Overview, models: Sequence[ServedModel], workers: Sequence[WorkerState]
) -> dict[str, Any]:
    return {
        **overview.model_dump(mode="json"),
        "models": [
            {
                "name": model.name,
                "revisions": model.revisions or (model.revision,),
                "default": model.default,
                "labels": len(model.labels),
            }
            for model in models
        ],
        "workers": [worker.model_dump(mode="json") for worker in workers],
        "versions": {"client": version("maskq"), "asked": overview.version, **_PROTOCOLS},
    }


def _sections(
    overview: Overview, models: Sequence[ServedModel], workers: Sequence[WorkerState]
) -> Iterator[tuple[str, list[Line]]]:
    yield "models", [_model(model, overview) for model in models] or [("none", "")]
    yield "queues", [(queue.model, _queue(queue)) for queue in overview.queues] or [("none", "")]
    yield "totals", _totals(overview, workers)
    yield "stores", _stores(overview)
    yield "versions", _versions(overview, workers)
    yield "limits", _limits(overview)


def _model(model: ServedModel, overview: Overview) -> Line:
    revisions = model.revisions or ((model.revision,) if model.revision else ())
    said = [f"revision {' and '.join(revisions) or 'unknown'}", f"{len(model.labels)} classes"]
    if model.default:
        said.append(f"default ({_CHOICES.get(overview.default.choice, '')})")
    return model.name, ", ".join(said)


def _queue(queue: Queue) -> str:
    ready = ", ".join(f"{jobs} {level.value}" for level, jobs in queue.ready.items() if jobs)
    oldest = (
        "" if queue.oldest_s is None else f", the oldest {duration(round(queue.oldest_s * 1000))}"
    )
    waiting = f" ({ready}{oldest})" if ready else ""
    return f"{queue.queued} queued{waiting}, {queue.running} running, {queue.workers} workers"


def _totals(overview: Overview, workers: Sequence[WorkerState]) -> list[Line]:
    totals = overview.totals
    return [
        ("workers", f"{len(workers)}"),
        ("jobs kept", f"{totals.records}"),
        ("jobs that back off or start later", f"{totals.delayed}"),
        ("webhooks due", f"{totals.webhooks_due} ({totals.webhooks_overdue} overdue)"),
        ("tenants with settings", f"{totals.tenants}"),
    ]


def _stores(overview: Overview) -> list[Line]:
    stores = overview.stores
    return [
        ("Redis", f"{stores.redis}, keys {stores.key_prefix}:*"),
        ("object store", stores.s3_endpoint or "AWS"),
        ("own prefix", f"s3://{stores.s3_bucket}/{stores.output_prefix}"),
    ]


def _versions(overview: Overview, workers: Sequence[WorkerState]) -> list[Line]:
    of_workers = sorted({worker.version or "older" for worker in workers})
    return [
        ("this client", version("maskq")),
        ("answered by", overview.version),
        ("workers", ", ".join(of_workers) or "none"),
        ("Redis", overview.stores.redis_version or "not told"),
        ("protocols", ", ".join(f"{name} {value}" for name, value in _PROTOCOLS.items())),
    ]


def _limits(overview: Overview) -> list[Line]:
    limits = overview.limits
    return [
        ("queued jobs of a model", _unlimited(limits.max_queued)),
        ("of a tenant", _unlimited(limits.max_queued_per_tenant)),
        ("attempts", str(limits.max_attempts)),
        ("a job must start within", _span(limits.queue_ttl_s)),
        ("an attempt may run for", _span(limits.run_timeout_s)),
        ("records are kept for", _span(limits.retention_s)),
        (
            "outputs are kept for",
            _span(limits.output_retention_s) if limits.output_retention_s else "ever",
        ),
    ]


def _unlimited(number: int) -> str:
    return str(number) if number else "no limit"


def _span(seconds: float) -> str:
    days, rest = divmod(seconds, 86_400)
    return f"{days:.0f} days" if days >= 2 and not rest else duration(round(seconds * 1000))
