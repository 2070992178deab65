"""Draws a snapshot as tables."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from maskq.cli.reporting.tables import seconds
from maskq.cli.views import workers
from maskq.cli.views.columns import line, table
from maskq.cli.views.snapshot import EXAMINED, Snapshot
from maskq.contract import JobRecord
from maskq.contract.deployment.overview import Queue, Totals
from maskq.contract.deployment.workers import WorkerState
from maskq.contract.options import Priority

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
    from rich.text import Text

_FAILURES: Final = 5
_OTHER_LINES: Final = 12  # of a screen, beside workers and failures
_LEAST_WORKERS: Final = 3
_QUEUES: Final = (
    "MODEL", ">QUEUED", ">HIGH", ">NORMAL", ">LOW", ">OLDEST", ">RUNNING", ">JOBS/S", ">WORKERS",
)  # fmt: skip
_WORKERS: Final = ("WORKER", "MODEL", "DEVICE", ">BATCH", ">IN HAND", ">JOBS/S", ">BEAT", "STATE")
_FAILED: Final = ("ENDED", "JOB", "ERROR")
_STYLE_OF_STATE: Final = {"serving": "green", "draining": "yellow"}
_LATE_SWEEP_S: Final = 10.0


class Screen:
    """A snapshot for rich: header, queues, workers, failures, as much as the height allows."""

    def __init__(self, snapshot: Snapshot, *, footer: str = "", problem: str = "") -> None:
        """problem: why the snapshot is not the latest."""
        self._snapshot = snapshot
        self._footer = footer
        self._problem = problem

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from self._parts(options.max_width, options.height if self._footer else None)

    def _parts(self, width: int, height: int | None) -> Iterator[RenderableType]:
        snapshot = self._snapshot
        yield line(_header(snapshot), "bold")
        yield _numbers(snapshot)
        if warning := self._problem or _warning(snapshot.overview.totals):
            yield line(warning, "bold red")
        yield line("")
        yield table(width, _QUEUES, [_queue(one, snapshot) for one in snapshot.overview.queues])
        yield line("")
        yield from _workers(snapshot.workers, width, self._room(height))
        yield line("")
        yield from _failures(snapshot.failures, width)
        if self._footer:
            yield line("")
            yield line(self._footer, "dim")

    def _room(self, height: int | None) -> int | None:
        """Lines for workers; None: no limit."""
        if height is None:
            return None
        snapshot = self._snapshot
        taken = len(snapshot.overview.queues) + min(len(snapshot.failures), _FAILURES)
        return max(_LEAST_WORKERS, height - taken - _OTHER_LINES)


def plain(snapshot: Snapshot, width: int) -> list[str]:
    """The lines of a snapshot, without colours."""
    from rich.console import Console

    console = Console(file=io.StringIO(), width=width, color_system=None, highlight=False)
    with console.capture() as captured:
        console.print(Screen(snapshot))
    return [each.rstrip() for each in captured.get().splitlines()]


def _header(snapshot: Snapshot) -> str:
    overview = snapshot.overview
    now = datetime.fromtimestamp(overview.now_ms / 1000, UTC)
    stores = overview.stores
    return f"maskq on Redis {stores.redis}, keys {stores.key_prefix}:*, {now:%H:%M:%S} UTC"


def _numbers(snapshot: Snapshot) -> Text:
    totals = snapshot.overview.totals
    queued = sum(queue.queued for queue in snapshot.overview.queues)
    parts = [
        f"{queued} queued",
        f"{totals.delayed} delayed",
        f"{totals.running} running",
        f"{len(snapshot.workers)} workers",
        f"{snapshot.jobs_per_s():.2f} jobs/s",
        f"{totals.webhooks_due} webhooks due",
    ]
    return line("   ".join(parts))


def _warning(totals: Totals) -> str:
    if totals.webhooks_overdue:
        return (
            f"{totals.webhooks_overdue} webhooks are overdue: is `maskq worker --role webhooks` "
            f"running?"
        )
    if totals.sweeper_age_s is None or totals.sweeper_age_s > _LATE_SWEEP_S:
        return "no worker sweeps: lost jobs and deadlines are not handled"
    return ""


def _queue(queue: Queue, snapshot: Snapshot) -> tuple[str | Text, ...]:
    name = f"{queue.model} *" if queue.default else queue.model
    none_serves = queue.workers == 0 and queue.queued > 0
    return (
        name,
        str(queue.queued),
        *(str(queue.ready.get(level, 0)) for level in Priority),
        "" if queue.oldest_s is None else seconds(queue.oldest_s),
        str(queue.running),
        f"{snapshot.jobs_per_s(queue.model):.2f}",
        line(str(queue.workers), "bold red" if none_serves else ""),
    )


def _workers(
    found: Sequence[WorkerState], width: int, room: int | None
) -> Iterator[RenderableType]:
    shown = found if room is None or len(found) <= room else found[: room - 1]
    yield table(width, _WORKERS, map(_worker, shown))
    if len(shown) < len(found):
        yield line(f"and {len(found) - len(shown)} more: maskq workers", "dim")
    elif not found:
        yield line("none is alive; start one with `maskq worker`", "bold red")


def _worker(worker: WorkerState) -> tuple[str | Text, ...]:
    state = workers.state(worker)
    return (
        worker.owner,
        worker.model,
        worker.device,
        str(worker.max_batch_size or "?"),
        workers.busy(worker),
        workers.rate(worker),
        workers.beat(worker),
        line(state, _STYLE_OF_STATE.get(state, "bold red")),
    )


def _failures(found: Sequence[JobRecord], width: int) -> Iterator[RenderableType]:
    if not found:
        yield line(f"none of the latest {EXAMINED} jobs failed", "dim")
        return
    yield line(f"{len(found)} of the latest {EXAMINED} jobs failed:")
    yield table(width, _FAILED, map(_failure, found[:_FAILURES]))


def _failure(record: JobRecord) -> tuple[str, ...]:
    ended = datetime.fromtimestamp((record.ended_ms or 0) / 1000, UTC)
    error = f"{record.error.code}: {record.error.message}" if record.error else ""
    return f"{ended:%H:%M:%S}", record.id, error
