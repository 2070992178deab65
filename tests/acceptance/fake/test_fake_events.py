"""Events and webhooks, and the client that is awaited, on the fake and on a real stack."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from support.waiting import until
from support.worlds import SIZE, UNKNOWN, World, end_of_events

from maskq import (
    Client,
    Event,
    EventsLost,
    InvalidRequest,
    JobNotFound,
)
from maskq.contract.ids import new_id
from maskq.contract.webhooks import Delivery, DeliveryState
from maskq.testing import image_bytes

# --- events -------------------------------------------------------------------------------------------


def kinds(events: Sequence[Event]) -> list[str]:
    return [event.type for event in events]


def test_events_tell_a_job_s_life(world: World, client: Client) -> None:
    start = end_of_events(client)
    job = world.submit(metadata={"order": "7"})
    job.wait(60)
    events = list(client.events(start, job_ids=[job.id], idle=0.5))
    assert kinds(events) == ["maskq.job.queued", "maskq.job.running", "maskq.job.succeeded"]
    data = events[-1].job()
    assert (data.tenant, data.metadata) == (world.tenant, {"order": "7"})
    assert data.result is not None
    assert data.result.width == SIZE[0]
    (running,) = client.events(start, job_ids=[job.id], types=["job.running"], idle=0.5)
    assert running.id == f"{job.id}:running:1"
    assert list(client.events(events[-1].cursor, job_ids=[job.id], idle=0.1)) == []


def test_a_cursor_that_is_not_in_the_stream_is_an_error(client: Client) -> None:
    with pytest.raises(EventsLost, match="ahead of the stream"):
        next(client.events("9999999999999-0", idle=0.1))
    with pytest.raises(InvalidRequest, match="not a valid cursor"):
        next(client.events("yesterday", idle=0.1))
    with pytest.raises(InvalidRequest, match="not a valid event type"):
        next(client.events(types=["job.done"], idle=0.1))


def test_a_group_shares_events_and_takes_over_what_is_not_confirmed(
    world: World, client: Client
) -> None:
    start, group = end_of_events(client), new_id()
    with world.queued_jobs() as options:
        ids = [world.submit(**options).id for _ in range(4)]
        one, other = (
            client.events(start, group=group, types=["job.queued"], idle=20, take_over=0.2)
            for _ in range(2)
        )
        got = [next(one).subject, next(other).subject, next(one).subject]
        one.close()  # type: ignore[attr-defined]  # without a confirmation of its last event
        while set(got) < set(ids) or got.count(got[2]) < 2:
            got.append(next(other).subject)
        other.close()  # type: ignore[attr-defined]
    assert set(got) == set(ids)
    with pytest.raises(InvalidRequest, match="group is empty"):
        next(client.events(group="", idle=0.1))


def test_a_deleted_group_begins_anew(world: World, client: Client) -> None:
    start, group = end_of_events(client), new_id()
    with world.queued_jobs() as options:
        ids = [world.submit(**options).id for _ in range(2)]
        for _ in range(2):
            reading = client.events(start, group=group, types=["job.queued"], idle=20)
            assert [next(reading).subject, next(reading).subject] == ids
            assert client.delete_event_group(group) is True
            with pytest.raises(EventsLost, match="was deleted"):
                next(reading)
    assert client.delete_event_group(group) is False


# --- webhooks -----------------------------------------------------------------------------------------


def _delivered(world: World, subject: str) -> Sequence[Delivery]:
    world.deliver()
    if world.client.deliveries(subject, state="pending"):
        return ()
    return world.client.deliveries(subject, state="delivered")


def test_webhooks_are_signed_and_recorded(world: World, client: Client) -> None:
    with world.receiver() as (url, received):
        job = world.submit(webhook=url, webhook_events={"job.running", "job.succeeded"})
        job.wait(60)
        deliveries = until(lambda: _delivered(world, job.id), within_s=30)
        assert [one.type for one in deliveries] == ["maskq.job.succeeded", "maskq.job.running"]
        assert [one.attempts for one in deliveries] == [1, 1]
        assert deliveries[0].log[0].status == 204
        assert deliveries[0].url == url
        assert {event.type for event in received} == {one.type for one in deliveries}
        client.redeliver(deliveries[0].id)
        until(lambda: _delivered(world, job.id), within_s=30)
        assert client.deliveries(job.id)[0].attempts == 2
        assert client.deliveries(job.id, state=DeliveryState.FAILED) in ([], ())
        job.delete()
        assert list(client.deliveries(job.id)) == []


def test_the_end_of_a_batch_is_a_webhook(world: World, client: Client) -> None:
    with world.receiver() as (url, received):
        batch = client.submit_many([image_bytes(SIZE)] * 2, batch_webhook=url)
        list(batch.as_completed(60))
        until(lambda: _delivered(world, batch.id), within_s=30)
        (event,) = [event for event in received if event.subject == batch.id]
    assert (event.type, event.batch().total) == ("maskq.batch.completed", 2)


# --- awaited ------------------------------------------------------------------------------------------


def test_awaited_it_does_the_same(world: World) -> None:
    async def all_of_it() -> None:
        async with world.awaited as client:
            start = "0"
            async for event in client.events("0", idle=0.1):
                start = event.cursor
            result = await client.segment(image_bytes(SIZE), timeout=60, tenant=world.tenant)
            assert (await result.mask()).size == SIZE
            job = await client.get(result.job_id)
            assert await job.done()
            assert await job.cancel() is False
            batch = await client.submit_many([image_bytes(SIZE)] * 2)
            assert len([one async for one in batch.as_completed(60)]) == 2
            assert (await batch.progress()).total == 2
            each = client.submit_each([image_bytes(SIZE), "s3://Photos/a.jpg"])
            assert sum([bool(error) async for _, _, error in each]) == 1
            ids = [result.job_id]
            events = [one async for one in client.events(start, job_ids=ids, idle=0.5)]
            assert len(events) == 3
            with pytest.raises(JobNotFound):
                await client.get(UNKNOWN)
            page = await client.list(tenant=world.tenant)
            assert [one.id for one in page.records] == ids
            await job.delete()

    asyncio.run(all_of_it())
