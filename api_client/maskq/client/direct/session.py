"""What a client that reaches Redis and S3 shares: settings, ledger, object store, waits.

A client may be made at import, before a fork, or in one thread of many. So a session connects at the
first use, and each process and event loop connects by itself (`maskq.per_process`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from maskq.client.direct.access import DirectAccess
from maskq.client.direct.deployment import DirectDeployment
from maskq.client.direct.drivers import DirectAsyncDriver, DirectDriver
from maskq.client.direct.objects import Objects
from maskq.client.operations.flow import Flow
from maskq.client.session import Session
from maskq.client.waiting.wake_task import WakeTask
from maskq.client.waiting.wake_thread import WakeThread
from maskq.contract.locations import S3Uri
from maskq.contract.storage_layout import StorageLayout
from maskq.ledger import AsyncLedger, Ledger, calls
from maskq.per_process import PerLoop, PerProcess

if TYPE_CHECKING:
    from maskq.ledger.calls import Call
    from maskq.s3.sources import S3Source
    from maskq.settings import Settings

T = TypeVar("T")


class DirectSession(Session):
    """The part that blocking and async clients have in common."""

    def __init__(self, settings: Settings, s3: S3Source | None = None) -> None:
        self.settings = settings
        self.key_prefix = settings.key_prefix
        self.limits = calls.Limits.of(settings)
        self.objects = Objects(settings.s3_endpoint_url, settings.s3_addressing, s3)
        self.layout = StorageLayout(S3Uri(settings.s3_bucket, settings.output_prefix))
        self.access = DirectAccess(self.objects, self.layout, self.limits)
        self.deployment = DirectDeployment(self.access, settings)


class BlockingSession(DirectSession):
    """The session of a Client. Thread-safe and fork-safe."""

    driver: DirectDriver

    def __init__(self, settings: Settings, s3: S3Source | None = None) -> None:
        super().__init__(settings, s3)
        self.ledger = ledger = Ledger.of(settings)
        self._wake = PerProcess(lambda: WakeThread(ledger))
        self.driver = DirectDriver(ledger, self._wake)

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


class AsyncSession(DirectSession):
    """The session of an AsyncClient. Event loops, threads and processes may share it."""

    driver: DirectAsyncDriver

    def __init__(self, settings: Settings, s3: S3Source | None = None) -> None:
        super().__init__(settings, s3)
        self.ledger = ledger = AsyncLedger.of(settings)
        self._wake = PerLoop(lambda: WakeTask(ledger), WakeTask.close)
        self.driver = DirectAsyncDriver(ledger, self._wake)

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
