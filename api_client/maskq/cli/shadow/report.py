"""Compares the masks of second runs with those of the jobs themselves."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from maskq.cli.shadow.comparison import Differences, NotComparable, check_labels, confusion
from maskq.cli.shadow.mirror import SHADOW_OF
from maskq.client.client import Client
from maskq.contract import JobRecord
from maskq.errors import InvalidRequest, JobNotFound


@dataclass(slots=True)
class Report:
    """What the second runs of a deployment show."""

    differences: Differences = field(default_factory=Differences)
    models: Counter[str] = field(default_factory=Counter)  # name and revision → jobs, of both sides
    skipped: Counter[str] = field(default_factory=Counter)  # reason → jobs

    @classmethod
    def of(cls, source: Client, shadow: Client, limit: int) -> Report:
        """Compare the latest second runs, at most `limit`."""
        report = cls()
        for record in islice(shadow.list_all(), limit):
            try:
                report._add(source, shadow, record)
            except JobNotFound:
                report.skipped["the job or its mask is past its retention"] += 1
            except (InvalidRequest, NotComparable) as error:
                report.skipped[str(error)] += 1
        return report

    def _add(self, source: Client, shadow: Client, record: JobRecord) -> None:
        if record.result is None:
            reason = record.error.code.value if record.error else "it has not ended"
            raise NotComparable(f"the second run {record.status.value}: {reason}")
        job_id = record.request.metadata[SHADOW_OF]
        results = (source.get(job_id).result(), shadow.get(record.id).result())
        check_labels(results[0].details.labels, results[1].details.labels)
        found = confusion(results[0].mask(), results[1].mask())
        labels = results[1].details.labels | results[0].details.labels
        self.differences.add(job_id, found, labels)
        for one in results:
            self.models[f"{one.details.model} at {one.details.model_revision}"] += 1

    def document(self, worst: int) -> dict[str, Any]:
        """As JSON. worst: how many jobs to name."""
        found = self.differences
        return {
            "jobs": len(found.jobs),
            "models": dict(self.models),
            "differing_share": found.share,
            "classes": [
                {"id": one, "label": found.labels.get(one, ""), "iou": iou}
                for one, iou in found.iou().items()
            ],
            "worst_jobs": [
                {"job_id": job_id, "differing_share": share} for job_id, share in found.worst(worst)
            ],
            "skipped": dict(self.skipped),
        }
