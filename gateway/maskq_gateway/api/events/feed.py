"""One reader of the event stream for all connections of this process."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain, islice

from maskq import AsyncClient
from maskq.errors import EventsLost, MaskqError
from maskq.ledger import calls
from maskq_gateway.api.events.entries import Entry, EventFilter, Order, cursor_of, order_of

logger = logging.getLogger(__name__)

HEARTBEAT_S = 15.0  # a stream says so often at least that it lives
_KEPT = 20_000  # events in memory
_PAGE = 500  # events of one read of older ones, and of one message to a follower
_AGAIN_S = 1.0
_BLOCK_MS = 2000  # below the time-out of a connection to Redis
# Events that come within a pause share one message to each follower. One message costs about as much
# as a quarter of a millisecond for few events or many.
_PAUSE_PER_FOLLOWER_S = 0.00025
_LONGEST_PAUSE_S = 0.05


class _Follower:
    """How far one follower is. Only an event that it wants wakes it: there may be hundreds of them."""

    def __init__(self, at: Order, wanted: EventFilter) -> None:
        self.at = at  # while it waits, it has everything up to the feed's end
        self.wanted = wanted
        self._news = asyncio.Event()
        self._is_waiting = False

    def offer(self, entry: Entry, before: Order) -> None:
        """The feed has read a new event; `before`: its end until then."""
        if self._is_waiting and self.wanted.passes(entry):
            self.wake(before)

    def wake(self, before: Order) -> None:
        if self._is_waiting:
            self._is_waiting = False
            self.at = max(self.at, before)
            self._news.set()

    async def wait(self, idle_s: float) -> bool:
        """Whether it was woken within `idle_s`."""
        self._news.clear()
        self._is_waiting = True
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(idle_s):
                    await self._news.wait()
            return not self._is_waiting
        finally:
            self._is_waiting = False


class EventFeed:
    """Reads new events once, and hands them to every follower; older ones each reads for itself."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._kept: deque[Entry] = deque(maxlen=_KEPT)
        self._end: Order = (0, 0)  # up to here the feed has read
        self._start: Order | None = None  # it has everything since then, unless dropped
        self._of_all: set[_Follower] = set()
        self._of_subject: defaultdict[str, set[_Follower]] = defaultdict(set)
        self._count = 0  # followers
        self._task: asyncio.Task[None] | None = None

    async def check(self, since: str) -> None:
        """Raise EventsLost where some events after the cursor `since` are not kept any more."""
        ends = await self._client.session.run(calls.stream_ends())
        if order_of(since) > order_of(ends.last):
            raise EventsLost(f"{since} lies ahead of the stream, whose last event is {ends.last}")
        if order_of(since) != (0, 0) and order_of(since) < order_of(ends.trimmed):
            raise EventsLost(
                f"events after {since} were trimmed away; GET /v1/jobs?ended_since=… lists what has "
                f"ended"
            )

    async def now(self) -> str:
        """The cursor from which on a new follower misses nothing."""
        await self._started()
        return cursor_of(self._end)

    async def wait_beyond(self, cursor: str, idle_s: float) -> None:
        """Return once there are events after `cursor`, an answer of `now`, or after `idle_s`."""
        with self._following(order_of(cursor), EventFilter()) as follower:
            if self._end <= follower.at:
                await follower.wait(idle_s)

    async def follow(
        self, since: str, wanted: EventFilter, idle_s: float
    ) -> AsyncIterator[Sequence[Entry]]:
        """Wanted events after the cursor `since`, some at a time; none if none came for `idle_s`.

        Raises EventsLost where some after `since` were trimmed away.
        """
        await self._started()
        with self._following(order_of(since), wanted) as follower:
            while True:
                # Also later, if it is so slow that the feed has dropped what it needs.
                async for entries in self._older(follower):
                    yield entries
                for entries in self._newer(follower):
                    yield entries
                if self._end <= follower.at and not await follower.wait(idle_s):
                    follower.at = max(follower.at, self._end)
                    yield ()

    @contextmanager
    def _following(self, at: Order, wanted: EventFilter) -> Iterator[_Follower]:
        follower = _Follower(at, wanted)
        groups = [self._of_subject[one] for one in wanted.subjects] or [self._of_all]
        for group in groups:
            group.add(follower)
        self._count += 1
        try:
            yield follower
        finally:
            self._count -= 1
            for group in groups:
                group.discard(follower)
            for subject in wanted.subjects:
                if not self._of_subject[subject]:
                    del self._of_subject[subject]

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
                self._start = self._end = order_of(ends.last)
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
                    self._add(Entry.of(since, text))
                await asyncio.sleep(min(self._count * _PAUSE_PER_FOLLOWER_S, _LONGEST_PAUSE_S))
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
        before = self._end
        self._kept.clear()
        self._start = self._end = order_of(ends.last)
        for follower in chain(self._of_all, *self._of_subject.values()):
            follower.wake(before)
        return ends.last

    def _add(self, entry: Entry) -> None:
        before = self._end
        if len(self._kept) == _KEPT:
            self._start = self._kept[0].order
        self._kept.append(entry)
        self._end = entry.order
        for follower in chain(self._of_all, self._of_subject.get(entry.subject, ())):
            follower.offer(entry, before)

    def _newer(self, follower: _Follower) -> Iterator[Sequence[Entry]]:
        """Pages of what the feed keeps; afterwards the follower is at the feed's end."""
        while follower.at < self._end and not self._has_dropped(follower):
            found = deque[Entry]()
            for entry in reversed(self._kept):
                if entry.order <= follower.at:
                    break
                found.appendleft(entry)
            for first in range(0, len(found), _PAGE):
                page = list(islice(found, first, first + _PAGE))
                follower.at = page[-1].order
                if wanted := list(filter(follower.wanted.passes, page)):
                    yield wanted

    async def _older(self, follower: _Follower) -> AsyncIterator[Sequence[Entry]]:
        """Pages of what the stream has before what is kept here."""
        while self._has_dropped(follower):
            cursor = cursor_of(follower.at)
            await self.check(cursor)
            read = calls.read_event_texts(cursor, block_ms=1, count=_PAGE)
            page = await self._client.session.run(read)
            if not page:
                follower.at = self._start or self._end
                return
            follower.at = order_of(page[-1][0])
            entries = [Entry.of(*each) for each in page if follower.wanted.may_pass(each[1])]
            if wanted := list(filter(follower.wanted.passes, entries)):
                yield wanted

    def _has_dropped(self, follower: _Follower) -> bool:
        """Whether the feed lacks some events after the follower's position."""
        return self._start is None or follower.at < self._start
