"""Calls of a worker: claim a job, renew its lease, end it or release it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from maskq.contract import JobFailure, JobRecord, JobResult, JobStatus
from maskq.contract.locations import PrivateUrls
from maskq.ledger import keys
from maskq.ledger.calls.base import Call, to_ms
from maskq.ledger.calls.submission import NO_URLS
from maskq.ledger.records import NewerRequest, pairs, parse_record
from maskq.ledger.scripts import script


class ClaimOutcome(StrEnum):
    CLAIMED = "claimed"
    NONE = "none"  # nothing to run: the ticket of a job that was canceled, or one too many
    ALONE = "alone"  # claim `job_id` with exclusive=True once nothing else runs in this process


@dataclass(frozen=True, slots=True)
class Claimed:
    outcome: ClaimOutcome
    record: JobRecord | None = None  # only when claimed
    urls: PrivateUrls = NO_URLS  # of its request, whole
    job_id: str = ""  # of it, only when alone or claimed
    token: str = ""  # it is claimed under, only when claimed
    newer: str = ""  # what it asks for and this version does not know: claimed, to be given back


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

    Next is decided here: high, normal and low by their weights, tenants by turns, the oldest first.
    `exclusive`: this process runs nothing else meanwhile.
    `with_ticket`: the caller came without a ticket, so one is taken off the list in the same step;
    where there is none, nothing is claimed.
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
            return Claimed(outcome, record, urls, job_id, token)
        return Claimed(outcome, job_id=answer[1] if outcome is ClaimOutcome.ALONE else "")

    args = (model, job_id, token, owner, to_ms(lease_s), int(exclusive), int(with_ticket),
    )  # fmt: skip
    return Call(script("claim"), args, parse)


def _private_urls(text: str) -> PrivateUrls:
    return PrivateUrls.model_validate_json(text) if text else NO_URLS


def send_ticket(model: str) -> Call[None]:
    """A ticket more: one that was taken from the list and not used."""
    return Call(script("ticket"), (model,), lambda _: None)


def renew(held: Iterable[tuple[str, str]], lease_s: float) -> Call[frozenset[str]]:
    """Renew the leases of `held`, pairs of job id and token; the tokens no longer held come back."""
    flat = [part for pair in held for part in pair]
    return Call(script("renew"), (to_ms(lease_s), *flat), frozenset)


def _is_done(answer: str) -> bool:
    return answer == "done"


def succeed(job_id: str, token: str, result: JobResult) -> Call[bool]:
    """End a job with its result. False: the token does not hold it any more."""
    payload = result.model_dump_json(exclude_defaults=True)
    args = (job_id, token, JobStatus.SUCCEEDED.value, payload)
    return Call(script("finish"), args, _is_done)


def fail(job_id: str, token: str, error: JobFailure) -> Call[bool]:
    """End a job with its reason. False: the token does not hold it any more."""
    args = (job_id, token, JobStatus.FAILED.value, error.model_dump_json())
    return Call(script("finish"), args, _is_done)


class ReleaseOutcome(StrEnum):
    QUEUED = "queued"
    FAILED = "failed"  # that was its last charge
    LOST = "lost"  # the token does not hold it any more


def release(
    job_id: str, token: str, error: JobFailure, *, charged: bool, delay_s: float
) -> Call[ReleaseOutcome]:
    """Give a job back, to run again after `delay_s`."""
    args = (job_id, token, int(charged), to_ms(delay_s), error.model_dump_json())
    return Call(script("release"), args, ReleaseOutcome)


def unread(model: str) -> list[Call[int]]:
    """How many messages wait for a worker of this model: tickets, and callers' of Celery."""
    names = (keys.queue(model), keys.intake())
    return [Call(None, ("LLEN", name), int) for name in names]


def answered(job_id: str) -> Call[None]:
    """A raw Celery caller has its result; the sweeper need not remind. `job_id`: or an alias."""
    return Call(script("answered"), (job_id,), lambda _: None)
