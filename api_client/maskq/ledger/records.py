"""From what Redis answers to what the contract says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from maskq.contract import JobFailure, JobRecord, JobResult, SegmentRequest


def pairs(flat: Sequence[str] | Mapping[str, str]) -> dict[str, str]:
    """A hash, whether the answer came as a mapping or as field, value, field, value."""
    if isinstance(flat, Mapping):
        return dict(flat)
    return dict(zip(flat[::2], flat[1::2], strict=True))


def parse_record(fields: Mapping[str, str]) -> JobRecord:
    """A record from its hash; raises pydantic's ValidationError if somebody else wrote it."""
    plain: dict[str, object] = {
        name: value for name, value in fields.items() if name not in ("request", "result", "error")
    }
    plain["request"] = SegmentRequest.model_validate_json(fields["request"])
    if "result" in fields:
        plain["result"] = JobResult.model_validate_json(fields["result"])
    if "error" in fields:
        plain["error"] = JobFailure.model_validate_json(fields["error"])
    return JobRecord.model_validate(plain)
