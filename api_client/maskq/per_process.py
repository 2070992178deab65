"""What must not be shared: a value of its own for each process, and for each event loop.

A forked child inherits its parent's sockets, and locks that threads held which it does not have. So
connections, pools, locks and threads of client, ledger and store are kept in a `PerProcess`: the child
forgets the parent's at the fork and makes its own at the first use. Nothing of the parent's is closed
or finalised there: closing a shared socket properly (a TLS goodbye, `shutdown`) would end it for the
parent as well.
"""

from __future__ import annotations

import asyncio
import logging  # noqa: F401 - has to take its lock after ours when a process forks: see _before
import os
import threading
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Generic, TypeVar

from maskq.errors import ClientUnusable

T = TypeVar("T")

_LONGEST_S = 10.0  # that a fork waits for `no_fork`

_all: weakref.WeakSet[PerProcess[Any]] = weakref.WeakSet()
_abandoned: list[Any] = []  # the parent's, kept from being finalised in the child


class _Gate:
    """Held while something must not be cut in two by a fork."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.forking: set[int] = set()  # threads that hold it while they fork


_gate = _Gate()


@contextmanager
def no_fork() -> Iterator[None]:
    """A fork in another thread waits for the end of this block.

    For imports: a child that was forked during one finds the module locked for ever.
    """
    with _gate.lock:
        yield


def _before() -> None:
    # Such hooks run in the reverse order of their registration, so logging's lock is taken after ours,
    # and who holds ours can still log. Should somebody hold it for long, the fork goes on all the same.
    if _gate.lock.acquire(timeout=_LONGEST_S):
        _gate.forking.add(threading.get_ident())


def _in_parent() -> None:
    if threading.get_ident() in _gate.forking:
        _gate.forking.discard(threading.get_ident())
        _gate.lock.release()


def _in_child() -> None:
    global _gate
    _gate = _Gate()
    for one in list(_all):
        one._forget()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork either
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)


class PerProcess(Generic[T]):
    """A value that each process makes at its first use, once for all its threads."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._value: T | None = None
        self._lock = threading.Lock()
        _all.add(self)

    def get(self) -> T:
        """This process's value."""
        value = self._value
        if value is None:
            with self._lock:
                value = self._value
                if value is None:
                    value = self._value = self._make()
        return value

    def take(self) -> T | None:
        """Remove and return this process's value, or None; the caller closes it."""
        with self._lock:
            value, self._value = self._value, None
        return value

    def _forget(self) -> None:
        if self._value is not None:
            _abandoned.append(self._value)
        self._value = None
        self._lock = threading.Lock()  # another thread may have held the parent's


class PerLoop(Generic[T]):
    """A value that each event loop makes at its first use; closed at the end of `asyncio.run`."""

    def __init__(self, make: Callable[[], T], close: Callable[[T], Awaitable[None]]) -> None:
        self._make = make
        self._close = close
        self._entries: PerProcess[dict[asyncio.AbstractEventLoop, _Entry[T]]] = PerProcess(dict)

    def get(self) -> T:
        """The running loop's value. Raises ClientUnusable where no loop runs."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise ClientUnusable(
                "an AsyncClient works in a running asyncio event loop only: call it from a coroutine "
                "that asyncio.run() runs, in a forked child by an asyncio.run() of its own; elsewhere "
                "use Client"
            ) from None
        entries = self._entries.get()
        entry = entries.get(loop)
        if entry is None:
            for other in [other for other in list(entries) if other.is_closed()]:
                entries.pop(other, None)
            entry = entries[loop] = _Entry(self._make())
            entry.keeper = _kept(entry.value, self._close, lambda: entries.pop(loop, None))
            # From here on the loop knows it, and closes it when it shuts down its generators.
            with suppress(StopIteration):
                entry.keeper.__anext__().__await__().__next__()
        return entry.value

    async def close(self) -> None:
        """Close this loop's value, and have other loops that run close theirs."""
        entries = self._entries.get()
        here = asyncio.get_running_loop()
        for loop, entry in list(entries.items()):
            closing = entry.close()
            if loop is here:
                await closing
            elif loop.is_running():
                asyncio.run_coroutine_threadsafe(closing, loop)
            else:
                closing.close()
                entries.pop(loop, None)


class _Entry(Generic[T]):
    """A value, and the generator whose end closes it."""

    def __init__(self, value: T) -> None:
        self.value = value
        self.keeper: AsyncGenerator[None, None] | None = None

    async def close(self) -> None:
        if self.keeper:
            await self.keeper.aclose()


async def _kept(
    value: T, close: Callable[[T], Awaitable[None]], forget: Callable[[], Any]
) -> AsyncGenerator[None, None]:
    """Stands in its `yield` while the loop runs: `asyncio.run` ends generators before the loop."""
    try:
        yield
    finally:
        forget()
        await close(value)
