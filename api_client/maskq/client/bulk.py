"""Submitting any number of images: in chunks, with an outcome for each image."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Generic, NamedTuple, TypeVar, cast

from maskq.client.image_source import (
    BinaryFile,
    ImageSource,
    contents,
    is_file,
    is_reference,
    name_of,
)
from maskq.client.operations.flow import Flow, Sleep
from maskq.client.sending import OUTAGE_S, OutageTolerance, QueueFullBackoff
from maskq.contract.tracing import TraceContext
from maskq.errors import InvalidRequest, MaskqError, StoreUnavailable, UnknownModel
from maskq.ledger.calls import BatchMembership
from maskq.telemetry import tracing

JobT = TypeVar("JobT")

CHUNK: Final = 500  # jobs a round trip
UPLOADS: Final = 8  # at a time
_UPLOADS_A_STEP: Final = 4 * UPLOADS  # workers can start before all uploads are done
_OUTAGE_PAUSE_S: Final = 1.0


class Submission(NamedTuple, Generic[JobT]):
    """The outcome of one image: its job, or the error."""

    image: ImageSource
    job: JobT | None
    error: MaskqError | None


Outcomes = list[tuple[int, Submission[JobT]]]  # with the image's position in the input


@dataclass(frozen=True, slots=True)
class TakenImage:
    """An image that is not submitted yet."""

    number: int
    image: ImageSource
    key: str | None  # idempotency key
    retry_of: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitOptions:
    """How images are submitted; `Options` says what their jobs do.

    `batch`: the batch of the jobs. `keys`: each image's idempotency key, by its number. `run_id`: the
    run's name, within which each image is submitted once.
    `retry_of`: returns the ended job that the job of an image, given with its number, retries, or ''.
    `outage_s`: seconds that Redis or S3 may be unavailable after it has answered once.
    """

    batch: BatchMembership
    run_id: str | None = None
    keys: Sequence[str] = ()
    retry_of: Callable[[int, ImageSource], str] = lambda number, image: ""
    durable: bool = False
    queue_full_timeout: float | None = None
    chunk: int = CHUNK
    outage_s: float = OUTAGE_S


class Bulk(ABC, Generic[JobT]):
    """Submits images in steps: `for step in bulk.steps(images)`, where a driver runs each step.

    At most one chunk of image names and eight uploads are in memory.
    """

    def __init__(self, job: Callable[[str], JobT], submit_options: SubmitOptions) -> None:
        """job: makes the handle on a job from its id."""
        self._job = job
        self.options = submit_options
        self.backoff = QueueFullBackoff(submit_options.queue_full_timeout)
        self.taken: list[TakenImage] = []
        self._outage_tolerance = OutageTolerance(submit_options.outage_s)
        self._outcomes: Outcomes[JobT] = []
        self._files: dict[int, ImageSource] = {}  # file objects, by number, whose bytes are taken
        # Raised by the step after the one that returns earlier outcomes.
        self._fatal: MaskqError | None = None
        self.held_up = ""  # why the last step waited, if it did

    def steps(self, images: Iterable[ImageSource]) -> Iterator[Flow[Outcomes[JobT]]]:
        """Yield steps. Each returns the outcomes it produced; none while the queue is full.

        A step raises UnknownModel and StoreUnavailable, because they concern all images.
        """
        for number, image in enumerate(images):
            self._take(number, image)
            while self._full:
                yield self._step()
        while self.taken or self.ready_count or self._outcomes or self._fatal:
            yield self._step()

    @abstractmethod
    def submit_taken(self, trace: TraceContext | None) -> Flow[None]:
        """Submit taken images and add their outcomes; what the full queue refuses stays.

        trace: of the jobs.
        Raises UnknownModel, and StoreUnavailable during an outage.
        """

    @property
    def ready_count(self) -> int:
        """Images that are not taken any more and have no outcome yet."""
        return 0

    @property
    def unconfirmed_job_ids(self) -> list[str]:
        """Ids of jobs that may have been accepted without a confirmation."""
        return []

    def add_outcome(self, number: int, image: ImageSource, outcome: str | MaskqError) -> None:
        """outcome: the id of the image's job, or the error."""
        image = self._files.pop(number, image)
        if isinstance(outcome, str):
            submission = Submission(image, self._job(outcome), None)
        else:
            submission = Submission(image, None, outcome)
        self._outcomes.append((number, submission))

    def _take(self, number: int, image: ImageSource) -> None:
        key, name = None, ""
        if is_file(image):  # it can be read once, and an outage may need its bytes again
            self._files[number] = image
            try:
                image = contents(cast("BinaryFile", image))
            except InvalidRequest as error:
                self.add_outcome(number, image, error)
                return
        if run_id := self.options.run_id:
            try:
                name = name_of(image)
            except InvalidRequest as error:  # not an image source
                self.add_outcome(number, image, error)
                return
        after = self.options.retry_of(number, image)
        if run_id:
            digest = hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()
            key = f"{run_id}:{digest[:32]}"
            key += f":{after}" if after else ""
        elif self.options.keys:
            key = self.options.keys[number]
        self.taken.append(TakenImage(number, image, key, after))

    @property
    def _full(self) -> bool:
        if len(self.taken) + self.ready_count >= self.options.chunk:
            return True
        return (
            len(self.taken) >= _UPLOADS_A_STEP
            and not is_reference(self.taken[-1].image)
            and sum(not is_reference(one.image) for one in self.taken) >= _UPLOADS_A_STEP
        )

    def _submit_taken(self) -> Flow[None]:
        if not self.taken:  # what is ready has the context of the step that took it
            yield from self.submit_taken(None)
            return
        with tracing.submission(jobs=len(self.taken)) as submitting:
            yield from self.submit_taken(submitting.context)

    def _step(self) -> Flow[Outcomes[JobT]]:
        if self._fatal:
            raise self._fatal
        self.held_up = ""
        try:
            yield from self._submit_taken()
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
