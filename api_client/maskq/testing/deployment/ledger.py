"""The jobs of a fake deployment, in memory."""

from __future__ import annotations

import heapq
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any

from maskq.client.requests import check_retry, refuse
from maskq.contract import FailureCode, JobFailure, JobRecord, JobStatus, SegmentRequest
from maskq.contract.locations.output_places import STORED
from maskq.contract.locations.source import source_of
from maskq.contract.queueing.waiting import Waiting
from maskq.contract.statuses import event_name
from maskq.contract.tracing import TraceContext
from maskq.contract.webhooks import WebhookEvent
from maskq.errors import JobNotFound
from maskq.ledger.calls import (
    BatchMembership,
    BatchProgress,
    Filter,
    Idempotency,
    Page,
    SubmitOutcome,
    Submitted,
)
from maskq.testing.deployment.plans import JobPlan, Plans
from maskq.testing.deployment.stream import EventStream, batch_event, job_event
from maskq.testing.deployment.waiting import waits
from maskq.testing.deployment.worker import LAYOUT, FakeObjects, made_of

OWNER = "fake:1"
_QUEUE_TTL_S = 86_400.0
_RUN_TIMEOUT_S = 600.0


@dataclass(slots=True)
class _Job:
    """A job, and when its next step is due (by time.monotonic())."""

    number: int
    record: JobRecord
    request: SegmentRequest  # with the URLs that the record hides
    body: bytes | None
    plan: JobPlan
    due_s: float
    expires_s: float
    ended_number: int = 0  # of all ended jobs; 0: it has not ended


@dataclass(slots=True)
class _Batch:
    total: int
    webhook: str | None
    tenant: str | None
    ended: list[str] = field(default_factory=list)
    counts: Counter[JobStatus] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class NewJob:
    """A submission. `body`: the image, if it is known."""

    job_id: str
    request: SegmentRequest
    body: bytes | None
    idempotency: Idempotency | None = None
    batch: BatchMembership | None = None
    retry_of: str = ""
    source: str = ""
    trace: TraceContext | None = None


