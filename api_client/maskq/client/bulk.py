"""Submitting any number of images: in chunks, with an outcome for each image."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from maskq.client.image_source import ImageSource, is_reference, name_of, read_image
from maskq.client.operations.flow import Flow, Pipeline, RunBlocking, Sleep
from maskq.client.requests import Requests, refuse
from maskq.client.sending import NO_ROOM, OUTAGE_S, OutageTolerance, QueueFullBackoff, sent
from maskq.contract import FailureCode, SegmentRequest
from maskq.contract.ids import new_id
from maskq.contract.locations import S3Uri
from maskq.contract.options import Options
from maskq.errors import (
    IdempotencyConflict,
    InvalidRequest,
    MaskqError,
    QueueFull,
    StoreUnavailable,
    UnknownModel,
)
from maskq.ledger import calls
from maskq.ledger.calls import BatchMembership, Call, Idempotency, SubmitOutcome, Submitted

if TYPE_CHECKING:
    from maskq.client.job import JobCore
    from maskq.client.session import Session

JobT = TypeVar("JobT", bound="JobCore[Any]")

CHUNK = 500  # jobs a round trip
_UPLOADS = 8  # at a time
_UPLOADS_A_STEP = 4 * _UPLOADS  # workers can start before all uploads are done
_OUTAGE_PAUSE_S = 1.0


class Submission(NamedTuple, Generic[JobT]):
    """The outcome of one image: its job, or the error."""

    image: ImageSource
    job: JobT | None
    error: MaskqError | None


Outcomes = list[tuple[int, Submission[JobT]]]  # with the image's position in the input


@dataclass(frozen=True, slots=True)
class _Taken:
    """An image that is not uploaded yet."""

    number: int
    image: ImageSource
    key: str | None  # idempotency key
    retry_of: str


@dataclass(frozen=True, slots=True)
class _Ready:
    """An image that workers can read, and the call that submits its job."""

    taken: _Taken
    job_id: str
    request: SegmentRequest
    uploaded: bool
    call: Call[Submitted]


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitOptions:
    """How images are submitted; `Options` says what their jobs do.

    `batch`: the batch of the jobs. `run_id`: the run's name, within which each image is submitted once.
    `retry_of`: returns the failed job of this run that the image's job retries, or ''. `outage_s`:
    seconds that Redis or S3 may be unavailable after it has answered once.
    """

    batch: BatchMembership
    run_id: str | None = None
    retry_of: Callable[[ImageSource], str] = lambda image: ""
    durable: bool = False
    queue_full_timeout: float | None = None
    chunk: int = CHUNK
    outage_s: float = OUTAGE_S


class Bulk(Generic[JobT]):
    """Submits images in steps: `for step in bulk.steps(images)`, where a driver runs each step.

    At most one chunk of image names and eight uploads are in memory.
    """

    def __init__(
        self,
        session: Session,
        job_type: Callable[..., JobT],
        submit_options: SubmitOptions,
        options: Options,
    ) -> None:
        """Raises InvalidRequest for an invalid option."""
        self._session = session
        self._job_type = job_type
        self._options = submit_options
        self._requests = Requests(options)
        self._backoff = QueueFullBackoff(submit_options.queue_full_timeout)
        self._outage_tolerance = OutageTolerance(submit_options.outage_s)
        self._taken: list[_Taken] = []
        self._ready: list[_Ready] = []
        self._outcomes: Outcomes[JobT] = []
        self._fatal: MaskqError | None = (
            None  # raised by the step after the one that returns earlier outcomes
        )
        self.held_up = ""  # why the last step waited, if it did

    def steps(self, images: Iterable[ImageSource]) -> Iterator[Flow[Outcomes[JobT]]]:
        """Yield steps. Each returns the outcomes it produced; none while the queue is full.

        A step raises UnknownModel and StoreUnavailable, because they concern all images.
        """
        for number, image in enumerate(images):
            self._take(number, image)
            while self._full:
                yield self._step()
        while self._taken or self._ready or self._outcomes or self._fatal:
            yield self._step()

    def _take(self, number: int, image: ImageSource) -> None:
        key, after = None, ""
        if run_id := self._options.run_id:
            try:
                name = name_of(image)
            except InvalidRequest as error:  # not an image source
                self._add_outcome(number, image, error)
                return
            after = self._options.retry_of(image)
            digest = hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()
            key = f"{run_id}:{digest[:32]}"
            key += f":{after}" if after else ""
        self._taken.append(_Taken(number, image, key, after))

    @property
    def _full(self) -> bool:
        if len(self._taken) + len(self._ready) >= self._options.chunk:
            return True
        return (
            len(self._taken) >= _UPLOADS_A_STEP
            and not is_reference(self._taken[-1].image)
            and sum(not is_reference(one.image) for one in self._taken) >= _UPLOADS_A_STEP
        )

    def _step(self) -> Flow[Outcomes[JobT]]:
        if self._fatal:
            raise self._fatal
        self.held_up = ""
        try:
            yield from self._prepare()
            yield from self._send()
            self._outage_tolerance.answered()
        except UnknownModel as error:
            self._fatal = error
        except StoreUnavailable as error:
            if self._outage_tolerance.ends_with(error):
                self._fatal = error
            else:
                self.held_up = "Redis or S3 is unavailable"
                yield Sleep(_OUTAGE_PAUSE_S)
        outcomes, self._outcomes = self._outcomes, []
        return outcomes

    def _add_outcome(self, number: int, image: ImageSource, outcome: str | MaskqError) -> None:
        """outcome: the id of the image's job, or the error."""
        if isinstance(outcome, str):
            submission = Submission(image, self._job_type(self._session, None, outcome), None)
        else:
            submission = Submission(image, None, outcome)
        self._outcomes.append((number, submission))

    # --- upload -------------------------------------------------------------------------------------

    def _prepare(self) -> Flow[None]:
        """Upload taken images, which are then ready. During an outage they stay taken."""
        uploads = [one for one in self._taken if not is_reference(one.image)]
        if uploads:
            known = yield from self._known(uploads)
            results = yield RunBlocking(lambda: self._prepared_in_threads(known))
        else:
            results = [self._attempt(one, None) for one in self._taken]
        outage: StoreUnavailable | None = None
        left = []
        for one, result in zip(self._taken, results, strict=True):
            match result:
                case _Ready():
                    self._ready.append(result)
                case StoreUnavailable() if result.code is not FailureCode.STORE_REFUSED:
                    left.append(one)
                    outage = result
                case _:
                    self._add_outcome(one.number, one.image, result)
        self._taken = left
        if outage:
            raise outage

    def _known(self, uploads: Sequence[_Taken]) -> Flow[dict[str, tuple[str, str]]]:
        """Key → id and fingerprint of its job: images that need no upload."""
        named = [one.key for one in uploads if one.key]
        found = yield Pipeline([calls.known_under(key) for key in named])
        jobs = {key: job for key, job in zip(named, found, strict=True) if job}
        records = yield Pipeline([calls.get(job_id) for job_id, _ in jobs.values()])
        return {key: jobs[key] for key, record in zip(jobs, records, strict=True) if record}

    def _prepared_in_threads(
        self, known: dict[str, tuple[str, str]]
    ) -> list[_Ready | str | MaskqError]:
        with ThreadPoolExecutor(_UPLOADS) as pool:
            return [
                *pool.map(lambda one: self._attempt(one, known.get(one.key or "")), self._taken)
            ]

    def _attempt(self, one: _Taken, known: tuple[str, str] | None) -> _Ready | str | MaskqError:
        try:
            return self._prepared(one, known)
        except MaskqError as error:
            return error

    def _prepared(self, one: _Taken, known: tuple[str, str] | None) -> _Ready | str:
        """Upload the image unless it is in S3. Returns the id of its job if it has one already."""
        job_id, upload = new_id(), None
        if is_reference(one.image):
            request = self._requests.of(str(one.image))
        else:
            upload = read_image(one.image)
            storage = self._session.layout.job(job_id, tenant=self._requests.tenant)
            request = self._requests.of(str(storage.upload))
        idempotency = None
        if one.key:
            idempotency = Idempotency(
                key=one.key, fingerprint=self._requests.fingerprint(request, upload)
            )
            if known and known[1] == idempotency.fingerprint:
                return known[0]
        if upload:
            self._session.objects.put(S3Uri.parse(request.image_uri), *upload)
        call = calls.submit(
            job_id,
            request,
            self._session.limits,
            idempotency=idempotency,
            batch=self._options.batch,
            retry_of=one.retry_of,
        )
        return _Ready(one, job_id, request, bool(upload), call)

    # --- submit -------------------------------------------------------------------------------------

    def _send(self) -> Flow[None]:
        """Submit ready images. While the queue is full they stay ready."""
        if not self._ready:
            return
        full: QueueFull | None = None
        try:
            answers = yield from sent([one.call for one in self._ready], self._options.durable)
        except QueueFull as error:
            full = error  # Redis reached its memory limit, perhaps after it accepted some
            answers = yield from self._accepted_before_full()
        tried, self._ready = self._ready, []
        unused = []
        for one, answer in zip(tried, answers, strict=True):
            if answer.outcome in NO_ROOM and not self._backoff.time_is_up:
                self._ready.append(one)
                continue
            self._conclude(one, answer, full)
            if one.uploaded and not (answer.stands and answer.job_id == one.job_id):
                unused.append(S3Uri.parse(one.request.image_uri))
        if unused:
            yield RunBlocking(lambda: self._delete(unused))
        if self._fatal:
            raise self._fatal
        if len(self._ready) < len(tried):
            self._backoff.found(for_all=not self._ready)
        if self._ready:
            self.held_up = "the queue is full"
            yield self._backoff.wait()

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
            self._fatal = error
            return
        except QueueFull as error:
            outcome = full or error
        except IdempotencyConflict as error:
            outcome = error
        self._add_outcome(one.taken.number, one.taken.image, outcome)

    def _delete(self, places: Sequence[S3Uri]) -> None:
        with suppress(StoreUnavailable):  # a leftover object does not stop the run
            for place in places:
                self._session.objects.delete(place)

    @property
    def unconfirmed_job_ids(self) -> list[str]:
        """Ids of jobs that Redis may have accepted without confirming it."""
        return [one.job_id for one in self._ready]
