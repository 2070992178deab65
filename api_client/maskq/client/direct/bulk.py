"""Submitting any number of images to Redis and S3."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

from maskq.client.bulk import UPLOADS, Bulk, SubmitOptions, TakenImage
from maskq.client.direct.access import DirectAccess
from maskq.client.direct.plain_http import is_plain, only_https, refusal
from maskq.client.direct.sent import NO_ROOM, sent
from maskq.client.image_source import given_name, is_reference, read_image
from maskq.client.operations.flow import Flow, Pipeline, RunBlocking
from maskq.client.requests import Requests, refuse
from maskq.contract import FailureCode, SegmentRequest
from maskq.contract.ids import new_id
from maskq.contract.locations import S3Uri
from maskq.contract.options import Options
from maskq.contract.tracing import TraceContext
from maskq.errors import (
    IdempotencyConflict,
    MaskqError,
    QueueFull,
    StoreUnavailable,
    UnknownModel,
)
from maskq.ledger import calls
from maskq.ledger.calls import Call, Idempotency, SubmitOutcome, Submitted

JobT = TypeVar("JobT")


@dataclass(frozen=True, slots=True)
class _Ready:
    """An image that workers can read, and the call that submits its job."""

    taken: TakenImage
    job_id: str
    request: SegmentRequest
    uploaded: bool
    call: Call[Submitted]


class DirectBulk(Bulk[JobT], Generic[JobT]):
    """Uploads images to S3 and submits their jobs to Redis."""

    def __init__(
        self,
        access: DirectAccess,
        job: Callable[[str], JobT],
        submit_options: SubmitOptions,
        options: Options,
    ) -> None:
        """Raises InvalidRequest for an invalid option."""
        super().__init__(job, submit_options)
        self._access = access
        self._requests = Requests(options)
        self._ready: list[_Ready] = []
        self._unknown_model: UnknownModel | None = None
        self._only_https: bool | None = None  # of the workers; None: no http URL has been taken

    @property
    def ready_count(self) -> int:
        return len(self._ready)

    @property
    def unconfirmed_job_ids(self) -> list[str]:
        return [one.job_id for one in self._ready]

    def submit_taken(self, trace: TraceContext | None) -> Flow[None]:
        yield from self._prepare(trace)
        yield from self._send()

    # --- upload -------------------------------------------------------------------------------------

    def _prepare(self, trace: TraceContext | None) -> Flow[None]:
        """Upload taken images, which are then ready. During an outage they stay taken."""
        yield from self._refuse_plain_http()
        uploads = [one for one in self.taken if not is_reference(one.image)]
        if uploads:
            known = yield from self._known(uploads)
            results = yield RunBlocking(lambda: self._prepared_in_threads(known, trace))
        else:
            results = [self._attempt(one, None, trace) for one in self.taken]
        outage: StoreUnavailable | None = None
        left = []
        for one, result in zip(self.taken, results, strict=True):
            match result:
                case _Ready():
                    self._ready.append(result)
                case StoreUnavailable() if result.code is not FailureCode.STORE_REFUSED:
                    left.append(one)
                    outage = result
                case _:
                    self.add_outcome(one.number, one.image, result)
        self.taken = left
        if outage:
            raise outage

    def _refuse_plain_http(self) -> Flow[None]:
        plain = [one for one in self.taken if is_plain(one.image)]
        if plain and self._only_https is None:
            self._only_https = yield from only_https(self._requests.model, self._access.limits)
        if plain and self._only_https:
            self.taken = [one for one in self.taken if not is_plain(one.image)]
            for one in plain:
                self.add_outcome(one.number, one.image, refusal(str(one.image)))

    def _known(self, uploads: Sequence[TakenImage]) -> Flow[dict[str, tuple[str, str]]]:
        """Key → id and fingerprint of its job: images that need no upload."""
        named = [one.key for one in uploads if one.key]
        found = yield Pipeline([calls.known_under(key) for key in named])
        jobs = {key: job for key, job in zip(named, found, strict=True) if job}
        records = yield Pipeline([calls.get(job_id) for job_id, _ in jobs.values()])
        return {key: jobs[key] for key, record in zip(jobs, records, strict=True) if record}

    def _prepared_in_threads(
        self, known: dict[str, tuple[str, str]], trace: TraceContext | None
    ) -> list[_Ready | str | MaskqError]:
        with ThreadPoolExecutor(UPLOADS) as pool:
            return [
                *pool.map(
                    lambda one: self._attempt(one, known.get(one.key or ""), trace), self.taken
                )
            ]

    def _attempt(
        self, one: TakenImage, known: tuple[str, str] | None, trace: TraceContext | None
    ) -> _Ready | str | MaskqError:
        try:
            return self._prepared(one, known, trace)
        except MaskqError as error:
            return error

    def _prepared(
        self, one: TakenImage, known: tuple[str, str] | None, trace: TraceContext | None
    ) -> _Ready | str:
        """Upload the image unless it is in S3. Returns the id of its job if it has one already."""
        job_id, upload = new_id(), None
        if is_reference(one.image):
            request = self._requests.of(str(one.image))
        else:
            upload = read_image(one.image)
            storage = self._access.layout.job(job_id, tenant=self._requests.tenant)
            request = self._requests.of(str(storage.upload))
        idempotency = None
        if one.key:
            idempotency = Idempotency(
                key=one.key, fingerprint=self._requests.fingerprint(request, upload)
            )
            if known and known[1] == idempotency.fingerprint:
                return known[0]
        if upload:
            self._access.objects.put(S3Uri.parse(request.image_uri), *upload)
        call = calls.submit(
            job_id,
            request,
            self._access.limits,
            idempotency=idempotency,
            batch=self.options.batch,
            retry_of=one.retry_of,
            source=given_name(one.image),
            trace=trace,
        )
        return _Ready(one, job_id, request, bool(upload), call)

    # --- submit -------------------------------------------------------------------------------------

    def _send(self) -> Flow[None]:
        """Submit ready images. While the queue is full they stay ready."""
        if not self._ready:
            return
        full: QueueFull | None = None
        try:
            answers = yield from sent([one.call for one in self._ready], self.options.durable)
        except QueueFull as error:
            full = error  # Redis reached its memory limit, perhaps after it accepted some
            answers = yield from self._accepted_before_full()
        tried, self._ready = self._ready, []
        unused = []
        for one, answer in zip(tried, answers, strict=True):
            if answer.outcome in NO_ROOM and not self.backoff.time_is_up:
                self._ready.append(one)
                continue
            self._conclude(one, answer, full)
            if one.uploaded and not (answer.stands and answer.job_id == one.job_id):
                unused.append(S3Uri.parse(one.request.image_uri))
        if unused:
            yield RunBlocking(lambda: self._delete(unused))
        if self._unknown_model:
            raise self._unknown_model
        if len(self._ready) < len(tried):
            self.backoff.found(for_all=not self._ready)
        if self._ready:
            self.held_up = "the queue is full"
            yield self.backoff.wait()

    def _accepted_before_full(self) -> Flow[list[Submitted]]:
        records = yield Pipeline([calls.get(one.job_id) for one in self._ready])
        return [
            Submitted(SubmitOutcome.EXISTS if record else SubmitOutcome.FULL, one.job_id)
            for one, record in zip(self._ready, records, strict=True)
        ]

    def _conclude(self, one: _Ready, answer: Submitted, full: QueueFull | None) -> None:
        outcome: str | MaskqError = answer.job_id
        try:
            refuse(answer, one.request, one.taken.key)
        except UnknownModel as error:
            self._unknown_model = error
            return
        except QueueFull as error:
            outcome = full or error
        except IdempotencyConflict as error:
            outcome = error
        self.add_outcome(one.taken.number, one.taken.image, outcome)

    def _delete(self, places: Sequence[S3Uri]) -> None:
        with suppress(StoreUnavailable):  # a leftover object does not stop the run
            for place in places:
                self._access.objects.delete(place)
