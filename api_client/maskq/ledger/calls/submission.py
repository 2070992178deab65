"""Calls that submit a job, and wait until it is on disk."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from maskq.contract import SegmentRequest
from maskq.contract.events import BATCH_COMPLETED, EVENT_NAMESPACE
from maskq.contract.locations import PrivateUrls
from maskq.contract.locations.source import source_of
from maskq.contract.models import ModelChoice
from maskq.contract.tracing import TraceContext
from maskq.ledger import keys
from maskq.ledger.calls.base import Call, scripted, to_ms

if TYPE_CHECKING:
    from maskq.settings import Settings


NO_URLS = PrivateUrls()


class SubmitOutcome(StrEnum):
    ACCEPTED = "accepted"  # a new job
    EXISTS = "exists"  # this id, or this idempotency key with the same request, is known
    CONFLICT = "conflict"  # the idempotency key belongs to another request
    FULL = "full"  # max_queued jobs of the model are queued already
    TENANT_FULL = "tenant_full"  # as many jobs of this tenant are as it may have
    RATE_EXCEEDED = "rate_exceeded"  # the tenant submitted as many jobs in this minute as it may
    UNKNOWN_MODEL = "unknown_model"  # `known` lists the known models


@dataclass(frozen=True, slots=True)
class Submitted:
    outcome: SubmitOutcome
    job_id: str  # for EXISTS and CONFLICT: of the job submitted earlier
    known: tuple[str, ...] = ()  # models, for UNKNOWN_MODEL
    model: str | None = None  # for UNKNOWN_MODEL: which one it is, and who chose it
    choice: ModelChoice = ModelChoice.REQUEST
    retry_after_s: float = 0.0  # for RATE_EXCEEDED
    submit_rate: int = 0  # for RATE_EXCEEDED: jobs a minute

    @property
    def stands(self) -> bool:
        """Whether there is a job for it, new or known."""
        return self.outcome in (SubmitOutcome.ACCEPTED, SubmitOutcome.EXISTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """A deployment's defaults and limits for jobs."""

    default_model: str | None = None  # of requests that name none, for the whole deployment
    caller_model: str | None = (
        None  # of requests that name none, if it is known and there is no default
    )
    max_queued: int = 100_000  # per model; 0: no limit
    max_queued_per_tenant: int = 0  # per model and tenant without its own max_queued; 0: no limit
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
    total: int  # jobs in the batch; its event is written when as many have ended
    webhook: str | None = None  # gets its completion event


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
    source: str = "",
    trace: TraceContext | None = None,
    not_before_ms: int = 0,
    expires_ms: int = 0,
) -> Call[Submitted]:
    """Submit a job: record, place in the queue, message and event in one transaction.

    source: the file name that the caller gave with an upload; default: the image's place.
    trace: of the submission; the spans of its attempts follow it.
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
        if outcome is SubmitOutcome.RATE_EXCEEDED:
            wait_ms, rate = map(int, answer[1:])
            return Submitted(outcome, job_id, retry_after_s=wait_ms / 1000, submit_rate=rate)
        return Submitted(outcome, answer[1])

    return scripted(
        "submit",
        parse,
        id=job_id,
        request=request.wire(),
        model=request.model or "",
        priority=request.priority.value,
        choosers=model_choosers(limits),
        max_queued=limits.max_queued,
        max_attempts=request.max_attempts or limits.max_attempts,
        queue_ttl_ms=to_ms(request.queue_ttl_s or limits.queue_ttl_s),
        run_timeout_ms=to_ms(request.run_timeout_s or limits.run_timeout_s),
        retention_ms=to_ms(limits.retention_s),
        idempotency_key=idempotency.key if idempotency else "",
        fingerprint=idempotency.fingerprint if idempotency else "",
        batch=batch.batch_id if batch else "",
        batch_total=batch.total if batch else 0,
        celery_head=celery_head,
        tenant=request.tenant or "",
        max_of_tenant=limits.max_queued_per_tenant,
        retry_of=retry_of,
        output_retention_ms=to_ms(limits.output_retention_s),
        webhook=_target(request.webhook or limits.webhook, sorted(request.webhook_events)),
        batch_webhook=_target(
            batch.webhook if batch else None, [BATCH_COMPLETED.removeprefix(EVENT_NAMESPACE)]
        ),
        urls=_urls(request),
        not_before_ms=not_before_ms,
        expires_ms=expires_ms,
        alias=alias,
        source=source or source_of(request.image_uri, request.image_version_id),
        traceparent=trace.traceparent if trace else "",
        tracestate=trace.tracestate if trace else "",
    )


def model_choosers(limits: Limits) -> str:
    """Who chooses the model of a request that names none, besides the stored default (common.lua)."""
    if not limits.default_model and not limits.caller_model:
        return "{}"
    each = {"setting": limits.default_model, "caller": limits.caller_model}
    return json.dumps({name: model for name, model in each.items() if model})


def _urls(request: SegmentRequest) -> str:
    if request.image_uri.startswith("s3://") and not request.output_urls:
        return ""  # the usual case, without the cost of a closer look
    private = request.private()
    return private.model_dump_json() if private != NO_URLS else ""


def _target(url: str | None, events: Sequence[str]) -> str:
    return json.dumps({"url": url, "events": events}) if url else ""


def fsync(timeout_s: float) -> Call[bool]:
    """Wait until this connection's writes are in Redis' append-only file on disk, or the time is up.

    Redis 7.2 or later, with `appendonly yes`; anything else is an error of Redis'.
    """
    return Call(None, ("WAITAOF", 1, 0, to_ms(timeout_s)), lambda answer: int(answer[0]) >= 1)


def touch() -> Call[None]:
    """A write for `fsync` to wait for, since a submission sent twice writes nothing."""
    return Call(None, ("SET", keys.durable(), 1), lambda _: None)


def known_under(idempotency_key: str) -> Call[tuple[str, str] | None]:
    """Id and fingerprint of the job submitted under a key, so that a replay need not upload again."""

    def parse(answer: Sequence[str | None]) -> tuple[str, str] | None:
        job_id, fingerprint = answer
        return (job_id, fingerprint) if job_id and fingerprint else None

    name = keys.idempotency(idempotency_key)
    return Call(None, ("HMGET", name, "id", "fingerprint"), parse)
