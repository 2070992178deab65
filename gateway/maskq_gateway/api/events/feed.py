"""One reader of the event stream for all connections of this process."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from maskq import AsyncClient
from maskq.errors import EventsLost, MaskqError
from maskq.ledger import calls

logger = logging.getLogger(__name__)

HEARTBEAT_S = 15.0  # a stream says so often at least that it lives
_KEPT = 20_000  # events in memory
_PAGE = 500  # events of one read of older ones
_AGAIN_S = 1.0
_BLOCK_MS = 2000  # below the time-out of a connection to Redis


@dataclass(frozen=True, slots=True)
class Entry:
    """An event, and how it is sent."""

    cursor: str
    order: tuple[int, int]
    type: str
    subject: str
    tenant: str | None
    text: str

    @classmethod
    def of(cls, cursor: str, text: str) -> Entry:
        """text: the event's JSON, as the stream has it. Parsed no further than filters need."""
        event = json.loads(text)
        tenant = event.get("data", {}).get("tenant")
        return cls(cursor, _order(cursor), event["type"], event["subject"], tenant, text)


class EventFeed:
    """Reads new events once, and hands them to every follower; older ones each reads for itself."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._kept: deque[Entry] = deque(maxlen=_KEPT)
        self._end = (0, 0)  # up to here the feed has read
        self._start: tuple[int, int] | None = None  # it has everything since then, unless dropped
        self._changed = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None

    async def check(self, since: str) -> None:
        """Raise EventsLost where some events after the cursor `since` are not kept any more."""
        ends = await self._client.session.run(calls.stream_ends())
        if _order(since) > _order(ends.last):
            raise EventsLost(f"{since} lies ahead of the last event, {ends.last}")
        if _order(since) != (0, 0) and _order(since) < _order(ends.trimmed):
            raise EventsLost(
                f"events after {since} were trimmed away; GET /v1/jobs?ended_since=… lists what has "
                f"ended"
            )

    async def now(self) -> str:
        """The cursor from which on a new follower misses nothing."""
        await self._started()
        return f"{self._end[0]}-{self._end[1]}"

    async def wait_beyond(self, cursor: str, idle_s: float) -> None:
        """Return once there are events after `cursor`, an answer of `now`, or after `idle_s`."""
        at = _order(cursor)
        async with self._changed:
            with suppress(TimeoutError):
                async with asyncio.timeout(idle_s):
                    await self._changed.wait_for(lambda: self._end > at)

    async def follow(self, since: str, idle_s: float) -> AsyncIterator[Entry | None]:
        """Events after the cursor `since`; None when none came for `idle_s`.

        Raises EventsLost where some after `since` were trimmed away.
        """
        await self._started()
        at = _order(since)
        async for entry in self._older(since):
            at = entry.order
            yield entry
        while True:
            entries = await self._after(at, idle_s)
            if entries is None:  # this follower is so slow that the feed has dropped what it needs
                async for entry in self._older(f"{at[0]}-{at[1]}"):
                    at = entry.order
                    yield entry
                continue
            for entry in entries:
                at = entry.order
                yield entry
            if not entries:
                yield None

    async def close(self) -> None:
        """Stop reading."""
        if self._task:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def _started(self) -> None:
        if self._task is None or self._task.done():
            ends = await self._client.session.run(calls.stream_ends())
            # Still: another follower may have been first.
            if self._task is None or self._task.done():
                self._kept.clear()
                self._start = self._end = _order(ends.last)
                self._task = asyncio.create_task(self._read(ends.last), name="maskq-event-feed")

    async def _read(self, since: str) -> None:
        is_sure, is_lost = True, False
        while True:
            try:
                if is_lost:
                    since, is_lost, is_sure = await self._begin_anew(), False, True
                if not is_sure:  # whether something was trimmed away meanwhile
                    await self.check(since)
                    is_sure = True
                read = calls.read_event_texts(since, block_ms=_BLOCK_MS)
                for since, text in await self._client.session.run(read):
                    await self._add(Entry.of(since, text))
            except EventsLost as error:
                logger.warning("%s; followers read on from what is kept", error)
                is_lost = True
            except MaskqError as error:
                logger.warning("%s; reading events again", error)
                is_sure = False
                await asyncio.sleep(_AGAIN_S)

    async def _begin_anew(self) -> str:
        """Keep nothing of before; the cursor of the last event."""
        ends = await self._client.session.run(calls.stream_ends())
        async with self._changed:
            self._kept.clear()
            self._start = self._end = _order(ends.last)
        return ends.last

    async def _add(self, entry: Entry) -> None:
        async with self._changed:
            if len(self._kept) == _KEPT:
                self._start = self._kept[0].order
            self._kept.append(entry)
            self._end = entry.order
            self._changed.notify_all()

    async def _after(self, at: tuple[int, int], idle_s: float) -> Sequence[Entry] | None:
        """Kept events after `at`; none if there were none for a while; None: some are not kept."""
        async with self._changed:
            if self._end <= at:
                with suppress(TimeoutError):
                    async with asyncio.timeout(idle_s):
                        await self._changed.wait_for(lambda: self._end > at)
            if self._start is None or at < self._start:
                return None
            found: deque[Entry] = deque()
            for entry in reversed(self._kept):
                if entry.order <= at:
                    break
                found.appendleft(entry)
            return found

    async def _older(self, since: str) -> AsyncIterator[Entry]:
        """What the stream has after `since` and before what is kept here."""
        cursor = since
        while self._start is None or _order(cursor) < self._start:
            await self.check(cursor)
            read = calls.read_event_texts(cursor, block_ms=1, count=_PAGE)
            page = await self._client.session.run(read)
            for cursor, text in page:
                yield Entry.of(cursor, text)
            if not page:
                return


def _order(cursor: str) -> tuple[int, int]:
    milliseconds, _, sequence = cursor.partition("-")
    return int(milliseconds), int(sequence or 0)
