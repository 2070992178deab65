"""Many wait on one client: few connections, each woken at once, whatever becomes of the connection."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from statistics import median

import pytest
from redis.connection import Connection
from support import ledger_harness
from support.ledger_harness import LedgerHarness
from support.waiting import until, until_async

from maskq import AsyncClient, Client, JobFailed, JobNotFound, StoreUnavailable, WaitTimeout
from maskq.client.waiting import waits
from maskq.ledger import Ledger, keys
from maskq.ledger.connections import slots

harness = ledger_harness.harness
IMAGE = "s3://photos/a.png"
# Only a wake-up ends a wait of these tests: one that is lost shows as a time limit that passes.
pytestmark = pytest.mark.usefixtures("only_woken")
AT_ONCE_S = 2.0  # of most; a busy machine may keep a few longer


@pytest.fixture
def client(environment: dict[str, str], harness: LedgerHarness) -> Iterator[Client]:
    with Client.from_env() as made:
        yield made


def connections(ledger: Ledger) -> list[dict[str, str]]:
    found: list[dict[str, str]] = ledger.redis.client_list()
    return found


def subscribed(ledger: Ledger) -> list[dict[str, str]]:
    return [one for one in connections(ledger) if int(one["sub"])]


def test_threads_share_one_subscribed_connection_and_each_is_woken_at_once(
    client: Client, harness: LedgerHarness
) -> None:
    # Given
    before = len(connections(harness.ledger))
    jobs = client.submit_many([IMAGE] * 300).jobs
    woken: dict[str, float] = {}

    def wait(number: int) -> None:
        with pytest.raises(JobFailed):
            jobs[number].wait(timeout=60)
        woken[jobs[number].id] = time.monotonic()

    threads = [threading.Thread(target=wait, args=(number,)) for number in range(300)]
    for thread in threads:
        thread.start()
    until(lambda: subscribed(harness.ledger) and int(subscribed(harness.ledger)[0]["sub"]) == 300)
    # Then
    assert len(subscribed(harness.ledger)) == 1
    assert len(connections(harness.ledger)) - before < slots.CALLS + 8
    # When
    ended = {}
    for job in jobs:
        ended[job.id] = time.monotonic()
        harness.cancel(job.id)
    for thread in threads:
        thread.join(30)
    # Then
    assert median(woken[one] - at for one, at in ended.items()) < AT_ONCE_S
    until(lambda: not subscribed(harness.ledger))


def test_tasks_share_one_subscribed_connection_and_each_is_woken_at_once(
    environment: dict[str, str], harness: LedgerHarness
) -> None:
    async def main() -> None:
        async with AsyncClient.from_env() as client:
            jobs = (await client.submit_many([IMAGE] * 1000)).jobs
            woken: dict[str, float] = {}

            async def wait(number: int) -> None:
                with pytest.raises(JobFailed):
                    await jobs[number].wait(timeout=60)
                woken[jobs[number].id] = time.monotonic()

            waiting = [asyncio.create_task(wait(number)) for number in range(1000)]
            await until_async(
                lambda: sum(int(one["sub"]) for one in subscribed(harness.ledger)) >= 1000
            )
            assert len(subscribed(harness.ledger)) == 1
            ended = {}
            for job in jobs:
                ended[job.id] = time.monotonic()
                await asyncio.to_thread(harness.cancel, job.id)
            await asyncio.gather(*waiting)
            assert median(woken[one] - at for one, at in ended.items()) < AT_ONCE_S

    asyncio.run(main())


def test_a_batch_and_a_job_are_waited_for_side_by_side(
    client: Client, harness: LedgerHarness
) -> None:
    batch = client.submit_many([IMAGE] * 5)
    with ThreadPoolExecutor(7) as pool:
        rounds = [pool.submit(lambda: len(list(batch.as_completed(timeout=20)))) for _ in range(3)]
        same = [pool.submit(batch.jobs[0].wait, timeout=20) for _ in range(3)]
        until(lambda: subscribed(harness.ledger))
        for job in batch.jobs:
            harness.cancel(job.id)
        assert [one.result(20) for one in rounds] == [5, 5, 5]
        for one in same:
            with pytest.raises(JobFailed):
                one.result(20)


@pytest.mark.parametrize("awaited", [False, True])
def test_a_lost_connection_is_made_again_and_wakes(
    client: Client, harness: LedgerHarness, *, awaited: bool
) -> None:
    """A job that ends while nothing is subscribed is found by the confirmation that follows."""
    jobs = client.submit_many([IMAGE] * 3).jobs

    async def wait(job_id: str) -> None:
        async with AsyncClient.from_env() as other:
            await (await other.get(job_id)).wait(timeout=20)

    def begin(job_id: str) -> None:
        asyncio.run(wait(job_id)) if awaited else client.get(job_id).wait(timeout=20)

    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(begin, job.id) for job in jobs]
        until(lambda: sum(int(one["sub"]) for one in subscribed(harness.ledger)) == 3)
        harness.redis.client_kill_filter(_type="pubsub")
        harness.cancel(jobs[0].id)
        with pytest.raises(JobFailed):
            waiting[0].result(20)
        until(lambda: sum(int(one["sub"]) for one in subscribed(harness.ledger)) >= 2)
        for job, one in zip(jobs[1:], waiting[1:], strict=True):
            harness.cancel(job.id)
            with pytest.raises(JobFailed):
                one.result(20)


def test_a_wait_that_begins_while_another_one_subscribes_is_subscribed_too(
    client: Client, harness: LedgerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = client.submit_many([IMAGE] * 2).jobs
    plain, late = Connection.send_command, threading.Event()

    def slowly(self: Connection, *command: str, **options: bool) -> None:
        if command[0] == "SUBSCRIBE" and not late.is_set():
            late.set()
            time.sleep(0.5)  # meanwhile the second wait finds the connection taken
        plain(self, *command, **options)

    monkeypatch.setattr(Connection, "send_command", slowly)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(jobs[0].wait, timeout=20)
        assert late.wait(20)
        second = pool.submit(jobs[1].wait, timeout=20)
        until(lambda: sum(int(one["sub"]) for one in subscribed(harness.ledger)) == 2, within_s=20)
        for job, one in zip(jobs, (first, second), strict=True):
            harness.cancel(job.id)
            with pytest.raises(JobFailed):
                one.result(20)


@pytest.mark.parametrize("awaited", [False, True])
def test_a_change_without_a_wake_up_is_found_by_the_periodic_check(
    client: Client, harness: LedgerHarness, monkeypatch: pytest.MonkeyPatch, *, awaited: bool
) -> None:
    monkeypatch.setattr(waits, "RECHECK_S", 0.5)
    job = client.submit(IMAGE)

    async def wait() -> None:
        async with AsyncClient.from_env() as other:
            await (await other.get(job.id)).wait(timeout=20)

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(lambda: asyncio.run(wait()) if awaited else job.wait(timeout=20))
        until(lambda: subscribed(harness.ledger))
        # The record is gone, and nobody published it.
        harness.redis.delete(keys.record(job.id).within(harness.prefix))
        with pytest.raises(JobNotFound):
            waiting.result(20)


def test_the_time_of_a_wait_is_its_own(client: Client, harness: LedgerHarness) -> None:
    jobs = client.submit_many([IMAGE] * 8).jobs

    def wait(number: int) -> float:
        began = time.monotonic()
        with pytest.raises(WaitTimeout):
            jobs[number].wait(timeout=0.1 * number)
        return time.monotonic() - began

    with ThreadPoolExecutor(8) as pool:
        for number, took in enumerate(pool.map(wait, range(8))):
            assert 0.1 * number <= took < 0.1 * number + 10


# --- ordinary calls -----------------------------------------------------------------------------------


def test_five_hundred_threads_submit_at_once(client: Client, harness: LedgerHarness) -> None:
    before = len(connections(harness.ledger))
    start = threading.Barrier(500)

    def submit(number: int) -> str:
        start.wait()
        return client.submit(IMAGE, metadata={"n": str(number)}).id

    with ThreadPoolExecutor(500) as pool:
        ids = list(pool.map(submit, range(500)))
    assert len(set(ids)) == 500
    assert len(connections(harness.ledger)) - before <= slots.CALLS


def test_readers_of_events_keep_no_call_waiting(client: Client, harness: LedgerHarness) -> None:
    """More than there are places for readers: the others look without blocking, in their turn."""
    readers = slots.READERS + 40
    heard = []

    def read() -> None:
        heard.append(next(client.events(types=["job.canceled"])).subject)

    threads = [threading.Thread(target=read) for _ in range(readers)]
    for thread in threads:
        thread.start()
    until(
        lambda: sum(one["cmd"] == "xread" for one in connections(harness.ledger)) >= slots.READERS
    )
    took = []
    for _ in range(5):
        began = time.monotonic()
        client.submit(IMAGE)
        took.append(time.monotonic() - began)
    assert median(took) < AT_ONCE_S
    # And each of them reads on, also those that had to wait for a place before they had a cursor
    canceled = []

    def all_have_heard() -> bool:
        job = client.submit(IMAGE)
        canceled.append(job.id)
        job.cancel()
        return len(heard) == readers

    until(all_have_heard, every_s=0.2)
    for thread in threads:
        thread.join()
    assert set(heard) <= set(canceled)


@pytest.mark.parametrize("awaited", [False, True])
def test_when_no_connection_comes_free_the_error_says_so(
    client: Client, harness: LedgerHarness, monkeypatch: pytest.MonkeyPatch, *, awaited: bool
) -> None:
    monkeypatch.setattr(slots, "_PATIENCE_S", 0.3)
    client.close()

    async def ask(number: int) -> None:
        async with AsyncClient.from_env() as other:
            await asyncio.gather(*[other.list() for _ in range(number)])

    def begin(number: int) -> None:
        with ThreadPoolExecutor(number) as pool:
            list(pool.map(lambda _: client.list(), range(number)))

    # A server that stands still for two seconds, and more callers than places.
    harness.redis.execute_command("CLIENT", "PAUSE", 1500, "ALL")
    with pytest.raises(
        StoreUnavailable, match=r"64 calls to Redis in progress.*call again"
    ) as told:
        asyncio.run(ask(80)) if awaited else begin(80)
    assert "cannot be reached" not in str(told.value)


def test_a_limit_in_the_url_is_kept(
    environment: dict[str, str],
    harness: LedgerHarness,
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MASKQ_REDIS_URL", f"{redis_url}?max_connections=6")
    before = len(connections(harness.ledger))
    with Client.from_env() as client, ThreadPoolExecutor(60) as pool:
        jobs = list(pool.map(lambda _: client.submit(IMAGE), range(60)))
        waiting = [pool.submit(job.wait, timeout=20) for job in jobs]
        until(lambda: subscribed(harness.ledger))
        assert len(connections(harness.ledger)) - before <= 6
        for job in jobs:
            harness.cancel(job.id)
        for one in waiting:
            with pytest.raises(JobFailed):
                one.result(20)
