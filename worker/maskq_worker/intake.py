"""Raw Celery callers: `app.send_task("maskq.segment", args=[request])`, no code of ours on their side.

The first message makes the record (its key is Celery's task id) and is forgotten. When the job ends,
the finishing transaction sends the caller's own message again; it comes here, finds the ended record
and answers, so that Celery itself stores the result and goes on with callbacks, chain and chord.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any, Protocol

from celery.exceptions import Ignore
from pydantic import ValidationError

from maskq.contract import JobRecord, JobStatus, SegmentRequest
from maskq.contract.mistakes import sentence
from maskq.ledger import calls, models
from maskq.ledger.calls import Call, SubmitOutcome, T
from maskq.ledger.message import ORIGIN, celery_head
from maskq.settings import Settings

_TASK_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


class Persist(Protocol):
    def __call__(self, call: Call[T]) -> T: ...


class SegmentRefused(Exception):
    """What the caller's `.get()` raises: 'code: sentence'."""


def answer(
    persist: Persist, settings: Settings, caller: dict[str, Any], args: list[Any]
) -> dict[str, Any]:
    """The result of an ended job; raises SegmentRefused if it has none, Ignore while it goes on.

    persist: waits for a Redis that is away, or an outage would be the final answer of a good job.
    """
    task_id = caller["id"]
    if not _TASK_ID.fullmatch(task_id):
        raise SegmentRefused(f"invalid_request: {task_id!r} cannot be a job id")
    record = persist(calls.get(settings.key_prefix, task_id))
    if record is None:
        if caller.get("origin") == ORIGIN:  # it has ended, and the record is gone: not a new job
            raise SegmentRefused("not_found: the job was deleted, or its retention is over")
        _accept(persist, settings, caller, args)
        raise Ignore
    if not record.ended:
        raise Ignore  # a second message of a job that runs, or waits, elsewhere
    return _outcome(record)


def _accept(persist: Persist, settings: Settings, caller: dict[str, Any], args: list[Any]) -> None:
    if len(args) != 1:
        raise SegmentRefused("invalid_request: maskq.segment takes one argument, the request")
    try:
        request = SegmentRequest.model_validate(args[0])
    except ValidationError as error:
        raise SegmentRefused(f"invalid_request: {sentence(error)}") from None
    # MASKQ_MODEL here is what this worker loads, and not the caller's wish.
    limits = replace(calls.Limits.of(settings), caller_model=None)
    # Kept as long as the record: without the secrets of presigned URLs.
    head = celery_head(caller, [json.loads(request.wire())], settings.key_prefix)
    submitted = persist(
        calls.submit(settings.key_prefix, caller["id"], request, limits, celery_head=head)
    )
    match submitted.outcome:
        case SubmitOutcome.FULL | SubmitOutcome.TENANT_FULL:
            raise SegmentRefused("queue_full: too many jobs wait already; send it again later")
        case SubmitOutcome.UNKNOWN_MODEL:
            raise SegmentRefused(f"unknown_model: {models.unknown_model(submitted)}")


def _outcome(record: JobRecord) -> dict[str, Any]:
    if record.status is JobStatus.SUCCEEDED and record.result:
        return {"job_id": record.id, **record.result.model_dump(mode="json")}
    reason = record.error
    raise SegmentRefused(f"{reason.code}: {reason.message}" if reason else record.status.value)
