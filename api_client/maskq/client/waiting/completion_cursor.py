"""How many jobs end: one look for all that ended since the last one."""

from __future__ import annotations

from collections.abc import Sequence

from maskq.client.operations.flow import Flow, Pipeline
from maskq.contract import JobRecord
from maskq.ledger import calls


class CompletionCursor:
    """Jobs of a batch that ended, each once, in the order in which they did."""

    def __init__(self, batch_id: str) -> None:
        self._batch_id = batch_id
        self._seen = 0

    def skip(self) -> Flow[None]:
        """Only what ends from now on."""
        progress = yield from self._progress()
        self._seen = sum(progress.counts.values()) if progress else 0

    def look(self) -> Flow[dict[str, JobRecord | None]]:
        """What ended since the last look, a thousand at most; None for a record that is gone."""
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
    """In one round trip; None for what is not known (any more)."""
    records = yield Pipeline([calls.get(job_id) for job_id in job_ids])
    return dict(zip(job_ids, records, strict=True))
