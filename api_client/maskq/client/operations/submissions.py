"""Submitting one image or many, and retrying jobs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Generic, TypeVar, Unpack

from maskq.client.bulk import Bulk, SubmitOptions
from maskq.client.image_source import ImageSource, is_reference, read_image
from maskq.client.job import JobCore
from maskq.client.operations.flow import Flow, Pipeline, RunBlocking, operation
from maskq.client.operations.former_names import accept_former_names
from maskq.client.requests import build, check_webhook, fingerprint, refuse
from maskq.client.sending import NO_ROOM, QueueFullBackoff, sent
from maskq.contract import JobRecord, SegmentRequest
from maskq.contract.ids import new_id
from maskq.contract.locations import S3Uri
from maskq.contract.options import Options
from maskq.contract.statuses import RETRYABLE, either
from maskq.errors import InvalidRequest, JobNotFound, QueueFull, StoreUnavailable
from maskq.ledger import calls
from maskq.ledger.calls import BatchMembership, Call, Submitted

if TYPE_CHECKING:
    from maskq.client.session import Session

JobT = TypeVar("JobT", bound=JobCore[Any])
BatchT = TypeVar("BatchT")


class SubmitOperations(Generic[JobT, BatchT]):
    """Mixed into both clients."""

    session: Session
    _job_type: Callable[..., JobT]
    _batch_type: Callable[..., BatchT]

    @operation
    @accept_former_names
    def submit(
        self,
        image: ImageSource,
        *,
        idempotency_key: str | None = None,
        durable: bool = False,
        queue_full_timeout: float | None = 0.0,
        **options: Unpack[Options],
    ) -> Flow[JobT]:
        """Submit one image; returns once the job is accepted.

        `image`: a path, bytes, a PIL image (all uploaded first), 's3://bucket/key', or an https URL,
        which may be presigned. `output_urls`: presigned URLs to put outputs to. Submitting again with
        the same `idempotency_key` returns the first job. `durable`: return only once Redis has written
        the job to disk; takes up to a second with `appendfsync everysec`. `queue_full_timeout`:
        seconds to wait while the queue is full (None: no limit).

        Raises InvalidRequest, UnknownModel, QueueFull, IdempotencyConflict, StoreUnavailable.
        """
        job_id = new_id()
        request, upload = self._prepare(job_id, image, options)
        idempotency = None
        if idempotency_key is not None:
            idempotency = calls.Idempotency(
                key=idempotency_key, fingerprint=fingerprint(request, upload)
            )
            known = yield from self._known_under(idempotency_key)
            if known and known[1] == idempotency.fingerprint:
                return self._job(known[0])
        if upload:
            yield RunBlocking(
                lambda: self.session.objects.put(S3Uri.parse(request.image_uri), *upload)
            )
        call = calls.submit(job_id, request, self.session.limits, idempotency=idempotency)
        sending = self._accepted(call, durable=durable, queue_full_timeout=queue_full_timeout)
        if upload:
            sending = self._or_removed(job_id, S3Uri.parse(request.image_uri), sending)
        answer = yield from sending
        refuse(answer, request, idempotency_key)
        return self._job(answer.job_id)

    @operation
    @accept_former_names
    def submit_many(
        self,
        images: Iterable[ImageSource],
        *,
        durable: bool = False,
        queue_full_timeout: float | None = 0.0,
        batch_webhook: str | None = None,
        **options: Unpack[Options],
    ) -> Flow[BatchT]:
        """Submit many images as one batch, with one completion event. All are accepted or none is.

        `durable` and `queue_full_timeout`: see `submit`. `batch_webhook`: the URL to notify when all
        jobs have ended; `webhook` is notified of each job.
        """
        if batch_webhook is not None:
            check_webhook(batch_webhook)
        sources = list(images)
        if not sources:
            raise InvalidRequest("submit_many got no images")
        batch = BatchMembership(batch_id=new_id(), total=len(sources), webhook=batch_webhook)
        submit_options = SubmitOptions(
            batch=batch, durable=durable, queue_full_timeout=queue_full_timeout, outage_s=0.0
        )
        bulk: Bulk[JobT] = Bulk(self.session, self._job_type, submit_options, options)
        jobs: dict[int, JobT] = {}
        try:
            for step in bulk.steps(sources):
                outcomes = yield from step
                jobs |= {number: job for number, (_, job, _) in outcomes if job}
                if errors := [error for _, (_, _, error) in outcomes if error]:
                    raise errors[0]
        except Exception:
            # A part of a batch would never complete: cancel its jobs, then raise.
            accepted = [*(job.id for job in jobs.values()), *bulk.unconfirmed_job_ids]
            with suppress(StoreUnavailable):
                yield Pipeline([calls.cancel(job_id) for job_id in accepted])
            raise
        in_order = [jobs[number] for number in range(len(sources))]
        return self._batch_type(self.session, batch.batch_id, in_order)

    def batch(self, batch_id: str, job_ids: Iterable[str]) -> BatchT:
        """A handle on jobs of one batch or run: `for job in client.batch(run_id, ids).as_completed()`.

        `job_ids`: all jobs that were submitted under this id; duplicates count once.
        """
        return self._batch_type(
            self.session, batch_id, [self._job(i) for i in dict.fromkeys(job_ids)]
        )

    def _bulk(
        self,
        run_id: str | None,
        durable: bool,
        queue_full_timeout: float | None,
        chunk: int,
        options: Options,
    ) -> Bulk[JobT]:
        if run_id == "":
            raise InvalidRequest("run_id is empty; leave it out, or give the run a name")
        submit_options = SubmitOptions(
            # The number of jobs is unknown, so the run has no completion event of its own.
            batch=BatchMembership(batch_id=run_id or new_id(), total=0),
            run_id=run_id,
            durable=durable,
            queue_full_timeout=queue_full_timeout,
            chunk=chunk,
        )
        return Bulk(self.session, self._job_type, submit_options, options)

    @operation
    def retry(self, job_id: str) -> Flow[JobT]:
        """Submit a job again that failed, expired or was canceled; the new job's `retry_of` names it.

        Calling it again returns the same new job. Raises InvalidRequest for a job that has not ended
        or has succeeded, JobNotFound, and what `submit` raises.
        """
        record: JobRecord | None = yield calls.get(job_id)
        if record is None:
            raise JobNotFound(job_id)
        if record.status not in RETRYABLE:
            raise InvalidRequest(
                f"job {job_id} is {record.status.value}; only a job that is {either(RETRYABLE)} can be "
                f"retried"
            )
        if record.request.incomplete:
            raise InvalidRequest(
                f"the presigned URLs of job {job_id} were deleted when it ended; submit the image "
                f"again with new URLs"
            )
        key = f"retry:{record.id}"
        known = yield from self._known_under(key)
        if known:
            return self._job(known[0])
        new = new_id()
        # The new job gets its own copy of an uploaded image, so that deleting the first job keeps it.
        request = record.request
        uploaded = self.session.layout.of(record).is_upload(request.image_uri)
        copy = self.session.layout.job(new, tenant=request.tenant).upload
        if uploaded:
            original = S3Uri.parse(request.image_uri)
            yield RunBlocking(lambda: self.session.objects.copy(original, copy))
            # A copy may have another ETag and has another version.
            copied = {"image_uri": str(copy), "image_etag": None, "image_version_id": None}
            request = request.model_copy(update=copied)
        call = calls.submit(
            new,
            request,
            self.session.limits,
            idempotency=calls.Idempotency(key=key, fingerprint=record.id),
            retry_of=record.id,
        )
        sending = self._accepted(call, durable=False, queue_full_timeout=0.0)
        if uploaded:
            sending = self._or_removed(new, copy, sending)
        answer = yield from sending
        refuse(answer, request, key)
        return self._job(answer.job_id)

    def _known_under(self, key: str) -> Flow[tuple[str, str] | None]:
        """The id and fingerprint of the key's job, unless that job was deleted."""
        known: tuple[str, str] | None = yield calls.known_under(key)
        if known and (yield calls.get(known[0])):
            return known
        return None

    def _accepted(
        self, submission: Call[Submitted], *, durable: bool, queue_full_timeout: float | None
    ) -> Flow[Submitted]:
        """The answer. While the queue is full, the submission is retried until the time is up."""
        backoff = QueueFullBackoff(queue_full_timeout)
        while True:
            answer: Submitted
            (answer,) = yield from sent([submission], durable)
            if answer.outcome not in NO_ROOM or backoff.time_is_up:
                return answer
            yield backoff.wait()

    def _or_removed(self, job_id: str, upload: S3Uri, sending: Flow[Submitted]) -> Flow[Submitted]:
        """The answer. Deletes the upload if no job of this id was accepted."""
        try:
            answer = yield from sending
        except QueueFull:  # Redis reached its memory limit, perhaps after it accepted the job
            if not (yield calls.get(job_id)):
                yield from self._remove_upload(upload)
            raise
        if not (answer.stands and answer.job_id == job_id):
            yield from self._remove_upload(upload)
        return answer

    def _remove_upload(self, upload: S3Uri) -> Flow[None]:
        with suppress(StoreUnavailable):  # a leftover object does not fail the call
            yield RunBlocking(lambda: self.session.objects.delete(upload))

    def _job(self, job_id: str, record: JobRecord | None = None) -> JobT:
        return type(self)._job_type(self.session, record, job_id)

    def _prepare(
        self, job_id: str, image: ImageSource, options: Options
    ) -> tuple[SegmentRequest, tuple[bytes, str] | None]:
        """The request, and the body and content type to upload, if the image is not in S3 yet."""
        if is_reference(image):
            return build(str(image), options), None
        upload = read_image(image)
        storage = self.session.layout.job(job_id, tenant=options.get("tenant"))
        return build(str(storage.upload), options), upload
