"""What `maskq top` shows, read at one moment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from maskq.client.client import Client
from maskq.contract import JobRecord, JobStatus
from maskq.contract.deployment.overview import Overview
from maskq.contract.deployment.workers import WorkerState

EXAMINED: Final = 100  # of the latest jobs, for failures


@dataclass(frozen=True, slots=True)
class Snapshot:
    overview: Overview
    workers: Sequence[WorkerState]
    failures: Sequence[JobRecord]  # among the EXAMINED latest jobs, the latest first

    @classmethod
    def take(cls, client: Client) -> Snapshot:
        """Ask the deployment. Raises MaskqError."""
        return cls(
            overview=client.overview(),
            workers=client.workers(),
            failures=client.list(status=JobStatus.FAILED, limit=EXAMINED).records,
        )

    def jobs_per_s(self, model: str | None = None) -> float:
        """Of all workers, or of those of one model."""
        each = (one for one in self.workers if model in (None, one.model))
        return sum(one.jobs_per_s or 0.0 for one in each)
