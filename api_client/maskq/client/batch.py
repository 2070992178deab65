"""A handle on jobs that were submitted together."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, Generic, TypeAlias, TypeVar

from maskq.client.job import DEFAULT_WAIT_S, AsyncJob, Job, JobCore
from maskq.client.operations.flow import (
    Deadline,
    Flow,
    RunsAsync,
    RunsBlocking,
    Sleep,
    operation,
)
from maskq.client.results.result import AsyncResult, Result
from maskq.client.waiting.live import BatchBar, in_notebook
from maskq.contract import JobStatus
from maskq.errors import JobNotFound, WaitTimeout
from maskq.ledger.calls import BatchProgress

if TYPE_CHECKING:
    from maskq.client.session import Session

JobT = TypeVar("JobT", bound=JobCore[Any])
ResultT = TypeVar("ResultT")
OnProgress: TypeAlias = Callable[[BatchProgress], object]

_GATHER_S: Final = 0.03  # jobs that end within this time are fetched together


def batch_when_ended(session: Session, batch_id: str, timeout: float | None) -> Flow[BatchProgress]:
    """A batch's progress once all its jobs have ended, or after `timeout` seconds.

    Raises JobNotFound.
    """
    progress = yield from session.deployment.batch_when_ended(batch_id, timeout)
    if progress is None:
        raise JobNotFound(batch_id, kind="batch")
    return progress


class BatchCore(Generic[JobT, ResultT]):
    """Jobs submitted together: one handle, one completion event. Iterate over it for its jobs."""

    _job_type: Callable[..., JobT]

    def __init__(self, session: Session, batch_id: str, jobs: Sequence[JobT]) -> None:
        self._session = session
        self._driver: Any = session.driver
        self.id = batch_id
        self.jobs = list(jobs)

    def __len__(self) -> int:
        return len(self.jobs)

    def __iter__(self) -> Iterator[JobT]:
        """The jobs, in the order of their images."""
        return iter(self.jobs)

    @operation
    def progress(self) -> Flow[BatchProgress]:
        """The number of its jobs that have ended, by status."""
        progress = yield from self._session.deployment.batch_progress(self.id)
        if progress is None:
            raise JobNotFound(self.id, kind="batch")
        return progress

    @operation
    def wait(
        self,
        timeout: float | None = DEFAULT_WAIT_S,
        *,
        on_progress: OnProgress | None = None,
    ) -> Flow[BatchProgress]:
        """Wait until all its jobs have ended, successfully or not; `jobs` then have their records.

        `timeout`: seconds for all together; None: no limit. `on_progress`: called with the progress at
        the start and whenever jobs have ended; default: a notebook shows a bar. Raises WaitTimeout,
        JobNotFound.
        """
        return (yield from self._wait(timeout, on_progress))

    @operation
    def results(
        self,
        timeout: float | None = DEFAULT_WAIT_S,
        *,
        on_progress: OnProgress | None = None,
    ) -> Flow[list[ResultT]]:
        """Wait as `wait` does, and return the results in the order of the images.

        Raises JobFailed for the first image whose job ended without a result. To get the other results,
        iterate over the batch after `wait`.
        """
        yield from self._wait(timeout, on_progress)
        for job in self.jobs:
            if job.record is None:
                raise JobNotFound(job.id)  # deleted since
        return [job.result() for job in self.jobs]

    @operation
    def cancel(self) -> Flow[int]:
        """Cancel every job that has not ended. Returns their number."""
        job_ids = [job.id for job in self.jobs]
        return (yield from self._session.deployment.cancel_batch(self.id, job_ids))

    def _wait(self, timeout: float | None, on_progress: OnProgress | None) -> Flow[BatchProgress]:
        deadline = Deadline(timeout)
        tell = on_progress or shown_live(self.id)
        counts: Counter[JobStatus] = Counter()
        seen: list[str] = []
        while True:
            progress = BatchProgress(len(self.jobs), dict(counts), tuple(seen))
            tell(progress)
            if len(seen) >= len(self.jobs):
                return progress
            ended = yield from self._some_ended(len(seen), deadline.left_s)
            if not ended:
                raise WaitTimeout(self._not_ended(len(seen), timeout))
            seen += (job.id for job in ended)
            counts.update(job.status for job in ended if job.record)

    def _ended_since(self, seen: int, timeout: float | None) -> Flow[Sequence[JobT]]:
        """The jobs that ended after the first `seen` ones. Raises WaitTimeout if none does."""
        ended = yield from self._some_ended(seen, timeout)
        if not ended:
            raise WaitTimeout(self._not_ended(seen, timeout))
        return ended

    def _some_ended(self, seen: int, timeout_s: float | None) -> Flow[Sequence[JobT]]:
        """The jobs that ended after the first `seen` ones; waits for one of them.

        Their handles, which have records, replace those in `jobs`.
        """
        if seen:
            yield Sleep(_GATHER_S)
        records = yield from self._session.deployment.ended_in_batch(self.id, seen, timeout_s)
        if records is None:
            raise JobNotFound(self.id, kind="batch")
        ended = {name: self._job_type(self._session, one, name) for name, one in records.items()}
        self.jobs[:] = [ended.get(job.id, job) for job in self.jobs]
        return list(ended.values())

    def _not_ended(self, seen: int, timeout: float | None) -> str:
        return (
            f"{len(self.jobs) - seen} of {len(self.jobs)} jobs of batch {self.id} have not ended after "
            f"{timeout:g} s; they continue"
        )

    def _repr_html_(self) -> str:
        from maskq.view.tables import jobs_html

        title = f"batch {self.id}: {len(self.jobs)} jobs"
        return jobs_html(title, [(job.id, job.record) for job in self.jobs])

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id}: {len(self.jobs)} jobs>"


def shown_live(batch_id: str) -> OnProgress:
    """Shows progress in a notebook, elsewhere nothing."""
    if not in_notebook():
        return lambda progress: None
    return BatchBar(f"batch {batch_id}")


class Batch(BatchCore[Job, Result], RunsBlocking):
    """Jobs submitted together. Iterate over it for its jobs."""

    _job_type = Job

    def as_completed(self, timeout: float | None = DEFAULT_WAIT_S) -> Iterator[Job]:
        """Yield each job when it ends. Raises WaitTimeout if none ends for `timeout` seconds."""
        seen = 0
        while seen < len(self.jobs):
            ended = self._driver.drive(self._ended_since(seen, timeout))
            seen += len(ended)
            yield from ended


class AsyncBatch(BatchCore[AsyncJob, AsyncResult], RunsAsync):
    """Jobs submitted together; operations are awaited. Iterate over it for its jobs."""

    _job_type = AsyncJob

    async def as_completed(self, timeout: float | None = DEFAULT_WAIT_S) -> AsyncIterator[AsyncJob]:
        """Yield each job when it ends. Raises WaitTimeout if none ends for `timeout` seconds."""
        seen = 0
        while seen < len(self.jobs):
            ended = await self._driver.drive(self._ended_since(seen, timeout))
            seen += len(ended)
            for job in ended:
                yield job
