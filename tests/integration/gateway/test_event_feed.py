"""The one reader of events and its many followers: each gets what it wants, once and in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager

import pytest
from support.ledger_harness import LedgerHarness

from maskq import AsyncClient
from maskq.contract.ids import new_id
from maskq.errors import EventsLost
from maskq.ledger import Ledger, calls
from maskq.settings import Settings
from maskq_gateway.api.events import feed as feeds
from maskq_gateway.api.events.entries import Entry, EventFilter
from maskq_gateway.api.events.feed import EventFeed

IDLE_S = 20.0


@pytest.fixture
def harness(environment: dict[str, str]) -> Iterator[LedgerHarness]:
    """The deployment that `environment` names."""
    ledger = Ledger.of(Settings.load())
    yield LedgerHarness(ledger)
    ledger.close()


@asynccontextmanager
async def feeding() -> AsyncIterator[EventFeed]:
    async with AsyncClient.from_env() as client:
        feed = EventFeed(client)
        yield feed
        await feed.close()


async def happen(harness: LedgerHarness, job_ids: Sequence[str]) -> None:
    """Two events of each job."""
    for job_id in job_ids:
        await asyncio.to_thread(harness.try_submit, job_id)
        await asyncio.to_thread(harness.ledger.run, calls.cancel(job_id))


async def follow(
    feed: EventFeed, since: str, wanted: EventFilter, most: int, pause_s: float = 0.0
) -> list[Entry]:
    """The first `most` events of a follower that takes `pause_s` for each page."""
    got: list[Entry] = []
    pages = feed.follow(since, wanted, IDLE_S)
    async for page in pages:
        assert page, f"nothing came for {IDLE_S} s after {len(got)} events"
        got.extend(page)
        if len(got) >= most:
            break
        await asyncio.sleep(pause_s)
    await pages.aclose()  # type: ignore[attr-defined]
    return got


def twice(job_ids: Sequence[str]) -> list[str]:
    return [job_id for job_id in job_ids for _ in range(2)]


@pytest.mark.parametrize("kept", [4, 20_000])
def test_each_follower_gets_what_it_wants_once_and_in_order(
    harness: LedgerHarness, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    monkeypatch.setattr(feeds, "_KEPT", kept)
    monkeypatch.setattr(feeds, "_PAGE", 3)
    before, after = [new_id() for _ in range(4)], [new_id() for _ in range(8)]
    every = [*before, *after]

    async def run() -> None:
        async with feeding() as feed:
            await happen(harness, before)
            now = await feed.now()
            all_of_them = EventFilter()
            following = [
                follow(feed, "0", all_of_them, 24),
                follow(feed, "0", all_of_them, 24, pause_s=0.2),  # the feed drops what it needs
                follow(feed, now, all_of_them, 16),
                follow(feed, now, EventFilter(types=frozenset(["maskq.job.canceled"])), 8),
                follow(feed, "0", EventFilter(subjects=frozenset([before[1]])), 2),
                follow(feed, "0", EventFilter(subjects=frozenset([before[0], after[7]])), 4),
                follow(feed, now, EventFilter(subjects=frozenset([after[7]])), 2),
            ]
            *got, _ = await asyncio.gather(*following, happen(harness, after))
            wanted = [
                twice(every),
                twice(every),
                twice(after),
                after,
                twice(before[1:2]),
                twice([before[0], after[7]]),
                twice(after[7:]),
            ]
            assert [[entry.subject for entry in entries] for entries in got] == wanted
            for entries in got:
                orders = [entry.order for entry in entries]
                assert orders == sorted(set(orders))

    asyncio.run(run())


@pytest.mark.parametrize("idle_s", [0.05, IDLE_S])
def test_what_others_get_does_not_make_a_waiting_follower_fall_behind(
    environment: dict[str, str],
    harness: LedgerHarness,
    monkeypatch: pytest.MonkeyPatch,
    idle_s: float,
) -> None:
    monkeypatch.setattr(feeds, "_KEPT", 4)
    own, others = new_id(), [new_id() for _ in range(5)]

    async def run() -> None:
        async with feeding() as feed:
            await happen(harness, others[:1])
            pages = feed.follow(await feed.now(), EventFilter(subjects=frozenset([own])), idle_s)
            first = asyncio.ensure_future(_first_event(pages))
            await happen(harness, others[1:])
            while await feed.now() != harness.ledger.run(calls.stream_ends()).last:
                await asyncio.sleep(0.01)
            # The follower wants none of these events. So it has lost nothing when they are removed.
            harness.redis.xtrim(f"{harness.prefix}:events", maxlen=0, approximate=False)
            await happen(harness, [own])
            assert (await first).subject == own

    asyncio.run(run())


async def _first_event(pages: AsyncIterator[Sequence[Entry]]) -> Entry:
    async for page in pages:
        if page:
            return page[0]
    raise AssertionError("the stream ended")


def test_a_follower_that_lost_events_is_told(
    harness: LedgerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "_KEPT", 4)

    async def run() -> None:
        async with feeding() as feed:
            await happen(harness, [new_id()])
            pages = feed.follow("0", EventFilter(), IDLE_S)
            (first, *_) = await anext(pages)
            assert first
            await happen(harness, [new_id() for _ in range(6)])
            while await feed.now() != harness.ledger.run(calls.stream_ends()).last:
                await asyncio.sleep(0.01)
            harness.redis.xtrim(f"{harness.prefix}:events", maxlen=1, approximate=False)
            with pytest.raises(EventsLost):
                await anext(pages)

    asyncio.run(run())


def test_events_that_come_together_share_a_page_where_followers_are_many(
    harness: LedgerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "_PAUSE_PER_FOLLOWER_S", 1.5)
    monkeypatch.setattr(feeds, "_LONGEST_PAUSE_S", 1.5)
    own = [new_id() for _ in range(6)]

    async def run() -> None:
        async with feeding() as feed:
            sizes: list[int] = []

            async def read(since: str) -> None:
                async for page in feed.follow(since, EventFilter(), IDLE_S):
                    sizes.append(len(page))
                    if sum(sizes) == 2 * len(own):
                        return

            reading = asyncio.ensure_future(read(await feed.now()))
            for job_id in own:
                await happen(harness, [job_id])
                await asyncio.sleep(0.02)  # or the feed may read them at once anyway
            await reading
            assert len(sizes) <= 3

    asyncio.run(run())


@pytest.mark.parametrize(
    ("subjects", "text", "may"),
    [
        ([], "{}", True),
        (["0199-a"], '{"subject":"0199-a"}', True),
        (["0199-a"], '{"subject":"0199-b"}', False),
        (["0199-a", "0199-b"], '{"subject":"0199-b"}', True),
        (["mai/größe"], '{"subject":"mai/gr\\u00f6\\u00dfe"}', True),
        (["acme/may"], '{"subject":"acme\\/may"}', True),
        ([f"job-{n}" for n in range(9)], "{}", True),
    ],
)
def test_an_event_is_left_out_unparsed_only_if_it_cannot_pass(
    subjects: list[str], text: str, may: bool
) -> None:
    assert EventFilter(subjects=frozenset(subjects)).may_pass(text) is may
