"""A handle on jobs that were submitted together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from maskq.client.job import DEFAULT_WAIT_S, AsyncJob, Job, JobCore
from maskq.client.operations.flow import Flow, RunsAsync, RunsBlocking, Sleep, operation
from maskq.errors import JobNotFound, WaitTimeout
from maskq.ledger.calls import BatchProgress

if TYPE_CHECKING:
    from maskq.client.session import Session

JobT = TypeVar("JobT", bound=JobCore[Any])

_GATHER_S: Final = 0.03  # jobs that end within this time are fetched together


def batch_when_ended(session: Session, batch_id: str, timeout: float | None) -> Flow[BatchProgress]:
    """A batch's progress once all its jobs have ended, or after `timeout` seconds.

    Raises JobNotFound.
    """
    progress = yield from session.deployment.batch_when_ended(batch_id, timeout)
    if progress is None:
        raise JobNotFound(batch_id, kind="batch")
    return progress


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
    def progress(self) -> Flow[BatchProgress]:
        """The number of its jobs that have ended, by status."""
        progress = yield from self._session.deployment.batch_progress(self.id)
        if progress is None:
            raise JobNotFound(self.id, kind="batch")
        return progress

    @operation
    def cancel(self) -> Flow[int]:
        """Cancel every job that has not ended. Returns their number."""
        job_ids = [job.id for job in self.jobs]
        return (yield from self._session.deployment.cancel_batch(self.id, job_ids))

    def _ended_since(self, seen: int, timeout: float | None) -> Flow[Sequence[JobT]]:
        """The jobs that ended after the first `seen` ones; waits for at least one."""
        if seen:
            yield Sleep(_GATHER_S)
        records = yield from self._session.deployment.ended_in_batch(self.id, seen, timeout)
        if records is None:
            raise JobNotFound(self.id, kind="batch")
        if not records:
            raise WaitTimeout(
                f"{len(self.jobs) - seen} of {len(self.jobs)} jobs of batch {self.id} have not ended "
                f"after {timeout:g} s; they continue"
            )
        return [self._job_type(self._session, record, name) for name, record in records.items()]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id}: {len(self.jobs)} jobs>"


class Batch(BatchCore[Job], RunsBlocking):
    """Jobs submitted together."""

    _job_type = Job

    def as_completed(self, timeout: float | None = DEFAULT_WAIT_S) -> Iterator[Job]:
        """Yield each job when it ends. Raises WaitTimeout if none ends for `timeout` seconds."""
        seen = 0
        while seen < len(self.jobs):
            ended = self._driver.drive(self._ended_since(seen, timeout))
            seen += len(ended)
            yield from ended


class AsyncBatch(BatchCore[AsyncJob], RunsAsync):
    """Jobs submitted together; operations are awaited."""

    _job_type = AsyncJob

    async def as_completed(self, timeout: float | None = DEFAULT_WAIT_S) -> AsyncIterator[AsyncJob]:
        """Yield each job when it ends. Raises WaitTimeout if none ends for `timeout` seconds."""
        seen = 0
        while seen < len(self.jobs):
            ended = await self._driver.drive(self._ended_since(seen, timeout))
            seen += len(ended)
            for job in ended:
                yield job
