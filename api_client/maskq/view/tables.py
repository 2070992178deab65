"""Jobs as HTML tables, as a notebook displays them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Final

from maskq.contract import JobRecord
from maskq.inert import one_line

_HEAD: Final = ("job", "status", "submitted (UTC)", "waited", "took", "size", "model", "result")
_MOST_ROWS: Final = 100


def jobs_html(title: str, jobs: Sequence[tuple[str, JobRecord | None]]) -> str:
    """Jobs with their times and results; None: of a job whose record has not been read."""
    rows = "".join(_row("td", _cells(job_id, record)) for job_id, record in jobs[:_MOST_ROWS])
    more = len(jobs) - _MOST_ROWS
    rest = f"<p>and {more} more</p>" if more > 0 else ""
    return f"<p>{_text(title)}</p><table>{_row('th', _HEAD)}{rows}</table>{rest}"


def _row(tag: str, cells: Iterable[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{_text(cell)}</{tag}>' for cell in cells)}</tr>"


def _cells(job_id: str, record: JobRecord | None) -> Iterable[str]:
    if record is None:
        return (job_id, "not read yet", *[""] * (len(_HEAD) - 2))
    result = record.result
    return (
        record.id,
        record.status.value,
        f"{datetime.fromtimestamp(record.created_ms / 1000, UTC):%Y-%m-%d %H:%M:%S}",
        _seconds(record.created_ms, record.started_ms),
        _seconds(record.started_ms, record.ended_ms),
        f"{result.width}x{result.height}" if result else "",
        record.model,
        _result(record),
    )


def _seconds(begin_ms: int | None, end_ms: int | None) -> str:
    return "" if begin_ms is None or end_ms is None else f"{max(0, end_ms - begin_ms) / 1000:.2f} s"


def _result(record: JobRecord) -> str:
    if record.result:
        return ", ".join(record.result.outputs)
    return f"{record.error.code}: {record.error.message}" if record.error else ""


def _text(text: str) -> str:
    """As HTML, without markup, URL secrets and characters that reorder or hide text."""
    return escape(one_line(text))
