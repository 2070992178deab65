"""AsyncClient: what `Client` does, awaited."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Self, Unpack

from maskq.client.batch import AsyncBatch
from maskq.client.bulk import CHUNK, Submission
from maskq.client.events import TAKE_OVER_S, EventFilter, left_s_of
from maskq.client.image_source import ImageSource
from maskq.client.job import DEFAULT_WAIT_S, AsyncJob
from maskq.client.operations.client_core import ClientCore
from maskq.client.operations.connecting import async_session
from maskq.client.operations.flow import RunsAsync
from maskq.client.operations.former_names import accept_former_names
from maskq.client.operations.jobs import PAGE
from maskq.client.results.result import AsyncResult
from maskq.contract import Event, FailureCode, JobRecord, JobStatus
from maskq.contract.options import Options
from maskq.errors import StoreUnavailable

if TYPE_CHECKING:
    from maskq.client.direct.session import AsyncSession


class AsyncClient(ClientCore[AsyncJob, AsyncBatch], RunsAsync):
    """Client, awaited, in any number of event loops; close it, or use `async with`."""

    _job_type = AsyncJob
    _batch_type = AsyncBatch
    session: AsyncSession  # over HTTP an HttpSession, which refuses what needs Redis
    _open_session = staticmethod(async_session)

    @accept_former_names
    async def segment(
        self,
        image: ImageSource,
        *,
        timeout: float | None = DEFAULT_WAIT_S,
        idempotency_key: str | None = None,
        durable: bool = False,
        queue_full_timeout: float | None = 0.0,
        **options: Unpack[Options],
    ) -> AsyncResult:
        """Submit an image and wait for its result; see `submit` and `AsyncJob.wait`."""
        job = await self.submit(
            image,
            idempotency_key=idempotency_key,
            durable=durable,
            queue_full_timeout=queue_full_timeout,
            **options,
        )
        return await job.wait(timeout)

    @accept_former_names
    async def submit_each(
        self,
        images: Iterable[ImageSource],
        *,
        run_id: str | None = None,
        durable: bool = False,
        queue_full_timeout: float | None = None,
        chunk: int = CHUNK,
        **options: Unpack[Options],
    ) -> AsyncIterator[Submission[AsyncJob]]:
        """Submit any number of images; see Client.submit_each."""
        for step in self._bulk(run_id, durable, queue_full_timeout, chunk, options).steps(images):
            for _, submission in await self._driver.drive(step):
                yield self._named(submission)

    async def events(
        self,
        since: str | None = None,
        *,
        types: Iterable[str] | None = None,
        job_ids: Iterable[str] | None = None,
        idle: float | None = None,
        group: str | None = None,
        take_over: float = TAKE_OVER_S,
    ) -> AsyncIterator[Event]:
        """Iterate over events as they arrive; see Client.events."""
        wanted = EventFilter.of(types, job_ids)
        deployment = self.session.deployment
        wanted = await self._driver.drive(wanted.resolved(deployment.records))
        source = deployment.reader(wanted, since, group, take_over)
        await self._driver.drive(source.open())
        last = time.monotonic()
        try:
            while (left_s := left_s_of(last, idle)) is None or left_s > 0:
                for event in await self._driver.drive(source.read(left_s)):
                    if wanted.passes(event):
                        yield event
                        last = time.monotonic()
                    await self._driver.drive(source.confirm(event))
        finally:
            with suppress(StoreUnavailable):
                await self._driver.drive(source.close())

    async def list_all(
        self,
        *,
        status: JobStatus | str | None = None,
        code: FailureCode | str | None = None,
        model: str | None = None,
        tenant: str | None = None,
        batch_id: str | None = None,
        ended_since: datetime | float | None = None,
    ) -> AsyncIterator[JobRecord]:
        """Iterate over all records that `list` finds; see Client.list_all."""
        cursor = ""
        while True:
            page = await self.list(
                status=status,
                code=code,
                model=model,
                tenant=tenant,
                batch_id=batch_id,
                ended_since=ended_since,
                limit=PAGE,
                cursor=cursor,
            )
            for record in page.records:
                yield record
            if not (cursor := page.cursor):
                return

    async def close(self) -> None:
        """Close the connections. A client that is used again connects again."""
        await self.session.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
