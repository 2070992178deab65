"""/v1/events: events as they happen, as server-sent events."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Header, Query
from fastapi.responses import StreamingResponse

from maskq.contract.api_keys import Scope
from maskq.contract.events import EVENT_DATA
from maskq.errors import EventsLost, InvalidRequest
from maskq_gateway.api.auth import Authorizer, Caller
from maskq_gateway.api.documents import ANSWERS
from maskq_gateway.api.events.feed import Entry, EventFeed

_HEARTBEAT_S = 15.0  # a comment, so that proxies do not take the connection for dead
_CURSOR: Final = re.compile(r"\d{1,20}(-\d{1,20})?", re.ASCII)


def router(feed: EventFeed, authorizer: Authorizer) -> APIRouter:
    """The route of the event stream."""
    router = APIRouter(prefix="/v1/events", tags=["events"])
    reads = Depends(authorizer.needs(Scope.READ))
    stream: dict[int | str, dict[str, Any]] = {
        200: {
            "description": "`id:` is the cursor, `event:` the type, `data:` a CloudEvent in JSON.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        }
    }

    @router.get("", responses=ANSWERS | stream, summary="Follow events")
    async def follow(
        caller: Caller = reads,
        job: Annotated[
            list[str] | None, Query(description="Only of these jobs or batches.")
        ] = None,
        type: Annotated[list[str] | None, Query(description="Only of these types.")] = None,
        since: Annotated[
            str | None, Query(description="After this cursor; `0`: all that are kept.")
        ] = None,
        last_event_id: Annotated[str | None, Header()] = None,
    ) -> StreamingResponse:
        """From now on, or after a cursor: an EventSource that reconnects misses nothing."""
        cursor = last_event_id or since
        if cursor is not None and not _CURSOR.fullmatch(cursor):
            raise InvalidRequest(f"{cursor!r:.100} is not a cursor; take an `id:` of this stream")
        types = _full_names(type)
        if cursor is None:
            begin = await feed.now()
        else:
            await feed.check(cursor)
            begin = cursor
        subjects = frozenset(job or ())

        def passes(entry: Entry) -> bool:
            return (
                caller.sees(entry.tenant)
                and (not subjects or entry.subject in subjects)
                and (not types or entry.type in types)
            )

        async def text() -> AsyncIterator[str]:
            # With a cursor, so that who loses the connection before the first event misses none.
            yield f"id: {begin}\n: connected\n\n"
            try:
                async for entry in feed.follow(begin, _HEARTBEAT_S):
                    if entry is None:
                        yield ": nothing new\n\n"
                    elif passes(entry):
                        yield _sent(entry)
            except EventsLost as error:
                yield f"event: maskq.events.lost\ndata: {error}\n\n"

        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(text(), headers=headers, media_type="text/event-stream")

    return router


def _sent(entry: Entry) -> str:
    return f"id: {entry.cursor}\nevent: {entry.type}\ndata: {entry.text}\n\n"


def _full_names(types: list[str] | None) -> frozenset[str]:
    names = frozenset(f"maskq.{name.removeprefix('maskq.')}" for name in types or ())
    if unknown := sorted(names - EVENT_DATA.keys()):
        raise InvalidRequest(f"there is no event {unknown[0]}; there are {', '.join(EVENT_DATA)}")
    return names
