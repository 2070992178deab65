"""Tables of jobs, models, keys and deliveries, aligned for people."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final

from maskq.contract import JobRecord
from maskq.inert import one_line

_JOBS: Final = ("JOB", "STATUS", "SUBMITTED (UTC)", "WAITED", "TOOK", "SIZE", "RESULT")


def aligned(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines with aligned columns. On a terminal the first line is the head."""
    cells = [tuple(map(one_line, row)) for row in rows]
    if sys.stdout.isatty():
        cells.insert(0, tuple(head))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    widths[-1:] = [0] if widths else []  # nothing stands behind the last column
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in cells]


def job_table(records: Iterable[JobRecord]) -> list[str]:
    """A line for each job: its times, the size of its image, and its outputs or error."""
    return aligned(_JOBS, map(_job, records))


def moment(milliseconds: int) -> str:
    """A time in UTC."""
    return f"{datetime.fromtimestamp(milliseconds / 1000, UTC):%Y-%m-%d %H:%M:%S}"


def duration(milliseconds: int) -> str:
    """`0.42 s`, `12 s`, `3 m 20 s` or `5 h 2 m`."""
    seconds = max(0, milliseconds) / 1000
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} m {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} m"


def seconds(age_s: float) -> str:
    """As `duration`, in whole seconds: `7 s`."""
    return f"{age_s:.0f} s" if age_s < 60 else duration(round(age_s * 1000))


def _job(record: JobRecord) -> tuple[str, ...]:
    size = f"{record.result.width}x{record.result.height}" if record.result else ""
    return (
        record.id,
        f"{record.status.value:<9}",
        moment(record.created_ms),
        _between(record.created_ms, record.started_ms),
        _between(record.started_ms, record.ended_ms),
        size,
        _result(record),
    )


def _between(begin_ms: int | None, end_ms: int | None) -> str:
    return "" if begin_ms is None or end_ms is None else duration(end_ms - begin_ms)


def _result(record: JobRecord) -> str:
    if record.result:
        named = record.result.copies or record.result.outputs
        return " ".join(named.values())
    return f"{record.error.code}: {record.error.message}" if record.error else ""
