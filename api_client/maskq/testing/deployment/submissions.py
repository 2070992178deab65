"""Submitting images to a fake deployment, one at a time or many."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Generic, TypeVar

from maskq.client.bulk import Bulk, SubmitOptions, TakenImage
from maskq.client.image_source import ImageSource, given_name, is_reference, read_image
from maskq.client.operations.flow import Flow, RunBlocking
from maskq.client.requests import build, fingerprint
from maskq.client.sending import QueueFullBackoff
from maskq.contract.ids import new_id
from maskq.contract.options import Options
from maskq.contract.tracing import TraceContext
from maskq.errors import IdempotencyConflict, InvalidRequest, MaskqError, QueueFull
from maskq.ledger.calls import BatchMembership, Idempotency
from maskq.testing.deployment.ledger import NewJob
from maskq.testing.deployment.worker import LAYOUT
from maskq.testing.service import FakeService

JobT = TypeVar("JobT")


def submitted(
    service: FakeService,
    image: ImageSource,
    options: Options,
    *,
    key: str | None = None,
    batch: BatchMembership | None = None,
    retry_of: str = "",
    trace: TraceContext | None = None,
) -> Flow[str]:
    """The job's id. Raises what `Client.submit` raises; QueueFull at once."""
    job_id, upload = new_id(), None
    if is_reference(image):
        request = build(str(image), options)
        body = service.images.get(str(image))
    else:
        upload = yield RunBlocking(partial(read_image, image))
        place = LAYOUT.job(job_id, tenant=options.get("tenant")).upload
        request, body = build(str(place), options), upload[0]
    idempotency = None
    if key is not None:
        idempotency = Idempotency(key=key, fingerprint=fingerprint(request, upload))
    ledger = service.ledger()
    with ledger.lock:
        source = given_name(image)
        new = NewJob(job_id, request, body, idempotency, batch, retry_of, source, trace)
        return ledger.submit(new, service.plans)


def submitted_when_accepted(
    service: FakeService,
    image: ImageSource,
    options: Options,
    key: str | None,
    timeout: float | None,
    trace: TraceContext | None,
) -> Flow[str]:
    """As `submitted`; while the queue is full it tries again for `timeout` seconds (None: no limit)."""
    backoff = QueueFullBackoff(timeout)
    while True:
        try:
            return (yield from submitted(service, image, options, key=key, trace=trace))
        except QueueFull:
            if backoff.time_is_up:
                raise
            yield backoff.wait()


class FakeBulk(Bulk[JobT], Generic[JobT]):
    """Submits the images that were taken, one after the other."""

    def __init__(
        self,
        service: FakeService,
        job: Callable[[str], JobT],
        submit_options: SubmitOptions,
        options: Options,
    ) -> None:
        """Raises InvalidRequest for an invalid option."""
        super().__init__(job, submit_options)
        build("s3://bucket/key", options)
        self._service = service
        self._options = options

    def submit_taken(self, trace: TraceContext | None) -> Flow[None]:
        accepted, full = 0, []
        try:
            while self.taken:
                one = self.taken[0]  # stays taken if this raises StoreUnavailable or UnknownModel
                outcome = yield from self._outcome(one, trace)
                self.taken.pop(0)
                if isinstance(outcome, QueueFull) and not self.backoff.time_is_up:
                    full.append(one)
                    continue
                accepted += isinstance(outcome, str)
                self.add_outcome(one.number, one.image, outcome)
        finally:
            self.taken = full + self.taken
        if accepted:
            self.backoff.found(for_all=not full)
        if full:
            self.held_up = "the queue is full"
            yield self.backoff.wait()

    def _outcome(self, one: TakenImage, trace: TraceContext | None) -> Flow[str | MaskqError]:
        """The id of the image's job, or the error that concerns this image alone."""
        try:
            return (
                yield from submitted(
                    self._service,
                    one.image,
                    self._options,
                    key=one.key,
                    batch=self.options.batch,
                    retry_of=one.retry_of,
                    trace=trace,
                )
            )
        except (InvalidRequest, IdempotencyConflict, QueueFull) as error:
            return error
