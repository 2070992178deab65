"""Many images on their way to being jobs: taken as they come, sent by chunks, settled one by one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from maskq.client.objects import read_image
from maskq.client.operations.flow import Flow, Pipeline, RunBlocking, Sleep
from maskq.client.requests import Options, Requests, refuse
from maskq.client.sending import NO_ROOM, OUTAGE_S, OutageTolerance, QueueFullBackoff, sent
from maskq.contract import FailureCode, SegmentRequest
from maskq.contract.ids import new_id
from maskq.contract.locations import S3Uri, is_url, redact
from maskq.errors import (
    IdempotencyConflict,
    InvalidRequest,
    MaskqError,
    QueueFull,
    StoreUnavailable,
    UnknownModel,
)
from maskq.inert import without_secrets
from maskq.ledger import calls
from maskq.ledger.calls import BatchMembership, Call, Idempotency, SubmitOutcome, Submitted

if TYPE_CHECKING:
    import PIL.Image

    from maskq.client.job import JobCore
    from maskq.client.session import Session

    ImageSource = str | Path | bytes | PIL.Image.Image

JobT = TypeVar("JobT", bound="JobCore[Any]")

CHUNK = 500  # jobs a round trip
_UPLOADS = 8  # at a time
_UPLOADS_A_STEP = 4 * _UPLOADS  # workers have something to do while the rest is uploaded
_OUTAGE_PAUSE_S = 1.0


class Submission(NamedTuple, Generic[JobT]):
    """What became of one image: a job, or why there is none."""

    image: ImageSource
    job: JobT | None
    error: MaskqError | None


Outcomes = list[tuple[int, Submission[JobT]]]  # with their numbers in the order they were taken


def is_reference(image: ImageSource) -> bool:
    """Whether it lies somewhere already, and is not to be uploaded."""
    return isinstance(image, str) and (image.startswith("s3://") or is_url(image))


def name_of(image: ImageSource) -> str:
    """What tells images of a run apart: a path or place; a digest of what has neither.

    Of a URL that holds a secret (a query, a password) the part without it, and a digest of the whole.
    """
    if isinstance(image, str) and is_url(image) and without_secrets(redact(image)) != image:
        return without_secrets(redact(image)) + _digest(image.encode(errors="surrogateescape"))[:16]
    if isinstance(image, str | Path):
        return str(image)
    return f"sha256:{_digest(read_image(image)[0])}"


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True, slots=True)
class _Taken:
    """An image that nothing was done about yet."""

    number: int
    image: ImageSource
    key: str | None  # idempotency key
    retry_of: str


@dataclass(frozen=True, slots=True)
class _Ready:
    """An image that is where it will be read, and the call that makes it a job."""

    taken: _Taken
    job_id: str
    request: SegmentRequest
    uploaded: bool
    call: Call[Submitted]


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitOptions:
    """How images are submitted, beside what is asked about them.

    `batch`: of which they are part. `run_id`: names this run, in which an image is submitted once
    however often it is taken. `retry_of`: the failed job of this run that an image is submitted after
    nevertheless, or ''. `outage_s`: how long a store may be away that answered before.
    """

    batch: BatchMembership
    run_id: str | None = None
    retry_of: Callable[[ImageSource], str] = lambda image: ""
    durable: bool = False
    room_timeout: float | None = None
    chunk: int = CHUNK
    outage_s: float = OUTAGE_S


class Bulk(Generic[JobT]):
    """Images become jobs: `for step in bulk.steps(images)`, each to be driven.

    No more images are in memory than a chunk; of those that are uploaded, eight.
    """

    def __init__(
        self,
        session: Session,
        job_type: Callable[..., JobT],
        manner: SubmitOptions,
        options: Options,
    ) -> None:
        """Raises InvalidRequest for an option that is wrong."""
        self._session = session
        self._job_type = job_type
        self._manner = manner
        self._requests = Requests(options)
        self._room = QueueFullBackoff(manner.room_timeout)
        self._patience = OutageTolerance(manner.outage_s)
        self._taken: list[_Taken] = []
        self._ready: list[_Ready] = []
        self._outcomes: Outcomes[JobT] = []
        self._fatal: MaskqError | None = None  # raised once what was settled before it is told
        self.held_up = ""  # by what the last step was, if it was

    def steps(self, images: Iterable[ImageSource]) -> Iterator[Flow[Outcomes[JobT]]]:
        """Each step: the images it settled, with their numbers; perhaps none while there is no room.

        A step raises UnknownModel and StoreUnavailable, which concern all and not one image.
        """
        for number, image in enumerate(images):
            self._take(number, image)
            while self._full:
                yield self._step()
        while self._taken or self._ready or self._outcomes or self._fatal:
            yield self._step()

    def _take(self, number: int, image: ImageSource) -> None:
        key, after = None, ""
        if run_id := self._manner.run_id:
            try:
                name = name_of(image)
            except InvalidRequest as error:  # no kind of image
                self._settle(number, image, error)
                return
            after = self._manner.retry_of(image)
            key = f"{run_id}:{_digest(name.encode(errors='surrogateescape'))[:32]}"
            key += f":{after}" if after else ""
        self._taken.append(_Taken(number, image, key, after))

    @property
    def _full(self) -> bool:
        if len(self._taken) + len(self._ready) >= self._manner.chunk:
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
            self._patience.answered()
        except UnknownModel as error:
            self._fatal = error
        except StoreUnavailable as error:
            if self._patience.ends_with(error):
                self._fatal = error
            else:
                self.held_up = "Redis or S3 is away"
                yield Sleep(_OUTAGE_PAUSE_S)
        outcomes, self._outcomes = self._outcomes, []
        return outcomes

    def _settle(self, number: int, image: ImageSource, outcome: str | MaskqError) -> None:
        """With the id of its job, or why it has none."""
        if isinstance(outcome, str):
            submission = Submission(image, self._job_type(self._session, None, outcome), None)
        else:
            submission = Submission(image, None, outcome)
        self._outcomes.append((number, submission))

    # --- an image to where it will be read ----------------------------------------------------------

    def _prepare(self) -> Flow[None]:
        """From taken to ready. What an outage cuts off stays taken."""
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
                    self._settle(one.number, one.image, result)
        self._taken = left
        if outage:
            raise outage

    def _known(self, uploads: Sequence[_Taken]) -> Flow[dict[str, tuple[str, str]]]:
        """Key → id and fingerprint of its job: what need not be uploaded again."""
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
        """Uploaded, if it is not in S3 yet; the id of its job, if it has one already."""
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
            batch=self._manner.batch,
            retry_of=one.retry_of,
        )
        return _Ready(one, job_id, request, bool(upload), call)

    # --- and to a job -------------------------------------------------------------------------------

    def _send(self) -> Flow[None]:
        """From ready to settled. What finds no room stays ready."""
        if not self._ready:
            return
        full: QueueFull | None = None
        try:
            answers = yield from sent([one.call for one in self._ready], self._manner.durable)
        except QueueFull as error:
            full = error  # Redis is at its memory limit, perhaps since the middle of these
            answers = yield from self._accepted_nevertheless()
        tried, self._ready = self._ready, []
        needless = []
        for one, answer in zip(tried, answers, strict=True):
            if answer.outcome in NO_ROOM and not self._room.time_is_up:
                self._ready.append(one)
                continue
            self._conclude(one, answer, full)
            if one.uploaded and not (answer.stands and answer.job_id == one.job_id):
                needless.append(S3Uri.parse(one.request.image_uri))
        if needless:
            yield RunBlocking(lambda: self._delete(needless))
        if self._fatal:
            raise self._fatal
        if len(self._ready) < len(tried):
            self._room.found(for_all=not self._ready)
        if self._ready:
            self.held_up = "the queue is full"
            yield self._room.wait()

    def _accepted_nevertheless(self) -> Flow[list[Submitted]]:
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
        self._settle(one.taken.number, one.taken.image, outcome)

    def _delete(self, places: Sequence[S3Uri]) -> None:
        with suppress(StoreUnavailable):  # an object too many is no reason to stop
            for place in places:
                self._session.objects.delete(place)

    @property
    def unconfirmed_job_ids(self) -> list[str]:
        """Ids of jobs that may have been accepted, though the answer did not come."""
        return [one.job_id for one in self._ready]
