"""What a JSON line of the log says of a job."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from maskq.contract import FailureCode, JobRecord, JobStatus
from maskq.ledger.calls import ReleaseOutcome
from maskq_worker.telemetry.attempt_trace import trace_id_of

NO_TIMINGS: Final[Mapping[str, float]] = MappingProxyType({})


def job_fields(
    record: JobRecord,
    status: JobStatus | ReleaseOutcome,
    code: FailureCode | None = None,
    timings_ms: Mapping[str, float] = NO_TIMINGS,
) -> dict[str, object]:
    """What a JSON line of the log says about the end of an attempt."""
    return {
        "job": record.id,
        "attempt": record.attempt,
        "trace": trace_id_of(record),
        "tenant": record.tenant,
        "model": record.model,
        "status": status.value,
        "code": code,
        "stage_seconds": {name: round(ms / 1000, 5) for name, ms in timings_ms.items()} or None,
    }
