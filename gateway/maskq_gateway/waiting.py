"""Requests that wait for a job's or batch's end: outages meanwhile, and callers that go away."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from fastapi import Request

from maskq.contract.failures import FailureCode
from maskq.errors import StoreUnavailable

T = TypeVar("T")


@contextmanager
def outage_tolerated(*, waits: bool) -> Iterator[None]:
    """For a request that waits: what was read before an outage is its answer.

    The caller asks again, as it does if the job has not ended. A client with access to Redis tolerates
    an outage while it waits, too.
    """
    try:
        yield
    except StoreUnavailable as error:
        if not waits or error.code is not FailureCode.STORE_UNAVAILABLE:
            raise


async def while_connected(request: Request, waiting: Coroutine[Any, Any, T]) -> T | None:
    """What `waiting` returns; None if the caller closed the connection, which cancels it.

    The request's body must have been read.
    """
    gone = asyncio.ensure_future(_disconnected(request))
    work = asyncio.ensure_future(waiting)
    try:
        await asyncio.wait({gone, work}, return_when=asyncio.FIRST_COMPLETED)
        return await work if work.done() else None
    finally:
        gone.cancel()
        work.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
