"""Compares the masks of second runs with those of the jobs themselves."""

from __future__ import annotations

from itertools import islice
from typing import Any

from maskq.cli.comparison.findings import Findings
from maskq.cli.comparison.masks import NotComparable
from maskq.cli.shadow.mirror import SHADOW_OF
from maskq.client.client import Client
from maskq.contract import JobRecord
from maskq.errors import InvalidRequest, JobNotFound


def compared(source: Client, shadow: Client, limit: int) -> Findings:
    """Compare the latest second runs, at most `limit`, with the jobs of `source`."""
    findings = Findings()
    for record in islice(shadow.list_all(), limit):
        try:
            _add(findings, source, shadow, record)
        except JobNotFound:
            findings.skipped["the job or its mask is past its retention"] += 1
        except (InvalidRequest, NotComparable) as error:
            findings.skipped[str(error)] += 1
    return findings


def _add(findings: Findings, source: Client, shadow: Client, record: JobRecord) -> None:
    if record.result is None:
        reason = record.error.code.value if record.error else "it has not ended"
        raise NotComparable(f"the second run {record.status.value}: {reason}")
    job_id = record.request.metadata[SHADOW_OF]
    findings.add(job_id, source.get(job_id).result(), shadow.get(record.id).result())


def document_of(findings: Findings, worst: int) -> dict[str, Any]:
    """As JSON. worst: how many jobs to name."""
    found = findings.differences
    return {
        "jobs": len(found.pairs),
        **findings.document(),
        "worst_jobs": [
            {"job_id": job_id, "differing_share": share} for job_id, share in found.worst(worst)
        ],
    }
