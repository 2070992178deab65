"""Redis is away, or full, just when somebody waits for a job or starts a worker."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import redis
from PIL import Image
from support.waiting import until

from maskq import AsyncClient, Client, JobStatus
from maskq.ledger import calls, keys
from maskq_standalone.stack import Stack

IMAGE = Image.new("RGB", (64, 48), "teal")
MODEL = "smallest"


async def width_of(job_id: str) -> int:
    async with AsyncClient.from_env() as client:
        return (await (await client.get(job_id)).wait(timeout=90)).details.width


def test_who_waits_and_who_starts_put_up_with_a_redis_that_is_away(
    fresh_stack: Stack, fresh_client: Client, direct: Client
) -> None:
    # Given two jobs that are on disk, and a caller of each that waits for it
    ledger = direct.session.ledger
    ledger.run(calls.register_model(MODEL, {}))
    jobs = [fresh_client.submit(IMAGE, durable=True) for _ in range(2)]
    channels = [keys.wake(job.id).within(ledger.prefix) for job in jobs]
    with ThreadPoolExecutor(3) as pool:
        blocking = pool.submit(jobs[0].wait, timeout=90)
        awaiting = pool.submit(asyncio.run, width_of(jobs[1].id))
        with redis.Redis.from_url(fresh_stack.redis.url) as admin:
            until(lambda: admin.execute_command("PUBSUB", "NUMSUB", *channels)[1::2] == [1, 1])

        # When Redis dies, and a worker starts before it is back
        fresh_stack.kill_redis()
        starting = pool.submit(fresh_stack.start_worker)
        until(lambda: any("trying again" in one.child.log_tail() for one in fresh_stack.workers))
        assert not blocking.done()
        assert not awaiting.done()
        fresh_stack.restart_redis()

        # Then the worker is the same one, does the jobs, and both hear of it
        worker = starting.result(60)
        assert worker.child.alive
        assert blocking.result(60).details.width == awaiting.result(60) == IMAGE.width


def test_a_worker_that_starts_while_redis_is_full_works_it_off(
    fresh_stack: Stack, fresh_client: Client, direct: Client
) -> None:
    # Given a job in a Redis that then has no room left
    ledger = direct.session.ledger
    ledger.run(calls.register_model(MODEL, {}))
    job = fresh_client.submit(IMAGE)
    with redis.Redis.from_url(fresh_stack.redis.url) as admin:
        admin.config_set("maxmemory", "1")

    # When a worker starts, then it does the job
    fresh_stack.start_worker()
    job.wait(timeout=60)
    assert job.refresh().status is JobStatus.SUCCEEDED
