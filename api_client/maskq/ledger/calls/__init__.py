"""Everything the ledger can be asked, as values: what to send and how to read the answer.

A call does no I/O, so the blocking and the async executor (executor.py) share every one of them.
Each may be sent twice, as after a lost connection: same token, same answer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from maskq.contract import (
    Event,
    FailureCode,
    JobFailure,
    JobRecord,
    JobResult,
    JobStatus,
    SegmentRequest,
)
from maskq.contract.locations import PrivateUrls
from maskq.contract.models import ModelChoice
from maskq.contract.webhooks import Delivery, DeliveryAttempt, DeliveryState
from maskq.ledger import keys
from maskq.ledger.records import NewerRequest, RawRecord, pairs, parse_record
from maskq.ledger.scripts import Script, script

if TYPE_CHECKING:
    from maskq.settings import Settings

T = TypeVar("T")
NO_URLS = PrivateUrls()
Argument = str | int | keys.Key


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One round trip: a script with its arguments, or (script None) a plain command."""

    script: Script | None
    args: tuple[Argument, ...]
    parse: Callable[[Any], T]
    waits_s: float = 0.0  # in Redis, for something to come
    at_once: tuple[Argument, ...] = ()  # then: the same command without waiting
    # In place of `args` where the server does not know the script: it has just started, or just became
    # the primary. Only for a call that is run by itself.
    args_when_new: tuple[Argument, ...] = ()


# A century stands for 'never'. More than Redis takes as a time to live would stop a script half-way,
# and what it had written by then stays.
_LONGEST_S = 100 * 366 * 86_400.0


def _ms(seconds: float) -> int:
    return round(min(seconds, _LONGEST_S) * 1000)


# --- submit -----------------------------------------------------------------------------------------


class SubmitOutcome(StrEnum):
    ACCEPTED = "accepted"  # a new job
    EXISTS = "exists"  # this id, or this idempotency key with the same request, is known
    CONFLICT = "conflict"  # the idempotency key belongs to another request
    FULL = "full"  # max_queued jobs of the model wait already
    TENANT_FULL = "tenant_full"  # max_queued_per_tenant of this tenant's do
    UNKNOWN_MODEL = "unknown_model"  # `known` lists those that are


