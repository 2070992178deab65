"""Raw Celery callers: `app.send_task("maskq.segment", args=[request])`, without maskq on their side.

The first message creates the job record. Its id is Celery's task id if that is a UUID. Otherwise it is
a new id, and the task id is its alias. When the job ends, the same transaction resends the caller's own
message. It arrives here, finds the ended record and returns the result: Celery stores it, and runs
callbacks, chain and chord.

`countdown`, `eta` and `expires` become times of the job in the ledger; Celery holds no message.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NoReturn, Protocol

from celery.exceptions import Ignore
from pydantic import ValidationError

from maskq.contract import FailureCode, JobRecord, JobStatus, SegmentRequest
from maskq.contract.ids import is_own_id, new_id
from maskq.contract.tracing import TraceContext
from maskq.errors import SegmentRefused
from maskq.ledger import calls
from maskq.ledger.calls import Call, SubmitOutcome, Submitted, T, models
from maskq.ledger.message import ORIGIN, celery_head
from maskq.settings import Settings
from maskq.telemetry import tracing
from maskq.validation import sentence
from maskq_worker.broker.envelope import MASKQ

logger = logging.getLogger(__name__)

_LONGEST = 2000  # characters of a message, which may repeat the request
_FORM = "args=[request] or kwargs={'request': request}, where request is an object"


class Persist(Protocol):
    def __call__(self, call: Call[T]) -> T: ...


def answer(
    persist: Persist,
    settings: Settings,
    caller: Mapping[str, Any],
    args: list[Any],
    kwargs: Mapping[str, Any],
) -> dict[str, Any]:
    """The result of an ended job. Raises SegmentRefused if it has none, Ignore if it has not ended.

    persist: repeats a call while Redis is unavailable; else an outage would fail a valid job.
    """
    task_id, header = caller["id"], caller.get(MASKQ) or {}
    if reason := header.get("refused"):  # it is logged already
        raise SegmentRefused(f"{FailureCode.INVALID_REQUEST}: its message: {reason}")
    record = persist(calls.get(task_id))
    if record is None:
        if caller.get("origin") == ORIGIN:  # the record of an ended job is deleted: not a new job
            _refuse(task_id, FailureCode.NOT_FOUND, "it was deleted, or its retention is over")
        _accept(persist, settings, caller, _request(task_id, args, kwargs))
        raise Ignore
    if not record.ended:
        raise Ignore  # a second message of a job that runs or waits
    return _outcome(record)


def _refuse(task_id: str, code: FailureCode, text: str) -> NoReturn:
    short = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
    logger.warning("task %s of a Celery caller is refused (%s): %s", task_id, code, short)
    raise SegmentRefused(f"{code}: {short}") from None


def _request(task_id: str, args: list[Any], kwargs: Mapping[str, Any]) -> SegmentRequest:
    if len(args) == 1 and not kwargs:
        asked = args[0]
    elif not args and kwargs.keys() == {"request"}:
        asked = kwargs["request"]
    else:
        got = f"{len(args)} args and " + (", ".join(sorted(kwargs)) or "no kwargs")
        _refuse(task_id, FailureCode.INVALID_REQUEST, f"maskq.segment takes {_FORM} (got {got})")
    try:
        return SegmentRequest.model_validate(asked)
    except ValidationError as error:
        _refuse(task_id, FailureCode.INVALID_REQUEST, sentence(error))


def _accept(
    persist: Persist, settings: Settings, caller: Mapping[str, Any], request: SegmentRequest
) -> None:
    # MASKQ_MODEL here is the model that this worker loads, not the caller's choice.
    limits = replace(calls.Limits.of(settings), caller_model=None)
    # Kept as long as the record, so without the secrets of presigned URLs.
    head = celery_head(dict(caller), [json.loads(request.wire())], settings.key_prefix)
    times = {name: at for name, at in (caller.get(MASKQ) or {}).items() if name.endswith("_ms")}
    # A task id may be any text, but a job id becomes part of paths and keys.
    task_id = caller["id"]
    names = {"job_id": task_id} if is_own_id(task_id) else {"job_id": new_id(), "alias": task_id}
    with tracing.submission(TraceContext.of_headers(caller.get(MASKQ) or {})) as submitting:
        submitted = persist(
            calls.submit(
                request=request,
                limits=limits,
                celery_head=head,
                trace=submitting.context,
                **names,
                **times,
            )
        )
        _refuse_unaccepted(caller["id"], submitted, request)
        submitting.accepted(submitted.job_id)


def _refuse_unaccepted(task_id: str, submitted: Submitted, request: SegmentRequest) -> None:
    match submitted.outcome:
        case SubmitOutcome.FULL | SubmitOutcome.TENANT_FULL:
            text = "too many jobs wait already; send the task again later"
            _refuse(task_id, FailureCode.QUEUE_FULL, text)
        case SubmitOutcome.RATE_EXCEEDED:
            text = (
                f"tenant {request.tenant!r} may submit {submitted.submit_rate} jobs a minute; send "
                f"the task again in {submitted.retry_after_s:.1f} s"
            )
            _refuse(task_id, FailureCode.SUBMIT_RATE_EXCEEDED, text)
        case SubmitOutcome.UNKNOWN_MODEL:
            _refuse(task_id, FailureCode.UNKNOWN_MODEL, models.unknown_model(submitted))


def _outcome(record: JobRecord) -> dict[str, Any]:
    if record.status is JobStatus.SUCCEEDED and record.result:
        return {"job_id": record.id, **record.result.model_dump(mode="json")}
    reason = record.error
    raise SegmentRefused(f"{reason.code}: {reason.message}" if reason else record.status.value)
