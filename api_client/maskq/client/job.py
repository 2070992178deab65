"""A handle on one job, and one on a batch of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from maskq.client.admin.removal import delete_job
from maskq.client.operations.flow import (
    Flow,
    Pipeline,
    RunsAsync,
    RunsBlocking,
    Sleep,
    WaitFor,
    operation,
)
from maskq.client.results.result import AsyncResult, Result
from maskq.contract import JobRecord, JobStatus
from maskq.errors import JobFailed, JobNotFound, WaitTimeout
from maskq.ledger import calls, keys
from maskq.ledger.records import RawRecord

if TYPE_CHECKING:
    from maskq.client.session import Session

ResultT = TypeVar("ResultT")
JobT = TypeVar("JobT", bound="JobCore[Any]")

DEFAULT_WAIT_S = 600.0
_GATHER_S: Final = 0.03  # what ends meanwhile is fetched together


class JobCore(Generic[ResultT]):
    """What is known of a job since the last look (`record`), and how to look, wait and cancel."""

    _result_type: Callable[..., ResultT]

    def __init__(self, session: Session, record: JobRecord | None, job_id: str) -> None:
        self._session = session
        self._driver: Any = session.driver
        self._record = record
        self.id = job_id

    @property
    def record(self) -> JobRecord | None:
        """As of the last look; None before the first (`refresh`)."""
        return self._record

    @property
    def status(self) -> JobStatus:
        """As of the last look."""
        return self._record.status if self._record else JobStatus.QUEUED

    @operation
    def refresh(self) -> Flow[JobRecord]:
        """Look again; returns the record. Raises JobNotFound past its retention."""
        self._record = yield from self._look()
        return self._record

    @operation
    def done(self) -> Flow[bool]:
        """Whether the job has ended, one way or the other."""
        if not self._record or not self._record.ended:
            self._record = yield from self._look()
        return self._record.ended

    @operation
    def cancel(self) -> Flow[bool]:
        """Take the job back, queued or running. False: it had ended otherwise before."""
        status = yield calls.cancel(self.id)
        if status is None:
            raise JobNotFound(self.id)
        self._record = yield from self._look()
        return bool(status is JobStatus.CANCELED)

    @operation
    def delete(self) -> Flow[None]:
        """Remove it for good; see Client.delete."""
        yield from delete_job(self._session, self.id)

    @operation
    def wait(self, timeout: float | None = DEFAULT_WAIT_S) -> Flow[ResultT]:
        """The result, the moment the job ends.

        Raises JobFailed if it ended without one, WaitTimeout after `timeout` seconds (None: waits for
        as long as the job takes), JobNotFound if there is no such job.
        """
        self._record = record = yield from record_when_ended(self._session, self.id, timeout)
        if not record.ended:
            raise WaitTimeout(_still(record, timeout))
        return self.result()

    def result(self) -> ResultT:
        """The result as of the last look. Raises JobFailed if the job ended without one."""
        if self._record and self._record.ended and self._record.result is None:
            raise JobFailed(self._record, self)
        if not self._record or self._record.result is None:
            raise WaitTimeout(f"job {self.id} is {self.status.value}; wait() for its result")
        return type(self)._result_type(self._record, self._session)

    def _look(self) -> Flow[JobRecord]:
        record: JobRecord | None = yield calls.get(self.id)
        if record is None:
            raise JobNotFound(self.id)
        return record

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id}: {self.status.value}>"


def record_when_ended(session: Session, job_id: str, timeout: float | None) -> Flow[JobRecord]:
    """The job's record when it has ended, or as it is after `timeout` seconds. Raises JobNotFound."""
    raw: RawRecord | None = yield WaitFor(
        keys.wake(job_id).within(session.key_prefix),
        calls.look(job_id),
        lambda raw: raw is None or raw.ended,
        timeout,
    )
    if raw is None:
        raise JobNotFound(job_id)
    return raw.parse()


def batch_when_ended(
    session: Session, batch_id: str, timeout: float | None
) -> Flow[calls.BatchProgress]:
    """A batch's progress when all its jobs have ended, or as it is after `timeout` seconds.

    Raises JobNotFound.
    """
    progress: calls.BatchProgress | None = yield WaitFor(
        keys.wake(batch_id).within(session.key_prefix),
        calls.batch_progress(batch_id),
        lambda now: now is None or sum(now.counts.values()) >= now.total,
        timeout,
    )
    if progress is None:
        raise JobNotFound(batch_id, kind="batch")
    return progress


