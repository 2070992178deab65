"""A cancellation ends what it is meant for, at once, and nobody reads another's answer after it."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from support.damaged import damaged
from support.waiting import until_async

from maskq import AsyncClient, JobStatus
from maskq.ledger import Ledger, calls, keys

IMAGE = "s3://photos/a.png"
CANCELS = 400
WITHIN_S = 0.006
PROMPT_S = 1.0  # of nearly all, on a busy machine; a read that blocks in Redis takes two


@pytest.fixture
def ledger(environment: dict[str, str], redis_url: str, key_prefix: str) -> Iterator[Ledger]:
    made = Ledger(redis_url, key_prefix)
    made.run(calls.register_model("demo", {}))
    yield made
    made.close()


async def cancel_often(
    begin: Callable[[], Coroutine[Any, Any, Any]],
    times: int = CANCELS,
    within_s: float = WITHIN_S,
) -> Counter[str]:
    """How each of them ended that was cancelled before it could be done; nearly all at once."""
    ended, late = Counter[str](), 0
    for _ in range(times):
        task = asyncio.create_task(begin())
        await asyncio.sleep(random.uniform(0, within_s))
        if task.done():
            ended["done before"] += 1
            continue
        task.cancel()
        began = time.monotonic()
        await asyncio.wait((task,), timeout=30)
        late += time.monotonic() - began > PROMPT_S
        ended["cancelled" if task.cancelled() else "lost"] += 1
        if not task.cancelled() and task.done():
            task.exception()
    assert late <= times // 20
    return ended


def test_no_cancellation_of_a_wait_is_lost(ledger: Ledger) -> None:
    async def main() -> None:
        async with AsyncClient.from_env() as client:
            job = await client.submit(IMAGE)
            ended = await cancel_often(lambda: job.wait(timeout=30))
            assert ended == {"cancelled": CANCELS}

    asyncio.run(main())


def test_a_wait_that_is_cancelled_while_its_record_is_read_leaves_no_subscription(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with AsyncClient.from_env() as client:
            job = await client.submit(damaged("image"))
            channel = keys.wake(job.id).within(ledger.prefix)

            def subscribed() -> int:
                return int(ledger.redis.execute_command("PUBSUB", "NUMSUB", channel)[1])

            reading, go_on = asyncio.Event(), asyncio.Event()
            run_each = client.session.ledger.run_each

            async def slowly(asked: Any) -> Any:
                reading.set()
                await go_on.wait()
                return await run_each(asked)

            monkeypatch.setattr(client.session.ledger, "run_each", slowly)
            waiting = asyncio.create_task(job.wait(timeout=60))
            await reading.wait()
            assert subscribed() == 1
            waiting.cancel()
            await asyncio.wait((waiting,))
            go_on.set()
            await until_async(lambda: subscribed() == 0)

    asyncio.run(main())


@pytest.mark.parametrize("ask", ["submit", "get", "list", "cancel", "progress", "upload"])
def test_no_cancellation_of_a_call_is_lost(ledger: Ledger, ask: str) -> None:
    async def main() -> None:
        async with AsyncClient.from_env() as client:
            job, batch = await client.submit(IMAGE), await client.submit_many([IMAGE])
            calls_of: dict[str, Callable[[], Coroutine[Any, Any, Any]]] = {
                "submit": lambda: client.submit(IMAGE),
                "get": lambda: client.get(job.id),
                "list": lambda: client.list(limit=5),
                "cancel": job.cancel,
                "progress": batch.progress,
                "upload": lambda: client.submit(damaged("the bytes of an image")),
            }
            ended = await cancel_often(calls_of[ask], 200, within_s=0.002)
            assert "lost" not in ended, ended

    asyncio.run(main())


@pytest.mark.parametrize("group", [None, "readers"])
def test_no_cancellation_of_a_reader_of_events_is_lost(ledger: Ledger, group: str | None) -> None:
    async def main() -> None:
        async with AsyncClient.from_env() as client:

            async def read() -> None:
                async for _ in client.events(group=group):
                    pass

            ended = await cancel_often(read, 100)
            assert ended == {"cancelled": 100}
            # And none of them holds a place in the group or a connection that waits.
            assert await asyncio.wait_for(first_event(client, group), 10)

    async def first_event(client: AsyncClient, group: str | None) -> str:
        reading = asyncio.create_task(anext(client.events(group=group)))
        await until_async(lambda: group is None or group in groups())
        await asyncio.sleep(0.1)
        await client.submit(IMAGE)
        # Who reads alone misses what comes before it is there. Of a group's events none may be missed.
        while group is None and not reading.done():
            await asyncio.wait((reading,), timeout=0.2)
            await client.submit(IMAGE)
        return (await reading).subject

    def groups() -> set[str]:
        stream = keys.events().within(ledger.prefix)
        known = ledger.redis.xinfo_groups(stream) if ledger.redis.exists(stream) else []
        return {one["name"] for one in known}

    asyncio.run(main())


def test_after_cancellations_everybody_reads_the_own_answer(ledger: Ledger) -> None:
    async def main() -> None:
        async with AsyncClient.from_env() as client:
            jobs = [await client.submit(IMAGE, metadata={"n": str(n)}) for n in range(40)]

            async def look(number: int) -> None:
                record = await jobs[number].refresh()
                assert record.id == jobs[number].id
                assert record.request.metadata == {"n": str(number)}

            for _ in range(30):
                tasks = [asyncio.create_task(look(number)) for number in range(40)]
                await asyncio.sleep(random.uniform(0, WITHIN_S))
                for task in random.sample(tasks, 20):
                    task.cancel()
                for outcome in await asyncio.gather(*tasks, return_exceptions=True):
                    assert outcome is None or isinstance(outcome, asyncio.CancelledError)

    asyncio.run(main())


def test_a_cancelled_submission_is_whole_or_not_there(ledger: Ledger, key_prefix: str) -> None:
    async def main() -> None:
        async with AsyncClient.from_env() as client:
            await cancel_often(lambda: client.submit(IMAGE), 100)
            await asyncio.sleep(0.2)
            page = await client.list(limit=200)
            assert {record.status for record in page.records} == {JobStatus.QUEUED}

    asyncio.run(main())


def test_a_timeout_of_the_caller_is_a_timeout(ledger: Ledger) -> None:
    async def main() -> None:
        async with AsyncClient.from_env() as client:
            job = await client.submit(IMAGE)
            for _ in range(20):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(random.uniform(0, WITHIN_S)):
                        await job.wait(timeout=30)
                current = asyncio.current_task()
                assert current
                assert not current.cancelling()

    asyncio.run(main())
