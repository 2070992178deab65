"""Event streams of the readers of a group: each event goes to one reader, until one confirms it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress

from maskq import AsyncClient
from maskq.errors import EventsLost, MaskqError
from maskq.ledger.calls import groups
from maskq.ledger.calls.groups import Member, Texts
from maskq_gateway.api.events.entries import Entry, EventFilter, order_of
from maskq_gateway.api.events.feed import HEARTBEAT_S, EventFeed

logger = logging.getLogger(__name__)

_AGAIN_S = 1.0  # after an error of Redis
_CONFIRMED_S = 0.25  # another process of the gateway may have taken the confirmation
_TAKE_OVER_EVERY_S = 2.0
_SHORTEST_PAUSE_S = 0.1  # between looks for events of others, even with take_over=0


class GroupReaders:
    """Opens streams of groups, and takes the confirmations of their readers."""

    def __init__(self, client: AsyncClient, feed: EventFeed) -> None:
        self._client = client
        self._feed = feed
        self._confirmed = asyncio.Condition()

    async def join(
        self, member: Member, since: str | None, max_unconfirmed: int, take_over_s: float
    ) -> GroupStream:
        """Raises EventsLost, once, if events were trimmed before the group read them."""
        lost = await self._client.session.run(groups.join(member, since or ""))
        if lost:
            raise EventsLost(
                f"events after {lost} were trimmed; group {member.group!r} goes on after them. "
                f"GET /v1/jobs?ended_since=… lists what has ended"
            )
        return GroupStream(
            self._client, self._feed, self._confirmed, member, max_unconfirmed, take_over_s
        )

    async def confirm(self, group: str, cursors: Sequence[str]) -> int:
        """Returns how many of the events were unconfirmed."""
        count = await self._client.session.run(groups.confirm_cursors(group, cursors))
        async with self._confirmed:
            self._confirmed.notify_all()
        return count

    async def delete(self, group: str) -> bool:
        """Delete a group; returns whether it existed. Its streams end."""
        return await self._client.session.run(groups.delete(group))


class GroupStream:
    """What one reader of a group gets over one connection."""

    def __init__(
        self,
        client: AsyncClient,
        feed: EventFeed,
        confirmed: asyncio.Condition,
        member: Member,
        max_unconfirmed: int,
        take_over_s: float,
    ) -> None:
        self._client = client
        self._feed = feed
        self._confirmed = confirmed
        self._member = member
        self._max_unconfirmed = max_unconfirmed
        self._take_over_s = take_over_s
        self._looked = float("-inf")  # when it last looked for events of others, time.monotonic()

    async def follow(self, wanted: EventFilter) -> AsyncIterator[Entry | str | None]:
        """Events; a sentence when some were lost; None when none came for a while. Ends with its group.

        First what this reader got earlier and did not confirm. Events that do not pass are confirmed.
        """
        again: str | None = "0"
        is_joined, said = True, time.monotonic()
        try:
            while True:
                if time.monotonic() - said >= HEARTBEAT_S:
                    yield None
                    said = time.monotonic()
                try:
                    if not is_joined:
                        await self._client.session.run(groups.join(self._member, ""))
                        is_joined, again = True, "0"
                    found, again = await self._next(again)
                    entries = [Entry.of(cursor, text) for cursor, text in found.events]
                    skipped = [one.cursor for one in entries if not wanted.passes(one)]
                    await self._confirm([*found.lost, *skipped])
                except EventsLost as error:
                    yield str(error)
                    return
                except MaskqError as error:
                    logger.warning(
                        "%s; reading events of group %r again", error, self._member.group
                    )
                    is_joined = False
                    await asyncio.sleep(_AGAIN_S)
                    continue
                if found.lost:
                    yield f"{len(found.lost)} events were trimmed before a reader confirmed them"
                for entry in filter(wanted.passes, entries):
                    yield entry
                    said = time.monotonic()
        finally:
            # A task of its own: whoever is disconnected is canceled here.
            leaving = asyncio.ensure_future(self._leave())
            _leaving.add(leaving)
            leaving.add_done_callback(_leaving.discard)

    async def _next(self, again: str | None) -> tuple[Texts, str | None]:
        """Some events, none after a while, and from where to read unconfirmed ones on."""
        run, most = self._client.session.run, self._max_unconfirmed
        if again is not None:
            found = await run(groups.unconfirmed_texts(self._member, again, most))
            cursors = [*(cursor for cursor, _ in found.events), *found.lost]
            return found, max(cursors, key=order_of, default=None)
        room = most - await run(groups.unconfirmed_count(self._member, most))
        if room <= 0:
            await self._wait_for_confirmation()
            return Texts([]), None
        pause_s = min(max(self._take_over_s, _SHORTEST_PAUSE_S), _TAKE_OVER_EVERY_S)
        if time.monotonic() - self._looked > pause_s:
            self._looked = time.monotonic()
            idle_ms = int(self._take_over_s * 1000)
            found = await run(groups.take_over_texts(self._member, idle_ms, room))
            if found.events or found.lost:
                return found, None
        seen = await self._feed.now()
        found = await run(groups.read_texts(self._member, room))
        if not found.events:
            await self._feed.wait_beyond(seen, pause_s)
        return found, None

    async def _wait_for_confirmation(self) -> None:
        async with self._confirmed:
            with suppress(TimeoutError):
                async with asyncio.timeout(_CONFIRMED_S):
                    await self._confirmed.wait()

    async def _confirm(self, cursors: Sequence[str]) -> None:
        if cursors:
            await self._client.session.run(groups.confirm_cursors(self._member.group, cursors))

    async def _leave(self) -> None:
        with suppress(MaskqError):
            await self._client.session.run(groups.leave(self._member))


_leaving: set[asyncio.Future[None]] = set()  # asyncio itself keeps weak references only
