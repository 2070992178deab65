"""The panels of the dashboard: what each shows, and the queries for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

# Workers of the models that are chosen at the top of the dashboard.
_CHOSEN = 'and on (job, instance) maskq_worker_start_time_seconds{model=~"$model"}'


@dataclass(frozen=True, slots=True)
class Query:
    """A query in PromQL, and the name of each series that it returns."""

    expr: str
    legend: str


@dataclass(frozen=True, slots=True)
class Panel:
    """A graph over time, or with `is_stat` the latest number."""

    title: str
    unit: str  # as Grafana names it
    queries: tuple[Query, ...]
    description: str = ""
    is_stat: bool = False


def _stat(title: str, unit: str, expr: str, description: str = "") -> Panel:
    return Panel(title, unit, (Query(expr, ""),), description, is_stat=True)


def _graph(title: str, unit: str, expr: str, legend: str, description: str = "") -> Panel:
    return Panel(title, unit, (Query(expr, legend),), description)


def _of_workers(series: str) -> str:
    return f"{series} {_CHOSEN}"


GLANCE: Final = (
    _stat(
        "Jobs that wait",
        "short",
        'sum(max by (model, priority) (maskq_queue_depth{model=~"$model"}))',
        "Jobs that may run now. Deferred ones are not among them.",
    ),
    _stat("Oldest job", "s", 'max(maskq_queue_oldest_seconds{model=~"$model"})'),
    _stat("Jobs that run", "short", 'sum(max by (model) (maskq_jobs_running{model=~"$model"}))'),
    _stat("Workers", "short", 'sum(max by (model) (maskq_workers{model=~"$model"}))'),
    _stat(
        "Failed",
        "percentunit",
        'sum(maskq:jobs_ended:increase{model=~"$model", status="failed"})'
        ' / sum(maskq:jobs_ended:increase{model=~"$model"})',
        "Share of the jobs that ended in the window of the alerts.",
    ),
    _stat(
        "Alerts",
        "short",
        'count(ALERTS{alertname=~"Maskq.+", alertstate="firing"}) or vector(0)',
    ),
)
JOBS: Final = (
    _graph(
        "Jobs that wait",
        "short",
        'max by (model, priority) (maskq_queue_depth{model=~"$model"})',
        "{{model}} {{priority}}",
    ),
    _graph(
        "Oldest job",
        "s",
        'max by (model, priority) (maskq_queue_oldest_seconds{model=~"$model"})',
        "{{model}} {{priority}}",
    ),
    _graph(
        "Jobs that end",
        "ops",
        "sum by (status) (max by (model, status, code)"
        ' (rate(maskq_jobs_total{model=~"$model"}[$__rate_interval])))',
        "{{status}}",
    ),
    _graph(
        "Failures by code",
        "ops",
        "sum by (code) (max by (model, code)"
        ' (rate(maskq_jobs_total{model=~"$model", status="failed"}[$__rate_interval]))) > 0',
        "{{code}}",
        "docs/reference/errors.md says what each code means.",
    ),
    _graph(
        "Jobs that run again",
        "ops",
        "max by (code) (rate(maskq_retries_total[$__rate_interval])) > 0",
        "{{code}}",
        "Of all models, by the reason.",
    ),
    Panel(
        "Workers and demand",
        "short",
        (
            Query('max by (model) (maskq_workers{model=~"$model"})', "{{model}} workers"),
            Query('max by (model) (maskq_jobs_running{model=~"$model"})', "{{model}} running jobs"),
            Query('max by (model) (maskq_offered_load{model=~"$model"})', "{{model}} offered load"),
            Query(
                'ceil(max by (model) (maskq_offered_load{model=~"$model"})'
                ' + max by (model) (maskq_demand_seconds{model=~"$model"}) / 60)',
                "{{model}} wanted",
            ),
        ),
        "Wanted: workers that do what arrives and clear the queue in 60 s.",
    ),
)
WORKERS: Final = (
    _graph(
        "Stages (95 %)",
        "s",
        "histogram_quantile(0.95, sum by (stage, le) ("
        + _of_workers("rate(maskq_stage_seconds_bucket[$__rate_interval])")
        + "))",
        "{{stage}}",
        "Of jobs that succeeded. `model` includes the wait for a batch.",
    ),
    _graph(
        "Images in a forward",
        "short",
        "sum by (instance) ("
        + _of_workers("rate(maskq_batch_size_sum[$__rate_interval])")
        + ") / sum by (instance) ("
        + _of_workers("rate(maskq_batch_size_count[$__rate_interval])")
        + ")",
        "{{instance}}",
    ),
    Panel(
        "Forwards",
        "percentunit",
        (
            Query(
                "sum by (instance) ("
                + _of_workers("rate(maskq_forward_busy_seconds_total[$__rate_interval])")
                + ")",
                "{{instance}} busy",
            ),
            Query(
                'sum by (instance) (maskq:forward_efficiency:recent{model=~"$model"})',
                "{{instance}} batch full",
            ),
        ),
        "Busy: share of the time in which a forward runs. Batch full: images of a forward as a share of"
        " the largest batch.",
    ),
    _graph("Jobs in hand", "short", _of_workers("maskq_worker_jobs_held"), "{{instance}}"),
    Panel(
        "GPU memory",
        "bytes",
        (
            Query(_of_workers("maskq_gpu_memory_bytes"), "{{instance}} reserved"),
            Query(_of_workers("maskq_gpu_memory_free_bytes"), "{{instance}} free on the GPU"),
            Query(_of_workers("maskq_gpu_memory_total_bytes"), "{{instance}} GPU"),
        ),
        "0 without a GPU.",
    ),
    _graph(
        "Age of the process",
        "s",
        'time() - maskq_worker_start_time_seconds{model=~"$model"}',
        "{{model}} {{instance}}",
    ),
    Panel(
        "Lost leases and tickets",
        "ops",
        (
            Query("max(rate(maskq_leases_lost_total[$__rate_interval]))", "leases that ran out"),
            Query("max(rate(maskq_tickets_resent_total[$__rate_interval]))", "tickets sent again"),
            Query(
                "sum(rate(maskq_worker_leases_lost_total[$__rate_interval]))",
                "jobs that a worker lost while it held them",
            ),
        ),
    ),
    _graph(
        "Sweeper",
        "s",
        "max(maskq_sweeper_age_seconds)",
        "since the last sweep",
        "More than 10 s: no worker and no webhook process runs.",
    ),
)
STORES: Final = (
    _graph(
        "Failed requests to object stores",
        "ops",
        "sum by (kind) (rate(maskq_store_errors_total[$__rate_interval]))",
        "{{kind}}",
    ),
    _graph(
        "Open circuit breakers",
        "short",
        "sum by (store) (maskq_store_breaker_open)",
        "{{store}}",
        "home: workers that claim nothing, because the deployment's bucket is away.",
    ),
)
DELIVERY: Final = (
    _graph(
        "Webhooks",
        "ops",
        "max by (outcome) (rate(maskq_webhooks_total[$__rate_interval]))",
        "{{outcome}}",
    ),
    Panel(
        "Webhooks that wait",
        "short",
        (
            Query("max(maskq_webhooks_due)", "due"),
            Query("max(maskq_webhooks_dead)", "failed for good"),
        ),
    ),
    _graph(
        "Webhooks are late by", "s", "max(maskq_webhooks_overdue_seconds)", "the first that is due"
    ),
    _graph(
        "Events that wait for readers",
        "short",
        "max by (group) (maskq_event_lag)",
        "{{group}}",
    ),
)
LEDGER: Final = (
    _graph(
        "Queued jobs, also deferred",
        "short",
        'max by (model) (maskq_jobs_queued{model=~"$model"})',
        "{{model}}",
    ),
    _graph("Entries in Redis", "short", "max by (kind) (maskq_ledger_entries)", "{{kind}}"),
)
ROWS: Final = {
    "At a glance": GLANCE,
    "Jobs": JOBS,
    "Workers": WORKERS,
    "Object stores": STORES,
    "Webhooks and events": DELIVERY,
    "Ledger": LEDGER,
}
