"""/v1/events: events as they happen, as server-sent events, for one reader or a group of readers."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import ValidationError

from maskq.contract.api_keys import Scope
from maskq.contract.events import EVENT_DATA
from maskq.contract.failures import FailureCode
from maskq.errors import EventsLost, InvalidRequest
from maskq.ledger.calls.groups import Member
from maskq.validation import sentence
from maskq_gateway.api.auth import Authorizer, Caller
from maskq_gateway.api.bodies import json_of
from maskq_gateway.api.documents import OF_BODIES, answers, described
from maskq_gateway.api.events.entries import EventFilter
from maskq_gateway.api.events.feed import HEARTBEAT_S, EventFeed
from maskq_gateway.api.events.groups import GroupReaders, GroupStream
from maskq_gateway.api.schemas import Confirmation, Confirmed, Name
from maskq_gateway.problems import Problem

_IDLE: Final = ": nothing new\n\n"  # a comment, so that proxies do not take the connection for dead
_CURSOR: Final = re.compile(r"\d{1,20}(-\d{1,20})?", re.ASCII)


def router(feed: EventFeed, readers: GroupReaders, authorizer: Authorizer) -> APIRouter:
    """The routes of the event stream."""
    router = APIRouter(prefix="/v1/events", tags=["events"])
    reads = Depends(authorizer.needs(Scope.READ))
    stream: dict[int | str, dict[str, Any]] = {
        200: {
            "description": "`id:` is the cursor, `event:` the type, `data:` a CloudEvent in JSON.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        }
    }

    @router.get("", responses=answers(410) | stream, summary="Follow events")
    async def follow(
        caller: Caller = reads,
        job: Annotated[
            list[str] | None, Query(description="Only of these jobs or batches.")
        ] = None,
        type: Annotated[list[str] | None, Query(description="Only of these types.")] = None,
        since: Annotated[
            str | None, Query(description="After this cursor; `0`: all that are kept.")
        ] = None,
        group: Annotated[
            Name | None,
            Query(description="Share the events with the other readers of this group."),
        ] = None,
        consumer: Annotated[
            Name | None, Query(description="The name of this reader in its group.")
        ] = None,
        max_unconfirmed: Annotated[
            int, Query(ge=1, le=1000, description="Of a group's reader: pause at so many events.")
        ] = 100,
        take_over: Annotated[
            float,
            Query(
                ge=0,
                le=86_400,
                description="Of a group's reader: seconds after which it gets what another one has "
                "not confirmed.",
            ),
        ] = 60.0,
        last_event_id: Annotated[
            str | None, Header(description="As `since`; a group's reader ignores it.")
        ] = None,
    ) -> StreamingResponse:
        """From now on, or after a cursor: an EventSource that reconnects misses nothing.

        With `group` and `consumer` each event goes to one reader of the group, until one confirms it.
        `since` then says where a new group begins.
        """
        cursor = since if group else last_event_id or since
        if cursor is not None and not _is_cursor(cursor):
            raise InvalidRequest(
                f"{cursor!r:.100} is not a valid cursor; use an `id:` of this stream"
            )
        if (group is None) != (consumer is None):
            raise InvalidRequest("group, consumer: a reader of a group needs both")
        types = _full_names(type)
        wanted = EventFilter(caller.tenant, frozenset(job or ()), types)
        if group and consumer:
            member = Member(_of_tenant(group, caller), consumer)
            shared = await readers.join(member, cursor, max_unconfirmed, take_over)
            return _streamed(_shared_text(shared, wanted))
        if cursor is None:
            begin = await feed.now()
        else:
            await feed.check(cursor)
            begin = cursor
        return _streamed(_text(feed, begin, wanted))

    @router.post(
        "/confirm",
        response_model=Confirmed,
        responses=answers(*OF_BODIES),
        openapi_extra=described(Confirmation),
        summary="Confirm events of a group",
    )
    async def confirm(request: Request, caller: Caller = reads) -> Response:
        """No reader of the group gets these events again."""
        try:
            wanted = Confirmation.model_validate(await json_of(request))
        except ValidationError as error:
            raise InvalidRequest(sentence(error)) from None
        count = await readers.confirm(_of_tenant(wanted.group, caller), wanted.cursors)
        return JSONResponse({"confirmed": count})

    @router.delete(
        "/groups",
        status_code=HTTPStatus.NO_CONTENT,
        response_class=Response,
        responses=answers(404),
        summary="Delete a group of readers",
    )
    async def delete_group(
        group: Annotated[Name, Query(description="Its name, as its readers give it.")],
        caller: Caller = reads,
    ) -> Response:
        """What its readers have not confirmed is forgotten, and their streams end. A reader that joins
        later begins anew."""
        if not await readers.delete(_of_tenant(group, caller)):
            raise Problem(
                HTTPStatus.NOT_FOUND,
                FailureCode.NOT_FOUND,
                f"the group of event readers {group!r} does not exist",
            )
        return Response(status_code=HTTPStatus.NO_CONTENT)

    return router


async def _text(feed: EventFeed, begin: str, wanted: EventFilter) -> AsyncIterator[str]:
    # With a cursor, so that who loses the connection before the first event misses none.
    yield f"id: {begin}\n: connected\n\n"
    try:
        async for entries in feed.follow(begin, wanted, HEARTBEAT_S):
            yield "".join(entry.message for entry in entries) or _IDLE
    except EventsLost as error:
        yield _lost(str(error))


async def _shared_text(shared: GroupStream, wanted: EventFilter) -> AsyncIterator[str]:
    yield ": connected\n\n"
    async for one in shared.follow(wanted):
        yield _IDLE if one is None else _lost(one) if isinstance(one, str) else one.message


def _streamed(text: AsyncIterator[str]) -> StreamingResponse:
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(text, headers=headers, media_type="text/event-stream")


def _is_cursor(text: str) -> bool:
    found = _CURSOR.fullmatch(text)
    return found is not None and all(int(part) < 2**64 for part in text.split("-"))


def _of_tenant(group: str, caller: Caller) -> str:
    """Tenants choose the names of their groups independently of one another."""
    return group if caller.tenant is None else f"{caller.tenant}/{group}"


def _lost(said: str) -> str:
    return f"event: maskq.events.lost\ndata: {said}\n\n"


def _full_names(types: list[str] | None) -> frozenset[str]:
    names = frozenset(f"maskq.{name.removeprefix('maskq.')}" for name in types or ())
    if unknown := sorted(names - EVENT_DATA.keys()):
        raise InvalidRequest(f"there is no event {unknown[0]}; there are {', '.join(EVENT_DATA)}")
    return names
