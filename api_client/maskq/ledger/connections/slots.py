"""Limit the connections that one client uses at a time: further calls wait instead of failing.

This is separate from redis-py's pools, since Sentinel's pool has no blocking variant. Calls that wait
in Redis for an event (XREAD BLOCK) have slots of their own, so ordinary calls never wait for readers.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from maskq.errors import ClientUnusable, StoreUnavailable

T = TypeVar("T")

CALLS = 64  # at a time
READERS = 64
CONNECTIONS = CALLS + READERS + 8  # those and the ones that are subscribed; the pool's own limit
_PATIENCE_S = 20.0  # for a place
_AGAIN_S = 0.02


def _shares(connections: int) -> tuple[int, int]:
    """Calls and readers at a time, where the URL allows fewer connections (`?max_connections=`)."""
    if connections >= CONNECTIONS:
        return CALLS, READERS
    calls = max(1, (connections - 1) * 2 // 3)
    return calls, max(1, connections - 1 - calls)


def _busy(calls: int) -> StoreUnavailable:
    return StoreUnavailable(
        f"this client has {calls} calls to Redis in progress, and none ended for {_PATIENCE_S:g} s: "
        f"Redis answers slowly, or too many threads or tasks share one client; call again later, or "
        f"use several processes"
    )


class Slots:
    """Slots for threads."""

    def __init__(self, connections: int) -> None:
        self._number, readers = _shares(connections)
        self._calls = threading.BoundedSemaphore(self._number)
        self._readers = threading.BoundedSemaphore(readers)

    @contextmanager
    def call(self) -> Iterator[None]:
        """Hold a slot. Raises StoreUnavailable if none becomes free."""
        if not self._calls.acquire(timeout=_PATIENCE_S):
            raise _busy(self._number)
        try:
            yield
        finally:
            self._calls.release()

    @contextmanager
    def reader(self, waits_s: float) -> Iterator[bool]:
        """Hold a reader's slot; False if none becomes free while the call would wait in Redis."""
        free = self._readers.acquire(timeout=waits_s)
        try:
            yield free
        finally:
            if free:
                self._readers.release()


class AsyncSlots:
    """Slots for the tasks of one event loop."""

    def __init__(self, connections: int) -> None:
        self._number, readers = _shares(connections)
        self._calls = asyncio.Semaphore(self._number)
        self._readers = asyncio.Semaphore(readers)

    async def take_call(self) -> Callable[[], None]:
        """Take a slot; returns what releases it. Raises StoreUnavailable if none becomes free."""
        if not await _acquired(self._calls, _PATIENCE_S):
            raise _busy(self._number)
        return self._calls.release

    async def take_reader(self, waits_s: float) -> Callable[[], None] | None:
        """The same for one that waits in Redis; None where no place comes free within as long as it
        would wait."""
        return self._readers.release if await _acquired(self._readers, waits_s) else None


async def _acquired(semaphore: asyncio.Semaphore, timeout_s: float) -> bool:
    if not semaphore.locked():
        return await semaphore.acquire()
    try:
        async with asyncio.timeout(timeout_s):
            return await semaphore.acquire()
    except TimeoutError:
        return False


async def apart(
    work: Coroutine[Any, Any, T],
    tasks: set[asyncio.Task[Any]],
    then: Callable[[], None],
    *,
    stop: bool,
) -> T:
    """The result of `work`, run in a task of its own; `then` is called at its end.

    A cancellation ends the await at once and is never lost: redis-py, which loses some on Python 3.11
    (`asyncio.wait_for`), does not see it. The work itself goes on, so its connection is never left
    half-way through an answer; unless it has to `stop`, because it waits for long.
    """
    task = asyncio.create_task(work)
    tasks.add(task)
    task.add_done_callback(lambda _: then())
    task.add_done_callback(tasks.discard)
    try:
        await asyncio.wait((task,))
    except asyncio.CancelledError:
        task.add_done_callback(_heeded)
        if stop:
            end(task)
        raise
    if task.cancelled():
        raise ClientUnusable("the client was closed while a call was in progress")
    return task.result()


def end(task: asyncio.Task[Any]) -> None:
    """Cancel a task until it ends: redis-py may lose a cancellation."""
    if not task.done():
        task.cancel()
        task.get_loop().call_later(_AGAIN_S, end, task)


def _heeded(task: asyncio.Task[Any]) -> None:
    """Take the error of a task that nobody awaits any more."""
    if not task.cancelled():
        task.exception()