class FakeLedger:
    """Thread-safe. Time passes when somebody looks: `advance` takes all steps that are due."""

    def __init__(self, model: str, labels: Sequence[str], secret: str) -> None:
        self.lock = threading.RLock()
        self.stream = EventStream(secret)
        self.objects = FakeObjects()
        self._model = model
        self._labels = labels
        self._jobs: dict[str, _Job] = {}
        self._keys: dict[str, tuple[str, str]] = {}
        self._batches: dict[str, _Batch] = {}
        self._due: list[tuple[float, int, str]] = []  # a heap: when, number of the job, its id
        self._is_paused = False
        self._numbered = 0
        self._ended = 0
        self._epoch_s = time.time() - time.monotonic()

    # --- time ---------------------------------------------------------------------------------------

    def advance(self) -> None:
        """Take every step that is due by now, in the order in which they are due."""
        with self.lock:
            now = time.monotonic()
            while self._due and self._due[0][0] <= now:
                due_s, _, job_id = heapq.heappop(self._due)
                job = self._jobs.get(job_id)
                if job and not job.record.ended and job.due_s == due_s:
                    self._step(job)

    def pause(self) -> None:
        """Jobs stay queued from now on, as if there were no worker."""
        with self.lock:
            self.advance()
            self._is_paused = True

    def resume(self) -> None:
        """Start the jobs that are queued."""
        with self.lock:
            self.advance()
            self._is_paused = False
            for job in self._jobs.values():
                if job.record.status is JobStatus.QUEUED:
                    self._schedule(job, time.monotonic())

    def _schedule(self, job: _Job, due_s: float) -> None:
        job.due_s = due_s
        if due_s < inf:
            heapq.heappush(self._due, (due_s, job.number, job.record.id))

    def _step(self, job: _Job) -> None:
        """A queued job starts or expires; a running one ends."""
        at_ms = round((job.due_s + self._epoch_s) * 1000)
        if job.record.status is JobStatus.QUEUED:
            if self._is_paused or job.due_s >= job.expires_s:
                text = "it was not running when its queue_ttl_s ended; submit it again"
                self._end(job, JobStatus.EXPIRED, at_ms, _error(FailureCode.EXPIRED, text))
                return
            changes = {
                "status": JobStatus.RUNNING, "attempt": 1, "started_ms": at_ms, "owner": OWNER,
            }  # fmt: skip
            job.record = job.record.model_copy(update=changes)
            self._emit(job, at_ms)
            timeout_s = job.request.run_timeout_s or _RUN_TIMEOUT_S
            self._schedule(job, job.due_s + min(job.plan.takes_s, timeout_s))
        elif job.plan.takes_s > (timeout_s := job.request.run_timeout_s or _RUN_TIMEOUT_S):
            text = f"the attempt did not end within its run_timeout_s of {timeout_s:g} s"
            self._end(job, JobStatus.FAILED, at_ms, _error(FailureCode.TIMEOUT, text))
        else:
            self._finish(job, at_ms)

    def _finish(self, job: _Job, at_ms: int) -> None:
        record = job.record.model_copy(update={"request": job.request})
        try:
            made = made_of(record, job.body, job.plan, self._labels, self.objects.writers)
        except ValueError as error:  # a mask that does not fit: the test's own mistake
            self._end(job, JobStatus.FAILED, at_ms, _error(FailureCode.INTERNAL, str(error)))
            raise
        if isinstance(made, JobFailure):
            self._end(job, JobStatus.FAILED, at_ms, {"error": made})
        else:
            self.objects.add(record, made)
            self._end(job, JobStatus.SUCCEEDED, at_ms, {"result": made.result})

    def _end(self, job: _Job, status: JobStatus, at_ms: int, outcome: Mapping[str, Any]) -> None:
        changes = {"status": status, "ended_ms": at_ms, **outcome}
        job.record = job.record.model_copy(update=changes)
        if job.record.error and status is not JobStatus.CANCELED:
            record = job.record.model_copy(update={"request": job.request})
            self.objects.add_error_file(record, status, job.record.error)
        self._ended += 1
        job.ended_number = self._ended
        self._emit(job, at_ms)
        batch_id = job.record.batch_id
        if batch_id in self._batches:
            self._count(batch_id, job.record, at_ms)

    def _count(self, batch_id: str, record: JobRecord, at_ms: int) -> None:
        batch = self._batches[batch_id]
        batch.ended.append(record.id)
        batch.counts[record.status] += 1
        progress = self.progress(batch_id)
        if progress and len(batch.ended) == batch.total:
            self.stream.add(batch_event(progress, batch_id, at_ms), batch.webhook)

    def _emit(self, job: _Job, at_ms: int) -> None:
        status, request = job.record.status, job.request
        is_wanted = WebhookEvent(event_name(status)) in request.webhook_events
        self.stream.add(job_event(job.record, at_ms), request.webhook if is_wanted else None)

    # --- submissions --------------------------------------------------------------------------------

    def submit(self, new: NewJob, plans: Plans) -> str:
        """The job's id, or that of the job under the same key. Raises what `Client.submit` raises."""
        with self.lock:
            answer = self._known(new)
            if answer is None:
                plans.check_accepts()
                answer = self._accepted(new, plans.next_job())
        refuse(answer, new.request, new.idempotency.key if new.idempotency else None)
        return answer.job_id

    def _known_under(self, key: str) -> tuple[str, str] | None:
        """Id and fingerprint of the job that was submitted with this idempotency key."""
        known = self._keys.get(key)
        return known if known and known[0] in self._jobs else None

    def _known(self, new: NewJob) -> Submitted | None:
        """The answer to a submission that makes no new job."""
        if new.idempotency and (known := self._known_under(new.idempotency.key)):
            same = known[1] == new.idempotency.fingerprint
            return Submitted(SubmitOutcome.EXISTS if same else SubmitOutcome.CONFLICT, known[0])
        model = new.request.model
        if model not in (None, self._model):
            return Submitted(SubmitOutcome.UNKNOWN_MODEL, new.job_id, (self._model,), model)
        return None

    def _accepted(self, new: NewJob, plan: JobPlan) -> Submitted:
        request = new.request
        self._numbered += 1
        now = time.monotonic()
        at_ms = round((now + self._epoch_s) * 1000)
        stored = SegmentRequest.model_validate_json(request.wire(), context=STORED)
        record = JobRecord(
            id=new.job_id,
            status=JobStatus.QUEUED,
            model=self._model,
            priority=request.priority,
            request=stored,
            max_attempts=request.max_attempts or 3,
            created_ms=at_ms,
            batch_id=new.batch.batch_id if new.batch else None,
            tenant=request.tenant,
            retry_of=new.retry_of or None,
            source=new.source or source_of(request.image_uri, request.image_version_id),
            traceparent=new.trace.traceparent if new.trace else None,
            tracestate=(new.trace.tracestate or None) if new.trace else None,
        )
        expires_s = now + (request.queue_ttl_s or _QUEUE_TTL_S)
        job = _Job(self._numbered, record, request, new.body, plan, now, expires_s)
        self._jobs[new.job_id] = job
        if new.idempotency:
            self._keys[new.idempotency.key] = (new.job_id, new.idempotency.fingerprint)
        if new.batch:
            batch = _Batch(new.batch.total, new.batch.webhook, request.tenant)
            self._batches.setdefault(new.batch.batch_id, batch)
        self._emit(job, at_ms)
        self._schedule(job, expires_s if self._is_paused else now)
        return Submitted(SubmitOutcome.ACCEPTED, new.job_id)

    def retry_of(self, job_id: str, new_id: str, trace: TraceContext | None) -> NewJob:
        """The submission that retries a job. Raises JobNotFound, InvalidRequest."""
        job = self._job(job_id)
        check_retry(job.record)
        request = job.request
        if LAYOUT.of(job.record).is_upload(request.image_uri):
            copy = LAYOUT.job(new_id, tenant=request.tenant).upload
            request = request.model_copy(update={"image_uri": str(copy)})
        idempotency = Idempotency(key=f"retry:{job_id}", fingerprint=job_id)
        source = job.record.source or ""
        return NewJob(
            new_id, request, job.body, idempotency, retry_of=job_id, source=source, trace=trace
        )

    # --- jobs ---------------------------------------------------------------------------------------

    def _job(self, job_id: str) -> _Job:
        try:
            return self._jobs[job_id]
        except KeyError:
            raise JobNotFound(job_id) from None

    def record(self, job_id: str) -> JobRecord | None:
        """The record; None for an unknown job."""
        job = self._jobs.get(job_id)
        return job.record if job else None

    def cancel(self, job_id: str) -> bool:
        """Cancel a job; returns whether it is canceled now. Raises JobNotFound."""
        with self.lock:
            job = self._job(job_id)
            if not job.record.ended:
                at_ms = round(time.time() * 1000)
                error = _error(FailureCode.CANCELED, "canceled by the caller")
                self._end(job, JobStatus.CANCELED, at_ms, error)
            return job.record.status is JobStatus.CANCELED

    def delete(self, job_id: str) -> None:
        """Delete a job with its outputs and deliveries. Raises JobNotFound."""
        with self.lock:
            self.cancel(job_id)
            job = self._jobs.pop(job_id)
            self.stream.forget(job_id)
            self.objects.remove(job.record)

    def page(self, wanted: Filter, limit: int, cursor: str) -> Page:
        """One page of records, as `Client.list` describes it. The cursor is a job's number."""
        after = int(cursor) if cursor.isdigit() else None
        with self.lock:
            jobs = list(self._jobs.values())
        if wanted.ended_since_ms is None:
            ordered = [(job.number, job.record) for job in reversed(jobs)]
            rest = [one for one in ordered if after is None or one[0] < after]
        else:
            ordered = [(job.ended_number, job.record) for job in jobs if job.ended_number]
            ordered.sort(key=lambda one: one[0])
            rest = [one for one in ordered if after is None or one[0] > after]
        found = [one for one in rest if _passes(one[1], wanted)][:limit]
        following = str(found[-1][0]) if found and len(found) == limit else ""
        return Page(tuple(record for _, record in found), following)

    def queued(self) -> list[JobRecord]:
        """The queued jobs, in the order of their submission."""
        with self.lock:
            records = [job.record for job in self._jobs.values()]
        return [record for record in records if record.status is JobStatus.QUEUED]

    def why(self, job_id: str) -> Waiting:
        """What a job waits for. Raises JobNotFound."""
        with self.lock:
            return waits(self._job(job_id).record, self.queued(), int(not self._is_paused))

    def progress(self, batch_id: str, seen: int = 0) -> BatchProgress | None:
        """How far a batch is, and its jobs that ended after the first `seen` ones."""
        with self.lock:
            batch = self._batches.get(batch_id)
            if batch is None:
                return None
            ended = tuple(batch.ended[seen:])
            return BatchProgress(batch.total, dict(batch.counts), ended, batch.tenant)


def _error(code: FailureCode, message: str) -> dict[str, JobFailure]:
    return {"error": JobFailure(code=code, message=message)}


def _passes(record: JobRecord, wanted: Filter) -> bool:
    code = record.error.code if record.error else None
    since = wanted.ended_since_ms
    return (
        wanted.status in (None, record.status)
        and wanted.code in (None, code)
        and wanted.model in (None, record.model)
        and wanted.tenant in (None, record.tenant)
        and wanted.batch_id in (None, record.batch_id)
        and wanted.source in (None, record.source, record.request.image_uri)
        and (since is None or (record.ended_ms or 0) >= since)
    )
