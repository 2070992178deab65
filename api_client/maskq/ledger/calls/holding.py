"""Calls of a worker: claim a job, renew its lease, end it or release it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from maskq.contract import JobFailure, JobRecord, JobResult, JobStatus
from maskq.contract.locations import PrivateUrls
from maskq.contract.statuses import RETRYABLE
from maskq.contract.tracing import TraceContext
from maskq.ledger import keys
from maskq.ledger.calls.base import Call, scripted, to_ms
from maskq.ledger.calls.submission import NO_URLS
from maskq.ledger.records import NewerRequest, pairs, parse_record


class ClaimOutcome(StrEnum):
    CLAIMED = "claimed"
    NONE = "none"  # nothing to run: the ticket's job was canceled, or there was a ticket too many
    ALONE = "alone"  # claim `job_id` with exclusive=True once nothing else runs in this process


@dataclass(frozen=True, slots=True)
class Claimed:
    outcome: ClaimOutcome
    record: JobRecord | None = None  # only when claimed
    urls: PrivateUrls = NO_URLS  # of its request, not redacted
    job_id: str = ""  # only when alone or claimed
    token: str = ""  # only when claimed
    retried: TraceContext | None = None  # of the job that it retries, if that was traced
    newer: str = (
        ""  # options that only a newer version knows: the job is claimed, and must be released
    )


def claim(
    model: str,
    token: str,
    *,
    owner: str,
    lease_s: float,
    job_id: str = "",
    exclusive: bool = False,
    with_ticket: bool = False,
) -> Call[Claimed]:
    """Take the next job of a model, or `job_id`, under a fresh token.

    The ledger chooses the job: levels by their weights, tenants in rotation, the oldest first.

    Args:
        exclusive: this process runs nothing else meanwhile.
        with_ticket: take a ticket off the list in the same step, since the caller has none; without a
            ticket on the list, claim nothing.
    """

    def parse(answer: Sequence[str]) -> Claimed:
        outcome = ClaimOutcome(answer[0])
        if outcome is ClaimOutcome.CLAIMED:
            fields = pairs(answer[1:])
            urls, job_id = _private_urls(fields.get("urls", "")), fields["id"]
            try:
                record = parse_record(fields, to_run=True)
            except NewerRequest as error:
                return Claimed(outcome, job_id=job_id, token=token, newer=str(error))
            retried = TraceContext.parse(fields.get("retried_traceparent"))
            return Claimed(outcome, record, urls, job_id, token, retried)
        return Claimed(outcome, job_id=answer[1] if outcome is ClaimOutcome.ALONE else "")

    return scripted(
        "claim",
        parse,
        model=model,
        wanted=job_id,
        token=token,
        owner=owner,
        lease_ms=to_ms(lease_s),
        exclusive=int(exclusive),
        with_ticket=int(with_ticket),
    )


def _private_urls(text: str) -> PrivateUrls:
    return PrivateUrls.model_validate_json(text) if text else NO_URLS


def send_ticket(model: str) -> Call[None]:
    """Send one more ticket, for one that was taken off the list and not used."""
    return scripted("ticket", lambda _: None, model=model)


def renew(held: Iterable[tuple[str, str]], lease_s: float) -> Call[frozenset[str]]:
    """Renew the leases of `held`, pairs of job id and token; returns the tokens that lost their job."""
    flat = [part for pair in held for part in pair]
    return scripted("renew", frozenset, *flat, lease_ms=to_ms(lease_s))


def succeed(job_id: str, token: str, result: JobResult) -> Call[bool]:
    """End a job with its result. False: the token does not hold it any more."""
    payload = result.model_dump_json(exclude_defaults=True)
    return _finish(job_id, token, JobStatus.SUCCEEDED, payload)


def fail(job_id: str, token: str, status: JobStatus, error: JobFailure) -> Call[bool]:
    """End a job without a result. False: the token does not hold it any more.

    status: a terminal one that has no result. Raises ValueError for another.
    """
    if status not in RETRYABLE:
        raise ValueError(f"a job does not end as {status} with an error")
    return _finish(job_id, token, status, error.model_dump_json())


def _finish(job_id: str, token: str, state: JobStatus, payload: str) -> Call[bool]:
    return scripted("finish", _is_done, id=job_id, token=token, state=state.value, payload=payload)


def _is_done(answer: str) -> bool:
    return answer == "done"


class ReleaseOutcome(StrEnum):
    QUEUED = "queued"
    FAILED = "failed"  # that was its last charge
    LOST = "lost"  # the token does not hold it any more


def release(
    job_id: str, token: str, error: JobFailure, *, charged: bool, delay_s: float
) -> Call[ReleaseOutcome]:
    """Release a job to run again after `delay_s`. `charged`: it counts against max_attempts."""
    return scripted(
        "release",
        ReleaseOutcome,
        id=job_id,
        token=token,
        charge=int(charged),
        delay_ms=to_ms(delay_s),
        error_json=error.model_dump_json(),
    )


def unread(model: str) -> list[Call[int]]:
    """Count the messages that wait for a worker of this model: tickets, and those of Celery callers."""
    names = (keys.queue(model), keys.callers_queue())
    return [Call(None, ("LLEN", name), int) for name in names]


def answered(job_id: str) -> Call[None]:
    """Note that a raw Celery caller has its result. `job_id`: or an alias."""
    return scripted("answered", lambda _: None, id=job_id)
