"""Submitting one image or many, and retrying jobs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Generic, TypeVar, Unpack

from maskq.client.bulk import Bulk, Submission, SubmitOptions
from maskq.client.image_source import ImageSource, source_given
from maskq.client.job import JobCore
from maskq.client.operations.flow import Flow, operation
from maskq.client.operations.former_names import accept_former_names
from maskq.client.requests import check_webhook
from maskq.contract.ids import new_id
from maskq.contract.options import Options
from maskq.errors import InvalidRequest, StoreUnavailable
from maskq.ledger.calls import BatchMembership
from maskq.telemetry import tracing

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
        with tracing.submission() as submitting:
            job_id = yield from self.session.deployment.submit(
                image,
                options,
                idempotency_key=idempotency_key,
                durable=durable,
                queue_full_timeout=queue_full_timeout,
                trace=submitting.context,
            )
            submitting.accepted(job_id)
        return self._job(job_id, source_given(image, options.get("image_version_id")))

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
        bulk = self.session.deployment.bulk(self._job, submit_options, options)
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
                yield from self.session.deployment.give_up_batch(batch.batch_id, accepted)
            raise
        version_id = options.get("image_version_id")
        in_order = [
            self._job(jobs[number].id, source_given(image, version_id))
            for number, image in enumerate(sources)
        ]
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
        return self.session.deployment.bulk(self._job, submit_options, options)

    @operation
    def retry(self, job_id: str) -> Flow[JobT]:
        """Submit a job again that failed, expired or was canceled; the new job's `retry_of` names it.

        Calling it again returns the same new job. Raises InvalidRequest for a job that has not ended
        or has succeeded, JobNotFound, and what `submit` raises.
        """
        with tracing.submission() as submitting:
            retrying = self.session.deployment.retry(job_id, submitting.context)
            submitting.accepted(new := (yield from retrying))
        return self._job(new)

    def _named(self, submission: Submission[JobT]) -> Submission[JobT]:
        """The same, whose job names its source."""
        if submission.job is None:
            return submission
        job = self._job(submission.job.id, source_given(submission.image))
        return submission._replace(job=job)

    def _job(self, job_id: str, source: str | None = None) -> JobT:
        return type(self)._job_type(self.session, None, job_id, source)
