"""Reading which jobs of a batch have ended since the last read."""

from __future__ import annotations

from collections.abc import Sequence

from maskq.client.operations.flow import Flow, Pipeline
from maskq.contract import JobRecord
from maskq.ledger import calls


class CompletionCursor:
    """Reads each job of a batch once, in the order in which the jobs ended."""

    def __init__(self, batch_id: str) -> None:
        self._batch_id = batch_id
        self._seen = 0

    def skip(self) -> Flow[None]:
        """Skip the jobs that have ended already."""
        progress = yield from self._progress()
        self._seen = sum(progress.counts.values()) if progress else 0

    def look(self) -> Flow[dict[str, JobRecord | None]]:
        """Records of jobs that ended since the last call, at most a thousand; None: deleted."""
        progress = yield from self._progress()
        if progress is None:
            return {}
        records = yield from records_of(progress.ended)
        self._seen += len(progress.ended)
        return records

    def _progress(self) -> Flow[calls.BatchProgress | None]:
        progress: calls.BatchProgress | None
        progress = yield calls.batch_progress(self._batch_id, self._seen)
        return progress


def records_of(job_ids: Sequence[str]) -> Flow[dict[str, JobRecord | None]]:
    """The records, in one round trip; None for an unknown job or a deleted record."""
    records = yield Pipeline([calls.get(job_id) for job_id in job_ids])
    return dict(zip(job_ids, records, strict=True))
