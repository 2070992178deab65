"""uvicorn in a thread of this process, which ends within milliseconds."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn.server

FASTER = 20


class _Asyncio:
    """asyncio for uvicorn.server, whose pauses are shorter. It looks ten times a second whether to end,
    and then waits a tenth of a second for its connections: 50 s of a run of all tests."""

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / FASTER)


uvicorn.server.asyncio = _Asyncio()  # type: ignore[attr-defined]


@contextmanager
def running(
    config: uvicorn.Config, bound: socket.socket
) -> Iterator[tuple[uvicorn.Server, threading.Thread]]:
    """The server and its thread. bound: where it listens."""
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
    thread.start()
    try:
        yield server, thread
    finally:
        server.should_exit = True
        thread.join()
