"""Submitting one image to Redis and S3, and retrying jobs."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from maskq.client.direct import plain_http
from maskq.client.direct.access import DirectAccess
from maskq.client.direct.sent import NO_ROOM, sent
from maskq.client.image_source import ImageSource, given_name, is_reference, read_image
from maskq.client.operations.flow import Flow, RunBlocking
from maskq.client.requests import build, check_retry, fingerprint, refuse
from maskq.client.sending import QueueFullBackoff
from maskq.contract import JobRecord, SegmentRequest
from maskq.contract.ids import new_id
from maskq.contract.locations import S3Uri
from maskq.contract.options import Options
from maskq.contract.tracing import TraceContext
from maskq.errors import JobNotFound, QueueFull, StoreUnavailable
from maskq.ledger import calls
from maskq.ledger.calls import Call, Submitted


class Submissions:
    """Uploads images and submits their jobs, one at a time."""

    def __init__(self, access: DirectAccess) -> None:
        self._access = access

    def submit(
        self,
        image: ImageSource,
        options: Options,
        *,
        idempotency_key: str | None,
        durable: bool,
        queue_full_timeout: float | None,
        trace: TraceContext | None,
    ) -> Flow[str]:
        """Returns the id of the new job, or of the one under the same idempotency key."""
        job_id = new_id()
        given = options.get("output_urls")
        urls = (image, *(given.values() if isinstance(given, Mapping) else ()))
        yield from plain_http.refuse(urls, options.get("model"), self._access.limits)
        request, upload = self._prepare(job_id, image, options)
        idempotency = None
        if idempotency_key is not None:
            idempotency = calls.Idempotency(
                key=idempotency_key, fingerprint=fingerprint(request, upload)
            )
            # Only to save the upload: the submission looks itself.
            known = (yield from self._known_under(idempotency_key)) if upload else None
            if known and known[1] == idempotency.fingerprint:
                return known[0]
        if upload:
            yield RunBlocking(
                lambda: self._access.objects.put(S3Uri.parse(request.image_uri), *upload)
            )
        call = calls.submit(
            job_id,
            request,
            self._access.limits,
            idempotency=idempotency,
            source=given_name(image),
            trace=trace,
        )
        sending = self._accepted(call, durable=durable, queue_full_timeout=queue_full_timeout)
        if upload:
            sending = self._or_removed(job_id, S3Uri.parse(request.image_uri), sending)
        answer = yield from sending
        refuse(answer, request, idempotency_key)
        return answer.job_id

    def retry(self, job_id: str, trace: TraceContext | None) -> Flow[str]:
        """Returns the id of the job that retries this one."""
        record: JobRecord | None = yield calls.get(job_id)
        if record is None:
            raise JobNotFound(job_id)
        check_retry(record)
        key = f"retry:{record.id}"
        known = yield from self._known_under(key)
        if known:
            return known[0]
        new = new_id()
        # The new job gets its own copy of an uploaded image, so that deleting the first job keeps it.
        request = record.request
        uploaded = self._access.layout.of(record).is_upload(request.image_uri)
        copy = self._access.layout.job(new, tenant=request.tenant).upload
        if uploaded:
            original = S3Uri.parse(request.image_uri)
            yield RunBlocking(lambda: self._access.objects.copy(original, copy))
            # A copy may have another ETag and has another version.
            copied = {"image_uri": str(copy), "image_etag": None, "image_version_id": None}
            request = request.model_copy(update=copied)
        call = calls.submit(
            new,
            request,
            self._access.limits,
            idempotency=calls.Idempotency(key=key, fingerprint=record.id),
            retry_of=record.id,
            source=record.source or "",
            trace=trace,
        )
        sending = self._accepted(call, durable=False, queue_full_timeout=0.0)
        if uploaded:
            sending = self._or_removed(new, copy, sending)
        answer = yield from sending
        refuse(answer, request, key)
        return answer.job_id

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
            yield RunBlocking(lambda: self._access.objects.delete(upload))

    def _prepare(
        self, job_id: str, image: ImageSource, options: Options
    ) -> tuple[SegmentRequest, tuple[bytes, str] | None]:
        """The request, and the body and content type to upload, if the image is not in S3 yet."""
        if is_reference(image):
            return build(str(image), options), None
        upload = read_image(image)
        storage = self._access.layout.job(job_id, tenant=options.get("tenant"))
        return build(str(storage.upload), options), upload
