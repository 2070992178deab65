"""What a client shares with its jobs, batches and results: settings, ledger, object store, waits.

A client may be made at import, before a fork, or in one thread of many. So a session connects at the
first use, and each process and event loop connects by itself (`maskq.per_process`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from maskq.client.objects import Objects
from maskq.client.operations.flow import AsyncDriver, BlockingDriver, Flow
from maskq.client.waiting.wake_task import WakeTask
from maskq.client.waiting.wake_thread import WakeThread
from maskq.contract.locations import S3Uri
from maskq.contract.storage_layout import StorageLayout
from maskq.errors import InvalidRequest
from maskq.ledger import AsyncLedger, Ledger, calls
from maskq.per_process import PerLoop, PerProcess

if TYPE_CHECKING:
    from maskq.ledger.calls import Call
    from maskq.settings import Settings

T = TypeVar("T")


class Session:
    """The part that blocking and async clients have in common."""

    driver: Any

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.key_prefix = settings.key_prefix
        self.limits = calls.Limits.of(settings)
        self.objects = Objects(settings.s3_endpoint_url, settings.s3_addressing)
        self.layout = StorageLayout(S3Uri(settings.s3_bucket, settings.output_prefix))

    def __reduce__(self) -> NoReturn:
        raise InvalidRequest(
            "jobs, batches and results cannot be pickled, because they hold connections: send the "
            "job's id and call client.get(job_id) on the other side; a Client can be pickled"
        )


class BlockingSession(Session):
    """The session of a Client. Thread-safe and fork-safe."""

    driver: BlockingDriver

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.ledger = ledger = Ledger.of(settings)
        self._wake = PerProcess(lambda: WakeThread(ledger))
        self.driver = BlockingDriver(ledger, self._wake)

    def run(self, call: Call[T]) -> T:
        """Run one call to the ledger; returns its answer."""
        return self.ledger.run(call)

    def drive(self, flow: Flow[T]) -> T:
        """Run a flow; returns what it returns."""
        return self.driver.drive(flow)

    def close(self) -> None:
        """Close this process's connections; the next use connects again."""
        if wake := self._wake.take():
            wake.close()
        self.ledger.close()
        self.objects.close()


class AsyncSession(Session):
    """The session of an AsyncClient. Event loops, threads and processes may share it."""

    driver: AsyncDriver

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.ledger = ledger = AsyncLedger.of(settings)
        self._wake = PerLoop(lambda: WakeTask(ledger), WakeTask.close)
        self.driver = AsyncDriver(ledger, self._wake)

    async def run(self, call: Call[T]) -> T:
        """Run one call to the ledger; returns its answer."""
        return await self.ledger.run(call)

    async def drive(self, flow: Flow[T]) -> T:
        """Run a flow; returns what it returns."""
        return await self.driver.drive(flow)

    async def close(self) -> None:
        """Close the event loops' connections; the next use connects again."""
        await self._wake.close()
        await self.ledger.close()
        self.objects.close()
