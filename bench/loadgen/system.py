"""The system under test: LoadGen's samples become jobs of the client."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from maskq import AsyncClient

WAIT_S = 3600.0  # until the next job of a query ends


class Sample(Protocol):
    """mlperf_loadgen.QuerySample."""

    id: int  # of this request
    index: int  # of the image


Complete = Callable[[int], None]  # tells LoadGen that the sample with this id is complete


class System:
    """Takes queries in LoadGen's thread and serves them in an event loop of another thread.

    LoadGen's callback only hands the query over. One client, with one subscription, waits for all jobs.
    """

    def __init__(
        self,
        client: AsyncClient,
        loop: asyncio.AbstractEventLoop,
        uris: Sequence[str],
        complete: Complete,
    ) -> None:
        """uris: of the images, by sample index."""
        self._client = client
        self._loop = loop
        self._uris = uris
        self._complete = complete
        self.arrivals_s: list[float] = []  # of the queries, by time.perf_counter()
        self.failures: list[Exception] = []

    def issue_query(self, samples: Sequence[Sample]) -> None:
        """Called by LoadGen; returns at once."""
        self.arrivals_s.append(time.perf_counter())
        wanted = {sample.id: self._uris[sample.index] for sample in samples}
        asyncio.run_coroutine_threadsafe(self._serve(wanted), self._loop)

    async def _serve(self, wanted: Mapping[int, str]) -> None:
        """Completes each sample once, failed ones too, because LoadGen waits for all.

        wanted: URIs by sample id.
        """
        left = dict.fromkeys(wanted)
        try:
            async for sample in self._ended(wanted):
                self._complete(sample)
                del left[sample]
        except Exception as error:  # noqa: BLE001 -- reported when LoadGen has returned
            self.failures.append(error)
            for sample in left:
                self._complete(sample)

    async def _ended(self, wanted: Mapping[int, str]) -> Any:
        """Yields the sample ids as their jobs succeed. Raises JobFailed for one that does not."""
        if len(wanted) == 1:
            ((sample, uri),) = wanted.items()
            job = await self._client.submit(uri)
            await job.wait(WAIT_S)
            yield sample
            return
        batch = await self._client.submit_many([*wanted.values()])
        samples = {job.id: sample for job, sample in zip(batch.jobs, wanted, strict=True)}
        async for job in batch.as_completed(WAIT_S):
            job.result()
            yield samples[job.id]


@contextmanager
def event_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """A loop that runs in a thread of its own until the block ends."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="jobs", daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def run_in(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any]) -> Any:
    """Awaits `work` in the loop's thread and returns its result."""
    return asyncio.run_coroutine_threadsafe(work, loop).result()
