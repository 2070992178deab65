"""A handle on one job."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from maskq.client.operations.flow import Flow, RunsAsync, RunsBlocking, operation
from maskq.client.results.result import AsyncResult, Result
from maskq.contract import JobRecord, JobStatus
from maskq.errors import JobFailed, JobNotFound, WaitTimeout

if TYPE_CHECKING:
    from maskq.client.session import Session

ResultT = TypeVar("ResultT")
JobT = TypeVar("JobT", bound="JobCore[Any]")

DEFAULT_WAIT_S = 600.0


class JobCore(Generic[ResultT]):
    """A job's last known record, and the operations on the job."""

    _result_type: Callable[..., ResultT]

    def __init__(
        self,
        session: Session,
        record: JobRecord | None,
        job_id: str,
        source: str | None = None,
    ) -> None:
        """source: what the record will name as the job's source, if that is known."""
        self._session = session
        self._driver: Any = session.driver
        self._record = record
        self._source = source
        self.id = job_id

    @property
    def record(self) -> JobRecord | None:
        """The last record read; None before the first `refresh`, `done`, `wait` or `cancel`."""
        return self._record

    @property
    def source(self) -> str | None:
        """What the job was made from: `s3://bucket/key`, a URL without its secrets, or the file name.

        A place in S3 ends in `?versionId=…` if the request names a version. None: not known before
        the first record is read.
        """
        return self._record.source if self._record else self._source

    @property
    def status(self) -> JobStatus:
        """The status in the last record read; QUEUED before the first."""
        return self._record.status if self._record else JobStatus.QUEUED

    @operation
    def refresh(self) -> Flow[JobRecord]:
        """Read the record again and return it. Raises JobNotFound past its retention."""
        self._record = yield from self._look()
        return self._record

    @operation
    def done(self) -> Flow[bool]:
        """Whether the job has ended, successfully or not."""
        if not self._record or not self._record.ended:
            self._record = yield from self._look()
        return self._record.ended

    @operation
    def cancel(self) -> Flow[bool]:
        """Cancel the job, queued or running. Returns False if it has already ended otherwise."""
        is_canceled = yield from self._session.deployment.cancel(self.id)
        self._record = yield from self._look()
        return is_canceled

    @operation
    def delete(self) -> Flow[None]:
        """Delete the job; see Client.delete."""
        yield from self._session.deployment.delete(self.id)

    @operation
    def wait(self, timeout: float | None = DEFAULT_WAIT_S) -> Flow[ResultT]:
        """Wait until the job ends, and return its result.

        `timeout`: seconds; None: no limit. Raises JobFailed if the job ended without a result,
        WaitTimeout if it has not ended in time, JobNotFound for an unknown job.
        """
        self._record = record = yield from record_when_ended(self._session, self.id, timeout)
        if not record.ended:
            raise WaitTimeout(_still(record, timeout))
        return self.result()

    def result(self) -> ResultT:
        """The result in the last record read.

        Raises JobFailed if the job ended without one, WaitTimeout if it has not ended.
        """
        if self._record and self._record.ended and self._record.result is None:
            raise JobFailed(self._record, self)
        if not self._record or self._record.result is None:
            raise WaitTimeout(f"job {self.id} is {self.status.value}; wait() for its result")
        return type(self)._result_type(self._record, self._session)

    def _look(self) -> Flow[JobRecord]:
        record = (yield from self._session.deployment.records([self.id]))[self.id]
        if record is None:
            raise JobNotFound(self.id)
        return record

    def _repr_html_(self) -> str:
        from maskq.view.tables import jobs_html

        return jobs_html(f"job {self.id}", [(self.id, self._record)])

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id}: {self.status.value}>"


def record_when_ended(session: Session, job_id: str, timeout: float | None) -> Flow[JobRecord]:
    """The job's record once it has ended, or after `timeout` seconds. Raises JobNotFound."""
    return (yield from session.deployment.record_when_ended(job_id, timeout))


def _still(record: JobRecord, timeout: float | None) -> str:
    text = f"job {record.id} is still {record.status.value} after {timeout:g} s; it continues"
    if record.status is JobStatus.QUEUED:
        return f"{text} (is a worker for model {record.model!r} running?)"
    return text


class Job(JobCore[Result], RunsBlocking):
    """A handle on one job."""

    _result_type = Result


class AsyncJob(JobCore[AsyncResult], RunsAsync):
    """A handle on one job; its operations are awaited."""

    _result_type = AsyncResult


def jobs_by_id(
    session: Session, job_type: Callable[..., JobT], job_ids: Sequence[str]
) -> Flow[Sequence[JobT]]:
    """Handles on jobs, with their records, in one round trip; an unknown job has the record None.

    job_ids: ids or aliases.
    """
    records = yield from session.deployment.records(job_ids)
    return [
        job_type(session, record, record.id if record else name)
        for name, record in ((name, records[name]) for name in job_ids)
    ]
