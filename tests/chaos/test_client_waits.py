"""Who waits on a client whose connections all fall silent, as in a dead network."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest
from chaos.half_open import Proxy

from maskq import AsyncClient, Client, JobFailed
from maskq.ledger import Ledger, calls
from maskq.settings import Settings

IMAGE = "s3://photos/a.png"
NOTICED_S = 25.0  # reads that time out, a new connection, the record


@pytest.fixture
def ledger(redis_url: str, key_prefix: str) -> Iterator[Ledger]:
    made = Ledger(redis_url, key_prefix)
    made.run(calls.register_model("demo", {}))
    yield made
    made.close()


@pytest.fixture
def proxy(redis_url: str) -> Iterator[Proxy]:
    address = urlsplit(redis_url)
    assert address.hostname
    assert address.port
    with Proxy((address.hostname, address.port)) as made:
        yield made


def settings(redis_url: str, proxy: Proxy, key_prefix: str) -> Settings:
    port = urlsplit(redis_url).port
    return Settings(
        redis_url=redis_url.replace(f":{port}", f":{proxy.port}"), key_prefix=key_prefix
    )


def end(job_id: str, ledger: Ledger, key_prefix: str) -> float:
    """When it ended."""
    ledger.run(calls.cancel(job_id))
    return time.monotonic()


def test_threads_are_woken_through_a_new_connection(
    ledger: Ledger, redis_url: str, proxy: Proxy, key_prefix: str
) -> None:
    with Client(settings(redis_url, proxy, key_prefix)) as client, ThreadPoolExecutor(2) as pool:
        first, second = client.submit_many([IMAGE] * 2).jobs
        waiting = [pool.submit(job.wait, timeout=60) for job in (first, second)]
        time.sleep(1)
        proxy.swallow_what_is_open()
        ended = end(first.id, ledger, key_prefix)
        with pytest.raises(JobFailed):
            waiting[0].result(60)
        assert time.monotonic() - ended < NOTICED_S
        time.sleep(12)  # the silent subscription is noticed, too
        ended = end(second.id, ledger, key_prefix)
        with pytest.raises(JobFailed):
            waiting[1].result(60)
        assert time.monotonic() - ended < 1


def test_tasks_are_woken_through_a_new_connection(
    ledger: Ledger, redis_url: str, proxy: Proxy, key_prefix: str
) -> None:
    async def main() -> None:
        async with AsyncClient(settings(redis_url, proxy, key_prefix)) as client:
            first, second = (await client.submit_many([IMAGE] * 2)).jobs
            waiting = [asyncio.create_task(job.wait(timeout=60)) for job in (first, second)]
            await asyncio.sleep(1)
            proxy.swallow_what_is_open()
            ended = end(first.id, ledger, key_prefix)
            with pytest.raises(JobFailed):
                await waiting[0]
            assert time.monotonic() - ended < NOTICED_S
            await asyncio.sleep(12)
            ended = end(second.id, ledger, key_prefix)
            with pytest.raises(JobFailed):
                await waiting[1]
            assert time.monotonic() - ended < 1

    asyncio.run(main())