def _still(record: JobRecord, timeout: float | None) -> str:
    text = f"job {record.id} is still {record.status.value} after {timeout:g} s; it goes on"
    if record.status is JobStatus.QUEUED:
        return f"{text} (is a worker for model {record.model!r} running?)"
    return text


class Job(JobCore[Result], RunsBlocking):
    """A handle on one job."""

    _result_type = Result


class AsyncJob(JobCore[AsyncResult], RunsAsync):
    """A handle on one job; what talks to the service is awaited."""

    _result_type = AsyncResult


def jobs_by_id(
    session: Session, job_type: Callable[..., JobT], job_ids: Sequence[str]
) -> Flow[Sequence[JobT]]:
    """Handles with their records, in one round trip; None is the record of an unknown id.

    job_ids: or aliases.
    """
    records = yield Pipeline([calls.get(job_id) for job_id in job_ids])
    return [
        job_type(session, record, record.id if record else name)
        for name, record in zip(job_ids, records, strict=True)
    ]


class BatchCore(Generic[JobT]):
    """Jobs submitted together: one handle, one completion event."""

    _job_type: Callable[..., JobT]

    def __init__(self, session: Session, batch_id: str, jobs: Sequence[JobT]) -> None:
        self._session = session
        self._driver: Any = session.driver
        self.id = batch_id
        self.jobs = list(jobs)

    def __len__(self) -> int:
        return len(self.jobs)

    @operation
    def progress(self) -> Flow[calls.BatchProgress]:
        """How many of its jobs have ended, and how."""
        return (yield from self._progress(0, lambda _: True, 0))

    @operation
    def cancel(self) -> Flow[int]:
        """Take back every job that has not ended; how many those were."""
        statuses = yield Pipeline([calls.cancel(job.id) for job in self.jobs])
        return sum(status is JobStatus.CANCELED for status in statuses)

    def _ended_since(self, seen: int, timeout: float | None) -> Flow[Sequence[JobT]]:
        """The jobs that ended after the first `seen` ones; waits for at least one."""
        if seen:
            yield Sleep(_GATHER_S)
        progress = yield from self._progress(seen, lambda p: p is None or bool(p.ended), timeout)
        if not progress.ended:
            raise WaitTimeout(
                f"{len(self.jobs) - seen} of {len(self.jobs)} jobs of batch {self.id} have not ended "
                f"after {timeout:g} s; they go on"
            )
        return (yield from jobs_by_id(self._session, self._job_type, progress.ended))

    def _progress(
        self, seen: int, ready: Callable[[Any], bool], timeout: float | None
    ) -> Flow[calls.BatchProgress]:
        call = calls.batch_progress(self.id, seen)
        progress: calls.BatchProgress | None = yield WaitFor(
            keys.wake(self.id).within(self._session.key_prefix), call, ready, timeout
        )
        if progress is None:
            raise JobNotFound(self.id, kind="batch")
        return progress

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id}: {len(self.jobs)} jobs>"


class Batch(BatchCore[Job], RunsBlocking):
    """Jobs submitted together."""

    _job_type = Job

    def as_completed(self, timeout: float | None = DEFAULT_WAIT_S) -> Iterator[Job]:
        """Each job as it ends; WaitTimeout when none has ended for `timeout` seconds."""
        seen = 0
        while seen < len(self.jobs):
            ended = self._driver.drive(self._ended_since(seen, timeout))
            seen += len(ended)
            yield from ended


class AsyncBatch(BatchCore[AsyncJob], RunsAsync):
    """Jobs submitted together; what talks to the service is awaited."""

    _job_type = AsyncJob

    async def as_completed(self, timeout: float | None = DEFAULT_WAIT_S) -> AsyncIterator[AsyncJob]:
        """Each job as it ends; WaitTimeout when none has ended for `timeout` seconds."""
        seen = 0
        while seen < len(self.jobs):
            ended = await self._driver.drive(self._ended_since(seen, timeout))
            seen += len(ended)
            for job in ended:
                yield job