@dataclass(frozen=True, slots=True)
class Submitted:
    outcome: SubmitOutcome
    job_id: str  # of the job that stands, which is another's for EXISTS and CONFLICT
    known: tuple[str, ...] = ()  # models, for UNKNOWN_MODEL
    model: str | None = None  # for UNKNOWN_MODEL: which one it is, and who chose it
    choice: ModelChoice = ModelChoice.REQUEST

    @property
    def stands(self) -> bool:
        """Whether there is a job for it, new or known."""
        return self.outcome in (SubmitOutcome.ACCEPTED, SubmitOutcome.EXISTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a deployment grants a job that does not ask for something else."""

    default_model: str | None = None  # the deployment's, of requests that name none
    caller_model: str | None = None  # of this caller's, if it is served and there is no default
    max_queued: int = 100_000  # per model; 0: no limit
    max_queued_per_tenant: int = 0  # per model and named tenant; 0: no limit
    max_attempts: int = 3
    queue_ttl_s: float = 86_400.0
    run_timeout_s: float = 600.0
    retention_s: float = 7 * 86_400.0
    output_retention_s: float = 0.0  # 0: outputs are kept
    webhook: str | None = None  # of jobs that name none

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        """As a deployment's settings say."""
        return cls(
            default_model=settings.default_model,
            caller_model=settings.model_name or settings.model,
            max_queued=settings.max_queued,
            max_queued_per_tenant=settings.max_queued_per_tenant,
            max_attempts=settings.max_attempts,
            queue_ttl_s=settings.queue_ttl_s,
            run_timeout_s=settings.run_timeout_s,
            retention_s=settings.retention_s,
            output_retention_s=settings.output_retention_s,
            webhook=settings.webhook_url,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Idempotency:
    key: str
    fingerprint: str  # of the request: the same key with another one is a conflict


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchMembership:
    batch_id: str
    total: int  # jobs in the batch; its event comes when as many have ended
    webhook: str | None = None  # who is told of its completion


def submit(
    job_id: str,
    request: SegmentRequest,
    limits: Limits,
    *,
    idempotency: Idempotency | None = None,
    batch: BatchMembership | None = None,
    celery_head: str = "",
    alias: str = "",
    retry_of: str = "",
    not_before_ms: int = 0,
    expires_ms: int = 0,
) -> Call[Submitted]:
    """A new job, its place in the queue, its message and its event in one transaction.

    alias: what else its caller calls it; while a job has it, the same alias is the same job.
    not_before_ms: since the epoch, when it may run at the earliest; its queue_ttl counts from then.
    expires_ms: since the epoch, when it expires unless its queue_ttl is over before that; 0: never.
    """

    def parse(answer: Sequence[str]) -> Submitted:
        outcome = SubmitOutcome(answer[0])
        if outcome is SubmitOutcome.UNKNOWN_MODEL:
            choice, model, *known = answer[1:]
            return Submitted(outcome, job_id, tuple(known), model or None, ModelChoice(choice))
        if outcome in (SubmitOutcome.FULL, SubmitOutcome.TENANT_FULL):
            return Submitted(outcome, job_id)
        return Submitted(outcome, answer[1])

    args = (
        job_id,
        request.wire(),
        request.model or "",
        request.priority.value,
        model_choosers(limits),
        limits.max_queued,
        request.max_attempts or limits.max_attempts,
        _ms(request.queue_ttl_s or limits.queue_ttl_s),
        _ms(request.run_timeout_s or limits.run_timeout_s),
        _ms(limits.retention_s),
        idempotency.key if idempotency else "",
        idempotency.fingerprint if idempotency else "",
        batch.batch_id if batch else "",
        batch.total if batch else 0,
        celery_head,
        request.tenant or "",
        limits.max_queued_per_tenant,
        retry_of,
        _ms(limits.output_retention_s),
        _target(request.webhook or limits.webhook, sorted(request.webhook_events)),
        _target(batch.webhook if batch else None, ["batch.completed"]),
        _urls(request),
        not_before_ms,
        expires_ms,
        alias,
    )
    return Call(script("submit"), args, parse)


def model_choosers(limits: Limits) -> str:
    """Who says which model a request without one is for, beside what is stored: see common.lua."""
    if not limits.default_model and not limits.caller_model:
        return "{}"
    each = {"setting": limits.default_model, "caller": limits.caller_model}
    return json.dumps({name: model for name, model in each.items() if model})


def _urls(request: SegmentRequest) -> str:
    if request.image_uri.startswith("s3://") and not request.output_urls:
        return ""  # as nearly always: what it costs to look closer is paid by each of many
    private = request.private()
    return private.model_dump_json() if private != NO_URLS else ""


def _target(url: str | None, events: Sequence[str]) -> str:
    return json.dumps({"url": url, "events": events}) if url else ""


def fsync(timeout_s: float) -> Call[bool]:
    """Wait until what this connection wrote is in Redis' append-only file on disk, or the time is up.

    Redis 7.2 or later, with `appendonly yes`; anything else is an error of Redis'.
    """
    return Call(None, ("WAITAOF", 1, 0, _ms(timeout_s)), lambda answer: int(answer[0]) >= 1)


def touch() -> Call[None]:
    """A write for `fsync` to wait for, where a submission sent twice wrote nothing itself."""
    return Call(None, ("SET", keys.durable(), 1), lambda _: None)


def known_under(idempotency_key: str) -> Call[tuple[str, str] | None]:
    """Id and fingerprint of the job submitted under a key, to spare a replay its upload."""

    def parse(answer: Sequence[str | None]) -> tuple[str, str] | None:
        job_id, fingerprint = answer
        return (job_id, fingerprint) if job_id and fingerprint else None

    name = keys.idempotency(idempotency_key)
    return Call(None, ("HMGET", name, "id", "fingerprint"), parse)


# --- a worker's calls ---------------------------------------------------------------------------------


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

    args = (model, job_id, token, owner, _ms(lease_s), int(exclusive), int(with_ticket),
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
    return Call(script("renew"), (_ms(lease_s), *flat), frozenset)


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
    args = (job_id, token, int(charged), _ms(delay_s), error.model_dump_json())
    return Call(script("release"), args, ReleaseOutcome)


def unread(model: str) -> list[Call[int]]:
    """How many messages wait for a worker of this model: tickets, and callers' of Celery."""
    names = (keys.queue(model), keys.intake())
    return [Call(None, ("LLEN", name), int) for name in names]


def leave_orphans(
    job_id: str, *, tenant: str | None = None, output_prefix: str | None = None
) -> Call[None]:
    """Have objects of this job that no manifest names removed some minutes later.

    tenant, output_prefix: of a job that may have been deleted meanwhile.
    """
    member = " ".join(filter(None, (job_id, tenant, output_prefix)))
    return Call(script("orphans"), (job_id, member), lambda _: None)


def register_model(name: str, about: Mapping[str, object]) -> Call[None]:
    """Make a model known, as ledger.models.register does, without a worker that is alive."""
    args = ("HSET", keys.models(), name, json.dumps(about))
    return Call(None, args, lambda _: None)


def answered(job_id: str) -> Call[None]:
    """A raw Celery caller has its result; the sweeper need not remind. `job_id`: or an alias."""
    return Call(script("answered"), (job_id,), lambda _: None)


# --- the sweeper's ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Swept:
    swept: int  # 0: another sweeper did the work a moment ago
    reaped: int  # leases that ran out
    due: int  # deadlines that passed
    sent: int  # back-offs that passed
    sent_again: int  # tickets that were lost
    answered_again: int  # Celery callers reminded


def sweep(
    *,
    lease_s: float,
    event_retention_s: float = 7 * 86_400.0,
    cap: int = 200,
) -> Call[Swept]:
    """What nobody else will do; at most `cap` jobs of each kind, so that Redis is never held long."""

    def args(is_new: int) -> tuple[Argument, ...]:
        return (_ms(lease_s), cap, is_new, _ms(event_retention_s))

    def parse(answer: Sequence[str]) -> Swept:
        return Swept(*map(int, answer))

    return Call(script("sweep"), args(0), parse, args_when_new=args(1))


@dataclass(frozen=True, slots=True)
class Objects:
    """Whose objects are to be looked after: what a JobStorage is made of (common.lua writes it)."""

    job_id: str
    tenant: str | None
    output_prefix: str | None
    member: str  # of the set in Redis

    @classmethod
    def of(cls, member: str) -> Objects:
        """From 'id', 'id tenant', 'id output_prefix' or 'id tenant output_prefix'."""
        job_id, _, rest = member.partition(" ")
        tenant, _, chosen = rest.partition(" ")
        if "/" in tenant:  # which no tenant's name has
            tenant, chosen = "", rest
        return cls(job_id, tenant or None, chosen or None, member)


def due_outputs(cap: int = 100) -> Call[list[Objects]]:
    """Ended jobs whose objects are past their retention."""
    return Call(script("outputs"), (cap, "outputs"), _objects)


def due_orphans(cap: int = 100) -> Call[list[Objects]]:
    """Jobs of which an attempt was cut off some minutes ago: it may have left objects."""
    return Call(script("outputs"), (cap, "orphans"), _objects)


def _objects(answer: Sequence[str]) -> list[Objects]:
    return [Objects.of(member) for member in answer]


def outputs_removed(which: Objects) -> Call[None]:
    """Nothing of it is left in the store."""
    return Call(None, ("ZREM", keys.outputs(), which.member), lambda _: None)


def orphans_removed(which: Objects) -> Call[None]:
    """What cut-off attempts left is gone."""
    return Call(None, ("ZREM", keys.orphans(), which.member), lambda _: None)


# --- a caller's ---------------------------------------------------------------------------------------


def get(job_id: str) -> Call[JobRecord | None]:
    """The record, or None where there is none. `job_id`: or an alias."""

    def parse(answer: Sequence[str]) -> JobRecord | None:
        return parse_record(pairs(answer)) if answer else None

    return Call(script("get"), (job_id,), parse)


def look(job_id: str) -> Call[RawRecord | None]:
    """The unparsed record, or None. Cheaper than `get`: a wait parses it once the job has ended."""

    def parse(answer: Sequence[str]) -> RawRecord | None:
        return RawRecord(pairs(answer)) if answer else None

    return Call(script("get"), (job_id,), parse)


def cancel(job_id: str) -> Call[JobStatus | None]:
    """Take a job back; the status it now has (an ended job keeps its own), None if unknown.

    `job_id`: or an alias.
    """
    return Call(
        script("cancel"),
        (job_id,),
        lambda answer: None if answer == "unknown" else JobStatus(answer),
    )


@dataclass(frozen=True, slots=True)
class Page:
    records: tuple[JobRecord, ...]
    cursor: str  # '' when that was the last page


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which records; None: any."""

    status: JobStatus | None = None
    code: FailureCode | None = None
    model: str | None = None
    tenant: str | None = None
    batch_id: str | None = None
    ended_since_ms: int | None = None  # lists what ended from then on, in the order of ending


def jobs(wanted: Filter, *, limit: int, cursor: str = "") -> Call[Page]:
    """One page of records: newest first, or by `ended_since_ms`."""

    def parse(answer: Sequence[Any]) -> Page:
        return Page(tuple(parse_record(pairs(flat)) for flat in answer[1:]), answer[0])

    since = "" if wanted.ended_since_ms is None else str(wanted.ended_since_ms)
    fields = (wanted.status, wanted.code, wanted.model, wanted.tenant, wanted.batch_id)
    texts = [str(field or "") for field in fields]
    args: tuple[Argument, ...] = (limit, cursor, since, *texts)
    return Call(script("jobs"), args, parse)


def delete(job_id: str) -> Call[str]:
    """Forget an ended job and its webhooks: 'deleted', 'unknown', or the status if it has not ended."""
    return Call(script("delete"), (job_id,), str)


@dataclass(frozen=True, slots=True)
class BatchProgress:
    total: int
    counts: dict[JobStatus, int]  # terminal states only
    ended: tuple[str, ...]  # job ids since the cursor, in the order in which they ended
    tenant: str | None = None


def batch_progress(batch_id: str, seen: int = 0) -> Call[BatchProgress | None]:
    """How far a batch is; `seen` is how many of its ended jobs the caller has had already."""

    def parse(answer: Sequence[Any]) -> BatchProgress | None:
        if not answer:
            return None
        fields = pairs(answer[0])
        counts = {s: int(fields[s.value]) for s in JobStatus if s.value in fields}
        return BatchProgress(int(fields["total"]), counts, tuple(answer[1:]), fields.get("tenant"))

    return Call(script("batch"), (batch_id, seen), parse)


@dataclass(frozen=True, slots=True)
class StreamEnds:
    """Which events are kept: tells a cursor that lost some from one that did not."""

    last: str  # cursor of the last event ever written, '0-0' when there was none
    trimmed: str  # just before the first event kept, '0-0' when none was trimmed away


def stream_ends() -> Call[StreamEnds]:
    """The ends of the event stream."""
    return Call(script("stream"), (), lambda answer: StreamEnds(*answer))


def read_events(cursor: str, *, block_ms: int, count: int = 200) -> Call[list[Event]]:
    """Events after `cursor`, waiting up to `block_ms` for the first."""
    begin: tuple[Argument, ...] = ("XREAD", "COUNT", count)
    end = ("STREAMS", keys.events(), cursor)
    return Call(None, (*begin, "BLOCK", block_ms, *end), events_in, block_ms / 1000, (*begin, *end))


def read_event_texts(
    cursor: str, *, block_ms: int, count: int = 200
) -> Call[list[tuple[str, str]]]:
    """The same as JSON, each with its cursor: for whoever passes events on."""
    call = read_events(cursor, block_ms=block_ms, count=count)
    return Call(call.script, call.args, _texts_in, call.waits_s, call.at_once)


def events_in(answer: Any) -> list[Event]:
    """The events of an answer to XREAD or XREADGROUP."""
    return [
        Event.model_validate_json(text).model_copy(update={"cursor": cursor})
        for cursor, text in _texts_in(answer)
    ]


def _texts_in(answer: Any) -> list[tuple[str, str]]:
    streams = answer.values() if isinstance(answer, Mapping) else (s[1] for s in answer or ())
    entries = [entry for stream in streams for entry in _entries(stream)]
    return [(entry_id, pairs(fields)["event"]) for entry_id, fields in entries]


def _entries(stream: Any) -> list[tuple[str, Any]]:
    """Entries as (id, fields): redis-py nests them once more when it answers with a mapping."""
    if stream and isinstance(stream[0], list) and stream[0] and isinstance(stream[0][0], tuple):
        return [entry for part in stream for entry in part]
    return list(stream)


# --- webhooks -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DueDelivery:
    """What is to be posted: `body` as the event was written, byte for byte."""

    id: str
    url: str
    body: str
    attempts: int  # before this one


def due_deliveries(*, cap: int, hold_s: float) -> Call[list[DueDelivery]]:
    """Deliveries for the asker to try; not given to another one for `hold_s`."""

    def parse(answer: Sequence[Sequence[str]]) -> list[DueDelivery]:
        rows = [pairs(flat) for flat in answer]
        return [
            DueDelivery(row["id"], row["url"], row["body"], int(row["attempts"])) for row in rows
        ]

    return Call(script("deliveries_due"), (cap, _ms(hold_s)), parse)


def delivery_tried(
    due: DueDelivery,
    state: DeliveryState,
    attempt: DeliveryAttempt,
    *,
    delay_s: float = 0.0,
    keep_s: float,
) -> Call[str]:
    """What an attempt came to; one that is still pending is tried again after `delay_s`."""
    entry = attempt.model_dump_json(exclude_none=True)
    args = (due.id, due.attempts, state.value, _ms(delay_s), entry, _ms(keep_s))
    return Call(script("delivery_tried"), args, str)


def delivery_later(due: DueDelivery, delay_s: float) -> Call[str]:
    """Not tried: its receiver is busy with others."""
    args = (due.id, due.attempts, "later", _ms(delay_s), "", 0)
    return Call(script("delivery_tried"), args, str)


def deliveries(
    *, subject: str = "", state: DeliveryState | None = None, limit: int = 100
) -> Call[list[Delivery]]:
    """Deliveries with their attempts, newest first; among the last 10,000."""

    def parse(answer: Sequence[Any]) -> list[Delivery]:
        return [
            Delivery.model_validate({**pairs(row), "log": [json.loads(entry) for entry in log]})
            for row, log in answer
        ]

    return Call(script("deliveries"), (subject, state or "", limit), parse)


def deliver_again(delivery_id: str) -> Call[bool]:
    """Deliver once more, whatever became of it. False: there is no such delivery."""
    return Call(script("delivery_again"), (delivery_id,), lambda answer: answer == 1)
