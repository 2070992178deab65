"""The waits of all tasks of an event loop: one task reads one subscribed connection for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from redis.asyncio.connection import AbstractConnection, ConnectionPool

from maskq.client.waiting.waits import RETRY_S, Wait, Waits
from maskq.errors import ClientUnusable
from maskq.ledger import AsyncLedger
from maskq.ledger.calls import Call
from maskq.ledger.connections.slots import end

_READ_S = 3600.0  # long enough: the ping detects silence earlier


class WakeTask:
    """For one event loop. The task runs while there are waits; the connection stays until `close`."""

    def __init__(self, ledger: AsyncLedger) -> None:
        self._ledger = ledger
        self._waits = Waits()
        self._connection: AbstractConnection | None = None  # subscribed
        self._pool: ConnectionPool | None = None  # that the connection belongs to
        self._task: asyncio.Task[None] | None = None
        self._bell = (
            asyncio.get_running_loop().create_future()
        )  # set when waits were added or removed

    async def wait(
        self,
        channel: str,
        call: Call[Any],
        ready: Callable[[Any], bool],
        timeout_s: float | None,
    ) -> tuple[bool, Any]:
        """Returns whether the answer was ready in time, and the answer. Raises what the call raises."""
        over = asyncio.get_running_loop().create_future()
        wait = Wait(channel, call, ready, partial(_set_done, over))
        self._waits.add(wait)
        self._ring()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._serve(), name="maskq-wake")
        try:
            # No other task uses this future, so a cancellation ends this await at once.
            await asyncio.wait((over,), timeout=timeout_s)
            return (True, wait.result()) if wait.over else (False, None)
        finally:
            self._waits.remove(wait)
            self._ring()

    async def close(self) -> None:
        """End all waits and release the connection."""
        self._waits.fail(ClientUnusable("the client was closed while a wait was in progress"))
        if self._task is not None:
            end(self._task)
            await asyncio.wait((self._task,))
        await self._drop()

    async def _serve(self) -> None:
        try:
            while self._waits:
                await self._listen()
        except Exception as error:  # noqa: BLE001 - no wait must outlive the task
            self._waits.fail(error)
        except asyncio.CancelledError:
            self._waits.fail(ClientUnusable("the task that listens for all waits was cancelled"))
            raise

    async def _listen(self) -> None:
        """Serve waits until there are none, or the connection is lost."""
        read: asyncio.Task[None] | None = None
        try:
            connection = self._connection or await self._connect()
            read = asyncio.create_task(self._read(connection))
            while self._waits:
                await asyncio.wait(
                    (read, self._bell),
                    timeout=self._waits.next_s(),
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if self._bell.done():
                    self._bell = asyncio.get_running_loop().create_future()
                if self._waits.has_changes:
                    await _send(connection, *self._waits.changes())
                if read.done():
                    read.result()
                if self._waits.ping_is_due():
                    await _send(connection, ("PING",))
                if self._waits.is_lost:
                    raise ConnectionError("the subscribed connection is silent")
                await self._look()
            if self._waits.has_changes:  # the last wait ended during a look
                await _send(connection, *self._waits.changes())
        except Exception:  # noqa: BLE001 - any error leads to a new connection
            await self._drop()
            await asyncio.sleep(RETRY_S)
            await self._look()  # the periodic check continues meanwhile
        finally:
            if read is not None:
                end(read)
                await asyncio.wait((read,))
                if not read.cancelled():
                    read.exception()

    async def _read(self, connection: AbstractConnection) -> None:
        """Take every message. Messages that arrive during a round trip share the next one."""
        while True:
            self._waits.heard(
                await connection.read_response(timeout=_READ_S, disconnect_on_error=False)
            )
            self._ring()

    def _ring(self) -> None:
        _set_done(self._bell)

    async def _look(self) -> None:
        due = self._waits.due()
        if not due:
            return
        outcomes: list[Any]
        try:
            outcomes = list(await self._ledger.run_each([wait.call for wait in due]))
        except Exception as error:  # noqa: BLE001 - each wait handles it
            outcomes = [error] * len(due)
        if self._waits.took(due, outcomes):
            await asyncio.sleep(RETRY_S)

    async def _connect(self) -> AbstractConnection:
        self._pool = self._ledger.redis.connection_pool
        connection: AbstractConnection = await self._pool.get_connection()
        self._connection = connection
        await _send(connection, *self._waits.connected())
        return connection

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None and self._pool is not None:
            with suppress(Exception):
                await connection.disconnect(nowait=True)
            with suppress(Exception):
                await self._pool.release(connection)


def _set_done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def _send(connection: AbstractConnection, *commands: tuple[str, ...]) -> None:
    for command in commands:
        await connection.send_command(*command, check_health=False)
