"""Calls that read, cancel and delete jobs and batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import to_json

from maskq.contract import FailureCode, JobRecord, JobStatus
from maskq.contract.locations.source import source_of
from maskq.ledger.calls.base import Call, scripted
from maskq.ledger.records import RawRecord, pairs, parse_record


def get(job_id: str) -> Call[JobRecord | None]:
    """The record of a job, or None if it is unknown. `job_id`: or an alias."""

    def parse(answer: Sequence[str]) -> JobRecord | None:
        return parse_record(pairs(answer)) if answer else None

    return scripted("get", parse, given=job_id)


def look(job_id: str) -> Call[RawRecord | None]:
    """The unparsed record, or None. Cheaper than `get`: a wait parses it once the job has ended."""

    def parse(answer: Sequence[str]) -> RawRecord | None:
        return RawRecord(pairs(answer)) if answer else None

    return scripted("get", parse, given=job_id)


def cancel(job_id: str) -> Call[JobStatus | None]:
    """Cancel a job; returns the status it now has (an ended job keeps its own), None if unknown.

    `job_id`: or an alias.
    """

    def parse(answer: str) -> JobStatus | None:
        return None if answer == "unknown" else JobStatus(answer)

    return scripted("cancel", parse, given=job_id)


@dataclass(frozen=True, slots=True)
class Page:
    records: tuple[JobRecord, ...]
    cursor: str  # of the next page; '' after the last one


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which records; None: any."""

    status: JobStatus | None = None
    code: FailureCode | None = None
    model: str | None = None
    tenant: str | None = None
    batch_id: str | None = None
    source: str | None = None  # as records name it; an s3:// place without a version: any version
    ended_since_ms: int | None = None  # lists jobs that ended from then on, in the order of ending


def jobs(wanted: Filter, *, limit: int, cursor: str = "") -> Call[Page]:
    """One page of records: newest first, or by `ended_since_ms`."""

    def parse(answer: Sequence[Any]) -> Page:
        return Page(tuple(parse_record(pairs(flat)) for flat in answer[1:]), answer[0])

    return scripted(
        "jobs",
        parse,
        limit=limit,
        cursor=cursor,
        ended_since="" if wanted.ended_since_ms is None else wanted.ended_since_ms,
        status=wanted.status or "",
        code=wanted.code or "",
        model=wanted.model or "",
        tenant=wanted.tenant or "",
        batch=wanted.batch_id or "",
        source=source_of(wanted.source or ""),
        image=_request_of(wanted.source or ""),
    )


def _request_of(source: str) -> str:
    """How the record's request begins, if it is for the object with this place; '' for a file name."""
    if not source.startswith("s3://"):
        return ""
    return f'{{"image_uri":{to_json(source).decode()}'


def delete(job_id: str) -> Call[str]:
    """Delete an ended job and its webhooks: 'deleted', 'unknown', or the status if it has not ended."""
    return scripted("delete", str, given=job_id)


@dataclass(frozen=True, slots=True)
class BatchProgress:
    total: int
    counts: dict[JobStatus, int]  # terminal states only
    ended: tuple[str, ...]  # job ids since the cursor, in the order in which they ended
    tenant: str | None = None

    @property
    def finished(self) -> int:
        """Jobs that have ended."""
        return max(len(self.ended), sum(self.counts.values()))


def batch_progress(batch_id: str, seen: int = 0) -> Call[BatchProgress | None]:
    """How far a batch is; `seen`: how many of its ended jobs the caller has read already."""

    def parse(answer: Sequence[Any]) -> BatchProgress | None:
        if not answer:
            return None
        fields = pairs(answer[0])
        counts = {s: int(fields[s.value]) for s in JobStatus if s.value in fields}
        return BatchProgress(int(fields["total"]), counts, tuple(answer[1:]), fields.get("tenant"))

    return scripted("batch", parse, batch=batch_id, seen=seen)
