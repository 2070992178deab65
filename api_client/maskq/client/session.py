"""What client, jobs, batches and results need from outside: settings, ledger, store, waits.

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
    """What does not depend on whether callers block or await."""

    driver: Any

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.key_prefix = settings.key_prefix
        self.limits = calls.Limits.of(settings)
        self.objects = Objects(settings.s3_endpoint_url, settings.s3_addressing)
        self.layout = StorageLayout(S3Uri(settings.s3_bucket, settings.output_prefix))

    def __reduce__(self) -> NoReturn:
        raise InvalidRequest(
            "jobs, batches and results cannot be pickled, they hold connections: send the job's id and "
            "call client.get(job_id) on the other side; a Client itself can be pickled"
        )


class BlockingSession(Session):
    """Of a Client; safe to share between threads, and across a fork."""

    driver: BlockingDriver

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.ledger = ledger = Ledger.of(settings)
        self._wake = PerProcess(lambda: WakeThread(ledger))
        self.driver = BlockingDriver(ledger, self._wake)

    def run(self, call: Call[T]) -> T:
        """The answer of one call to the ledger."""
        return self.ledger.run(call)

    def drive(self, flow: Flow[T]) -> T:
        """What a flow returns."""
        return self.driver.drive(flow)

    def close(self) -> None:
        """Give this process's connections back; who uses the session again connects again."""
        if wake := self._wake.take():
            wake.close()
        self.ledger.close()
        self.objects.close()


class AsyncSession(Session):
    """Of an AsyncClient; any number of event loops, threads and processes may share it."""

    driver: AsyncDriver

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.ledger = ledger = AsyncLedger.of(settings)
        self._wake = PerLoop(lambda: WakeTask(ledger), WakeTask.close)
        self.driver = AsyncDriver(ledger, self._wake)

    async def run(self, call: Call[T]) -> T:
        """The answer of one call to the ledger."""
        return await self.ledger.run(call)

    async def drive(self, flow: Flow[T]) -> T:
        """What a flow returns."""
        return await self.driver.drive(flow)

    async def close(self) -> None:
        """Give the event loops' connections back; who uses the session again connects again."""
        await self._wake.close()
        await self.ledger.close()
        self.objects.close()
