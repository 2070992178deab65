"""Examples, made from the models: none can say what the contract does not."""

from __future__ import annotations

from typing import Final

from maskq.contract.asyncapi.celery_callers import SegmentAnswer
from maskq.contract.asyncapi.channels import KEY_PREFIX
from maskq.contract.asyncapi.refs import Json
from maskq.contract.events import BATCH_COMPLETED, BatchEventData, JobEventData
from maskq.contract.failures import FailureCode, JobFailure
from maskq.contract.jobs import JobResult, SegmentRequest
from maskq.contract.locations import S3Uri
from maskq.contract.locations.source import source_of
from maskq.contract.outputs import Output
from maskq.contract.statuses import ENDED, STATES, TERMINAL, JobStatus
from maskq.contract.storage_layout import StorageLayout

JOB: Final = "019b7c3e-5d2e-7a41-9c0b-3f6a1e8d2b57"
_BATCH: Final = "019b7c3e-5d1f-7e08-8b44-d2c95a7f0e13"
_TIME: Final = "2026-01-02T03:04:05.678Z"
_STORAGE: Final = StorageLayout(S3Uri("maskq", "maskq")).job(JOB)
REQUEST: Final = SegmentRequest(
    image_uri="s3://photos/1.jpg", outputs=frozenset({Output.MASK}), metadata={"order": "7"}
)
_RESULT: Final = JobResult(
    width=640,
    height=480,
    model="Intel/dpt-large-ade",
    outputs={Output.MASK: str(_STORAGE.output("Zk3v_0aTq9LxW-2b", Output.MASK))},
    labels={2: "sky", 12: "person"},
    timings_ms={"model": 41.5},
)
ANSWER: Final = SegmentAnswer(job_id=JOB, **_RESULT.model_dump())
FAILURE: Final = JobFailure(
    code=FailureCode.INVALID_IMAGE, message="s3://photos/1.jpg is not an image that can be decoded"
)
# Why jobs that end without running do so; others have the reason of a failed one.
_REASONS: Final = {
    JobStatus.CANCELED: JobFailure(code=FailureCode.CANCELED, message="canceled by the caller"),
    JobStatus.EXPIRED: JobFailure(
        code=FailureCode.EXPIRED,
        message="it was not running when its queue_ttl_s ended; submit it again",
    ),
}


def event(kind: str) -> Json:
    """An event as the ledger writes it."""
    data = _example_data(kind)
    subject, state = (_BATCH if kind == BATCH_COMPLETED else JOB), kind.rpartition(".")[2]
    comes_again = state in {*JobStatus} - TERMINAL
    return {
        "specversion": "1.0",
        "id": f"{subject}:{state}" + (f":{data['attempt']}" if comes_again else ""),
        "source": f"maskq/{KEY_PREFIX['default']}",
        "type": kind,
        "subject": subject,
        "time": _TIME,
        "timestamp": _TIME,
        "datacontenttype": "application/json",
        "data": data,
    }


def _example_data(kind: str) -> Json:
    data: JobEventData | BatchEventData
    if kind == BATCH_COMPLETED:
        counts = dict.fromkeys(ENDED, 0) | {JobStatus.SUCCEEDED: 3, JobStatus.FAILED: 1}
        data = BatchEventData.model_validate(
            {"batch_id": _BATCH, "total": sum(counts.values()), **counts}
        )
    else:
        data = _example_job(JobStatus(kind.rpartition(".")[2]))
    return data.model_dump(mode="json", exclude_unset=True)


def _example_job(status: JobStatus) -> JobEventData:
    ran = status not in {JobStatus.QUEUED, *_REASONS}
    known: Json = {
        "job_id": JOB,
        "status": status,
        "attempt": int(ran),
        "source": source_of(REQUEST.image_uri),
    }
    if status in TERMINAL:
        known |= {"batch_id": _BATCH, "metadata": REQUEST.metadata}
    if STATES[status].has_result:
        known["result"] = _RESULT
    elif status in TERMINAL:
        known["error"] = _REASONS.get(status, FAILURE)
    return JobEventData(**known)
