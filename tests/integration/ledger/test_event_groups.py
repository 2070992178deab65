"""Readers of one group share the events: each goes to one of them, until one has confirmed it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from maskq import AsyncClient, Client, Event, EventsLost, InvalidRequest
from maskq.contract.ids import new_id
from maskq.ledger import calls, keys


@pytest.fixture
def client(environment: dict[str, str]) -> Iterator[Client]:
    with Client.from_env() as connected:
        ledger = connected.session.ledger
        ledger.run(calls.register_model("some", {}))
        yield connected


def submit(client: Client, count: int) -> list[str]:
    return [client.submit("s3://photos/1.jpg").id for _ in range(count)]


def all_read(client: Client, group: str, **options: Any) -> list[Event]:
    return list(client.events("0", group=group, idle=0.3, **options))


def test_each_event_goes_to_one_reader_of_a_group_and_to_every_group(client: Client) -> None:
    ids = submit(client, 60)
    with ThreadPoolExecutor(3) as pool:
        shared = [pool.submit(all_read, client, "shared") for _ in range(3)]
        parts = [part.result() for part in shared]
    assert Counter(event.subject for part in parts for event in part) == Counter(ids)
    assert [event.subject for event in all_read(client, "other")] == ids
    assert all_read(client, "shared") == []


def test_what_a_reader_did_not_confirm_goes_to_another(client: Client) -> None:
    ids = submit(client, 3)
    # Given a reader that fails with the second event in hand
    reading = client.events("0", group="shared", idle=0.3)
    first, second = next(reading), next(reading)
    with pytest.raises(RuntimeError):
        reading.throw(RuntimeError("a fault of the reader's"))  # type: ignore[attr-defined]
    assert [first.subject, second.subject] == ids[:2]
    # Then nobody gets it while it may still be at it, and then somebody does
    assert [event.subject for event in all_read(client, "shared")] == ids[2:]
    assert [e.subject for e in all_read(client, "shared", take_over=0.01)] == [second.subject]
    assert all_read(client, "shared", take_over=0.01) == []


def test_a_new_group_begins_now_or_where_it_is_told(client: Client) -> None:
    ids = submit(client, 3)
    first = next(iter(client.events("0", idle=1)))
    assert list(client.events(group="now", idle=0.1)) == []
    told = client.events(first.cursor, group="told", idle=0.3)
    assert [event.subject for event in told] == ids[1:]
    later = submit(client, 1)
    assert [e.subject for e in client.events(group="now", idle=0.3)] == later
    with pytest.raises(InvalidRequest, match="not a valid cursor"):
        next(iter(client.events("yesterday", group="bad")))


def test_events_that_are_not_wanted_are_confirmed_at_once(client: Client) -> None:
    job = client.submit("s3://photos/1.jpg")
    job.cancel()
    (event,) = all_read(client, "ends", types=["job.canceled"])
    assert event.subject == job.id
    assert all_read(client, "ends", take_over=0.01) == []


def test_a_group_is_told_once_what_it_missed_and_goes_on(client: Client) -> None:
    redis = client.session.ledger.redis
    stream = keys.events().within(client.key_prefix)
    submit(client, 1)
    assert len(all_read(client, "slow")) == 1
    submit(client, 5)
    kept = redis.xrevrange(stream, count=1)[0][0]
    redis.xtrim(stream, minid=kept, approximate=False)
    with pytest.raises(EventsLost, match="ended_since"):
        all_read(client, "slow")
    assert [event.cursor for event in all_read(client, "slow")] == [kept]


def test_an_event_that_is_trimmed_in_a_reader_s_hand_is_told(client: Client) -> None:
    redis = client.session.ledger.redis
    submit(client, 2)
    reading = client.events("0", group="slow", idle=0.3)
    next(reading)
    with suppress(RuntimeError):
        reading.throw(RuntimeError)  # type: ignore[attr-defined]
    redis.xtrim(keys.events().within(client.key_prefix), maxlen=1, approximate=False)
    with pytest.raises(EventsLost, match="1 events"):
        all_read(client, "slow", take_over=0.01)


def test_a_reader_of_its_own_is_told_when_it_is_overtaken(client: Client) -> None:
    redis = client.session.ledger.redis
    submit(client, 3)
    reading = client.events("0", idle=1)
    next(reading)
    submit(client, 300)
    redis.xtrim(keys.events().within(client.key_prefix), maxlen=1, approximate=False)
    with pytest.raises(EventsLost):
        list(reading)
    # And it catches up by the records
    assert len(client.list(status="queued", limit=1000).records) == 303


def test_readers_that_left_are_forgotten(client: Client) -> None:
    submit(client, 2)
    all_read(client, "shared")
    redis = client.session.ledger.redis
    assert redis.xinfo_consumers(keys.events().within(client.key_prefix), "shared") == []


def test_the_async_client_shares_as_well(client: Client, environment: dict[str, str]) -> None:
    ids = submit(client, 10)

    async def read() -> list[str]:
        async with AsyncClient.from_env() as one:
            return [e.subject async for e in one.events("0", group="shared", idle=0.3)]

    async def both() -> list[str]:
        parts = await asyncio.gather(read(), read())
        return [subject for part in parts for subject in part]

    assert Counter(asyncio.run(both())) == Counter(ids)


def test_sharing_works_before_the_first_event(client: Client) -> None:
    assert all_read(client, f"early-{new_id()}") == []
