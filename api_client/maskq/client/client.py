"""Client: submit, wait, read. It blocks; `AsyncClient` has the same names, awaited."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Self, Unpack

from maskq.client.batch import Batch
from maskq.client.bulk import CHUNK, Submission
from maskq.client.events import TAKE_OVER_S, EventFilter, left_s_of
from maskq.client.image_source import ImageSource
from maskq.client.job import DEFAULT_WAIT_S, Job
from maskq.client.operations.client_core import ClientCore
from maskq.client.operations.connecting import blocking_session
from maskq.client.operations.flow import RunsBlocking
from maskq.client.operations.former_names import accept_former_names
from maskq.client.operations.jobs import PAGE
from maskq.client.results.result import Result
from maskq.contract import Event, FailureCode, JobRecord, JobStatus
from maskq.contract.options import Options
from maskq.errors import StoreUnavailable

if TYPE_CHECKING:
    from maskq.client.direct.session import BlockingSession


class Client(ClientCore[Job, Batch], RunsBlocking):
    """Submits jobs and reads their results. Thread-safe and fork-safe; close it, or use `with`."""

    _job_type = Job
    _batch_type = Batch
    session: BlockingSession  # over HTTP an HttpSession, which refuses what needs Redis
    _open_session = staticmethod(blocking_session)

    @accept_former_names
    def segment(
        self,
        image: ImageSource,
        *,
        timeout: float | None = DEFAULT_WAIT_S,
        idempotency_key: str | None = None,
        durable: bool = False,
        queue_full_timeout: float | None = 0.0,
        **options: Unpack[Options],
    ) -> Result:
        """Submit an image and wait for its result; see `submit` and `Job.wait`."""
        job = self.submit(
            image,
            idempotency_key=idempotency_key,
            durable=durable,
            queue_full_timeout=queue_full_timeout,
            **options,
        )
        return job.wait(timeout)

    @accept_former_names
    def submit_each(
        self,
        images: Iterable[ImageSource],
        *,
        run_id: str | None = None,
        durable: bool = False,
        queue_full_timeout: float | None = None,
        chunk: int = CHUNK,
        **options: Unpack[Options],
    ) -> Iterator[Submission[Job]]:
        """Submit any number: `for image, job, error in client.submit_each(images, run_id="may")`.

        The iterator takes images as it needs them and submits `chunk` at a time. It yields each image
        with its `job`, or with the `error` that it got instead (InvalidRequest, IdempotencyConflict,
        QueueFull); an error does not stop the others.

        `queue_full_timeout`: seconds to wait while a full queue takes no job (default: no limit). If
        Redis or S3 becomes unavailable during the run, the client retries for a minute.

        `run_id` names the run: within it each image is submitted once. After a crash, start again from
        the first image with the same `run_id`. It is also the jobs' `batch_id`, for `list` and `batch`.

        Raises UnknownModel, StoreUnavailable, InvalidRequest for an option.
        """
        for step in self._bulk(run_id, durable, queue_full_timeout, chunk, options).steps(images):
            for _, submission in self._driver.drive(step):
                yield self._named(submission)

    def events(
        self,
        since: str | None = None,
        *,
        types: Iterable[str] | None = None,
        job_ids: Iterable[str] | None = None,
        idle: float | None = None,
        group: str | None = None,
        take_over: float = TAKE_OVER_S,
    ) -> Iterator[Event]:
        """Iterate over events as they arrive.

        `since`: the cursor to continue after; '0': every event that is kept; default: new events only.
        `types`: only these, as 'job.succeeded' or 'maskq.job.succeeded'. `job_ids`: only these jobs.
        `idle`: end after so many seconds without an event; default: never end.

        `group`: readers with the same group name share the events. Asking for the next event confirms
        the last one. An event that is not confirmed within `take_over` seconds goes to another reader.
        For a new group `since` says where it starts.

        Raises EventsLost if events were trimmed before they were read: use `list(ended_since=…)` to
        find the jobs that ended meanwhile, then read new events.
        """
        wanted = EventFilter.of(types, job_ids)
        deployment = self.session.deployment
        wanted = self._driver.drive(wanted.resolved(deployment.records))
        source = deployment.reader(wanted, since, group, take_over)
        self._driver.drive(source.open())
        last = time.monotonic()
        try:
            while (left_s := left_s_of(last, idle)) is None or left_s > 0:
                for event in self._driver.drive(source.read(left_s)):
                    if wanted.passes(event):
                        yield event
                        last = time.monotonic()
                    self._driver.drive(source.confirm(event))
        finally:
            with suppress(StoreUnavailable):
                self._driver.drive(source.close())

    def list_all(
        self,
        *,
        status: JobStatus | str | None = None,
        code: FailureCode | str | None = None,
        model: str | None = None,
        tenant: str | None = None,
        batch_id: str | None = None,
        ended_since: datetime | float | None = None,
    ) -> Iterator[JobRecord]:
        """Iterate over all records that `list` finds; reads a page at a time as they are needed.

        Jobs that are submitted meanwhile may be missing.
        """
        cursor = ""
        while True:
            page = self.list(
                status=status,
                code=code,
                model=model,
                tenant=tenant,
                batch_id=batch_id,
                ended_since=ended_since,
                limit=PAGE,
                cursor=cursor,
            )
            yield from page.records
            if not (cursor := page.cursor):
                return

    def close(self) -> None:
        """Close the connections. A client that is used again connects again."""
        self.session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
