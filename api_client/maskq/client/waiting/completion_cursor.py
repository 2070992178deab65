"""Reading which jobs of a batch have ended since the last read."""

from __future__ import annotations

from collections.abc import Mapping

from maskq.client.deployment import Deployment
from maskq.client.operations.flow import Flow
from maskq.contract import JobRecord


class CompletionCursor:
    """Reads each job of a batch once, in the order in which the jobs ended."""

    def __init__(self, deployment: Deployment, batch_id: str) -> None:
        self._deployment = deployment
        self._batch_id = batch_id
        self._seen = 0

    def skip(self) -> Flow[None]:
        """Skip the jobs that have ended already."""
        progress = yield from self._deployment.batch_progress(self._batch_id)
        self._seen = sum(progress.counts.values()) if progress else 0

    def look(self) -> Flow[Mapping[str, JobRecord | None]]:
        """Records of jobs that ended since the last call, at most a thousand; None: deleted."""
        records = yield from self._deployment.ended_in_batch(self._batch_id, self._seen, 0.0)
        self._seen += len(records or ())
        return records or {}
