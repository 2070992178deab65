"""One AsyncClient in several event loops, threads and in none: right, or one clear error."""

from __future__ import annotations

import asyncio
import gc
import pickle
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis
from support.threads import StartedThreads
from support.waiting import until, until_async

from maskq import AsyncClient, AsyncJob, Client, ClientUnusable, JobFailed, JobStatus, MaskqError
from maskq.ledger import Ledger, calls

IMAGE = "s3://photos/a.png"
pytestmark = pytest.mark.usefixtures("only_woken")


@pytest.fixture
def ledger(environment: dict[str, str], redis_url: str, key_prefix: str) -> Iterator[Ledger]:
    """Another process's, so to say: it ends jobs, and looks at the server."""
    made = Ledger(redis_url, key_prefix)
    made.run(calls.register_model("demo", {}))
    yield made
    made.close()


@pytest.fixture
def client(ledger: Ledger) -> AsyncClient:
    """Made outside of any loop."""
    return AsyncClient.from_env()


def connections(ledger: Ledger) -> int:
    server: redis.Redis = ledger.redis
    return len(server.client_list())


def no_more_are_left(before: int, ledger: Ledger) -> None:
    """The server has seen the others close, which it may see some time after the client closed."""
    until(
        lambda: connections(ledger) <= before,
        otherwise=lambda: f"{connections(ledger)} connections; {before} before",
    )


def is_waited_for(ledger: Ledger, job_id: str) -> bool:
    """Whether a client is subscribed to its changes."""
    return bool(ledger.redis.pubsub_channels(f"*{job_id}*"))


async def submit_and_wait(client: AsyncClient) -> None:
    """A job that ends while it is waited for."""
    job = await client.submit(IMAGE)
    ending = asyncio.create_task(canceled_soon(job))
    with pytest.raises(JobFailed):
        await job.wait(timeout=20)
    await ending


async def canceled_soon(job: AsyncJob) -> None:
    await asyncio.sleep(0.05)
    await job.cancel()


def test_a_client_made_outside_of_a_loop_works_in_one_after_the_other(
    client: AsyncClient, ledger: Ledger
) -> None:
    before = connections(ledger)
    for _ in range(3):
        asyncio.run(submit_and_wait(client))
        gc.collect()  # a connection left open would be told of here
    # Each loop's connections were closed with it, though nobody closed the client.
    no_more_are_left(before, ledger)


def test_a_loop_that_was_closed_by_hand_is_no_trouble_to_the_next(client: AsyncClient) -> None:
    loop = asyncio.new_event_loop()
    loop.run_until_complete(submit_and_wait(client))
    loop.run_until_complete(client.close())
    loop.close()
    asyncio.run(submit_and_wait(client))


def test_two_loops_in_two_threads_use_a_client_at_once(client: AsyncClient) -> None:
    async def often() -> None:
        await asyncio.gather(*[submit_and_wait(client) for _ in range(20)])

    with ThreadPoolExecutor(3) as pool:
        for running in [pool.submit(asyncio.run, often()) for _ in range(3)]:
            running.result(60)


def test_a_handle_of_one_loop_is_of_use_in_the_next(client: AsyncClient) -> None:
    job = asyncio.run(client.submit(IMAGE))
    assert asyncio.run(job.refresh()).status is JobStatus.QUEUED
    assert asyncio.run(job.cancel())
    with pytest.raises(JobFailed):
        asyncio.run(job.wait(timeout=20))


def test_events_are_read_in_two_loops(client: AsyncClient) -> None:
    async def count() -> int:
        return len([event async for event in client.events(since="0", idle=0.2)])

    asyncio.run(client.submit(IMAGE))
    assert asyncio.run(count()) == asyncio.run(count()) == 1


@pytest.mark.parametrize("ask", ["submit", "get", "list"])
def test_without_a_loop_an_error_says_what_to_do(client: AsyncClient, ask: str) -> None:
    asked: Callable[..., Coroutine[Any, Any, Any]] = getattr(client, ask)
    arguments = [] if ask == "list" else [IMAGE]
    with pytest.raises(ClientUnusable, match=r"asyncio\.run\(\).*use Client"):
        asked(*arguments).send(None)


def test_a_client_that_was_closed_connects_again(client: AsyncClient, ledger: Ledger) -> None:
    before = connections(ledger)

    async def twice() -> None:
        for _ in range(2):
            async with client:
                await submit_and_wait(client)
            no_more_are_left(before, ledger)

    asyncio.run(twice())
    with Client.from_env() as blocking:
        job = blocking.submit(IMAGE)
    no_more_are_left(before, ledger)
    job.cancel()
    with pytest.raises(JobFailed):
        job.wait(timeout=20)
    blocking.close()
    no_more_are_left(before, ledger)


def test_a_close_ends_the_waits_that_are_in_progress(client: AsyncClient, ledger: Ledger) -> None:
    async def main() -> None:
        job = await client.submit(IMAGE)
        waiting = asyncio.create_task(job.wait(timeout=60))
        await until_async(lambda: is_waited_for(ledger, job.id))
        await client.close()
        with pytest.raises(ClientUnusable, match="closed while"):
            await asyncio.wait_for(waiting, 20)

    asyncio.run(main())
    with Client.from_env() as blocking, ThreadPoolExecutor(1) as pool:
        job = blocking.submit(IMAGE)
        waiting = pool.submit(job.wait, timeout=60)
        until(lambda: is_waited_for(ledger, job.id))
        blocking.close()
        with pytest.raises(ClientUnusable, match="closed while"):
            waiting.result(20)


def test_a_loop_that_ends_ends_its_waits(client: AsyncClient) -> None:
    async def leave() -> None:
        job = await client.submit(IMAGE)
        leave.waiting = asyncio.create_task(job.wait(timeout=30))  # type: ignore[attr-defined]
        await asyncio.sleep(0.2)

    began = time.monotonic()
    asyncio.run(leave())
    assert leave.waiting.cancelled()  # type: ignore[attr-defined]
    assert time.monotonic() - began < 20


def test_no_thread_of_a_client_stays_for_long(environment: dict[str, str], ledger: Ledger) -> None:
    threads = StartedThreads()
    with Client.from_env() as client:
        job = client.submit(IMAGE)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(job.wait, timeout=30)
            until(lambda: is_waited_for(ledger, job.id))
            job.cancel()
            with pytest.raises(JobFailed):
                waiting.result(20)
    until(lambda: not threads.named("maskq-wake"))


def test_a_client_can_be_pickled_and_a_handle_says_why_not(
    client: AsyncClient, ledger: Ledger
) -> None:
    again = pickle.loads(pickle.dumps(client))  # noqa: S301 - our own
    assert again.settings == client.settings
    asyncio.run(submit_and_wait(again))
    with pytest.raises(MaskqError, match=r"client\.get\(job_id\)"):
        pickle.dumps(asyncio.run(client.submit(IMAGE)))
