"""Drivers that reach Redis: calls to the ledger, and waits that its messages wake."""

from __future__ import annotations

from typing import Any

from maskq.client.operations.flow import (
    AsyncDriver,
    BlockingDriver,
    Deadline,
    Effect,
    Pipeline,
    WaitFor,
)
from maskq.client.waiting.wake_task import WakeTask
from maskq.client.waiting.wake_thread import WakeThread
from maskq.ledger import AsyncLedger, Ledger
from maskq.ledger.calls import Call
from maskq.per_process import PerLoop, PerProcess


class DirectDriver(BlockingDriver):
    """Blocks. Thread-safe."""

    def __init__(self, ledger: Ledger, wake: PerProcess[WakeThread]) -> None:
        self._ledger = ledger
        self._wake = wake

    def perform(self, effect: Effect) -> Any:
        match effect:
            case Call():
                return self._ledger.run(effect)
            case Pipeline():
                return self._ledger.run_many(effect.calls)
            case WaitFor():
                return self._wait_for(effect)
        raise TypeError(f"a direct client performs no {type(effect).__name__}")

    def _wait_for(self, effect: WaitFor) -> Any:
        deadline = Deadline(effect.timeout_s)
        answer = self._ledger.run(effect.call)
        if effect.ready(answer) or deadline.is_over:
            return answer
        woken, answer = self._wake.get().wait(
            effect.channel, effect.call, effect.ready, deadline.left_s
        )
        return answer if woken else self._ledger.run(effect.call)


class DirectAsyncDriver(AsyncDriver):
    """Awaits; each event loop has its own connections."""

    def __init__(self, ledger: AsyncLedger, wake: PerLoop[WakeTask]) -> None:
        self._ledger = ledger
        self._wake = wake

    async def perform(self, effect: Effect) -> Any:
        match effect:
            case Call():
                return await self._ledger.run(effect)
            case Pipeline():
                return await self._ledger.run_many(effect.calls)
            case WaitFor():
                return await self._wait_for(effect)
        raise TypeError(f"a direct client performs no {type(effect).__name__}")

    async def _wait_for(self, effect: WaitFor) -> Any:
        deadline = Deadline(effect.timeout_s)
        answer = await self._ledger.run(effect.call)
        if effect.ready(answer) or deadline.is_over:
            return answer
        woken, answer = await self._wake.get().wait(
            effect.channel, effect.call, effect.ready, deadline.left_s
        )
        return answer if woken else await self._ledger.run(effect.call)
