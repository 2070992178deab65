"""Calls that read, cancel and delete jobs and batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from maskq.contract import FailureCode, JobRecord, JobStatus
from maskq.ledger.calls.base import Argument, Call
from maskq.ledger.records import RawRecord, pairs, parse_record
from maskq.ledger.scripts import script


def get(job_id: str) -> Call[JobRecord | None]:
    """The record, or None where there is none. `job_id`: or an alias."""

    def parse(answer: Sequence[str]) -> JobRecord | None:
        return parse_record(pairs(answer)) if answer else None

    return Call(script("get"), (job_id,), parse)


def look(job_id: str) -> Call[RawRecord | None]:
    """The unparsed record, or None. Cheaper than `get`: a wait parses it once the job has ended."""

    def parse(answer: Sequence[str]) -> RawRecord | None:
        return RawRecord(pairs(answer)) if answer else None

    return Call(script("get"), (job_id,), parse)


def cancel(job_id: str) -> Call[JobStatus | None]:
    """Take a job back; the status it now has (an ended job keeps its own), None if unknown.

    `job_id`: or an alias.
    """
    return Call(
        script("cancel"),
        (job_id,),
        lambda answer: None if answer == "unknown" else JobStatus(answer),
    )


@dataclass(frozen=True, slots=True)
class Page:
    records: tuple[JobRecord, ...]
    cursor: str  # '' when that was the last page


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which records; None: any."""

    status: JobStatus | None = None
    code: FailureCode | None = None
    model: str | None = None
    tenant: str | None = None
    batch_id: str | None = None
    ended_since_ms: int | None = None  # lists what ended from then on, in the order of ending


def jobs(wanted: Filter, *, limit: int, cursor: str = "") -> Call[Page]:
    """One page of records: newest first, or by `ended_since_ms`."""

    def parse(answer: Sequence[Any]) -> Page:
        return Page(tuple(parse_record(pairs(flat)) for flat in answer[1:]), answer[0])

    since = "" if wanted.ended_since_ms is None else str(wanted.ended_since_ms)
    fields = (wanted.status, wanted.code, wanted.model, wanted.tenant, wanted.batch_id)
    texts = [str(field or "") for field in fields]
    args: tuple[Argument, ...] = (limit, cursor, since, *texts)
    return Call(script("jobs"), args, parse)


def delete(job_id: str) -> Call[str]:
    """Forget an ended job and its webhooks: 'deleted', 'unknown', or the status if it has not ended."""
    return Call(script("delete"), (job_id,), str)


@dataclass(frozen=True, slots=True)
class BatchProgress:
    total: int
    counts: dict[JobStatus, int]  # terminal states only
    ended: tuple[str, ...]  # job ids since the cursor, in the order in which they ended
    tenant: str | None = None


def batch_progress(batch_id: str, seen: int = 0) -> Call[BatchProgress | None]:
    """How far a batch is; `seen` is how many of its ended jobs the caller has had already."""

    def parse(answer: Sequence[Any]) -> BatchProgress | None:
        if not answer:
            return None
        fields = pairs(answer[0])
        counts = {s: int(fields[s.value]) for s in JobStatus if s.value in fields}
        return BatchProgress(int(fields["total"]), counts, tuple(answer[1:]), fields.get("tenant"))

    return Call(script("batch"), (batch_id, seen), parse)
