"""A handle on jobs that were submitted together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from maskq.client.job import DEFAULT_WAIT_S, AsyncJob, Job, JobCore, jobs_by_id
from maskq.client.operations.flow import (
    Flow,
    Pipeline,
    RunsAsync,
    RunsBlocking,
    Sleep,
    WaitFor,
    operation,
)
from maskq.contract import JobStatus
from maskq.errors import JobNotFound, WaitTimeout
from maskq.ledger import calls, keys

if TYPE_CHECKING:
    from maskq.client.session import Session

JobT = TypeVar("JobT", bound=JobCore[Any])

_GATHER_S: Final = 0.03  # jobs that end within this time are fetched together


def batch_when_ended(
    session: Session, batch_id: str, timeout: float | None
) -> Flow[calls.BatchProgress]:
    """A batch's progress once all its jobs have ended, or after `timeout` seconds.

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
        """The number of its jobs that have ended, by status."""
        return (yield from self._progress(0, lambda _: True, 0))

    @operation
    def cancel(self) -> Flow[int]:
        """Cancel every job that has not ended. Returns their number."""
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
                f"after {timeout:g} s; they continue"
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
