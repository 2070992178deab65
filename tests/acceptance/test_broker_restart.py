"""The gate for every upgrade of celery, kombu and redis-py: Redis dies under load."""

from __future__ import annotations

import time
from collections import Counter

from PIL import Image
from support.waiting import until

from maskq import Client, JobStatus
from maskq_standalone.stack import Stack

JOBS = 500


def test_500_jobs_over_2_workers_survive_a_killed_redis(
    fresh_stack: Stack, fresh_client: Client
) -> None:
    # Given two worker processes and 500 jobs, some of which have ended
    workers = fresh_stack.start_workers(2)
    image = Image.new("RGB", (64, 48), "teal")
    batch = fresh_client.submit_many([image] * JOBS)
    until(lambda: batch.progress().counts.get(JobStatus.SUCCEEDED, 0) >= JOBS // 10)

    # When Redis is killed and started again
    fresh_stack.kill_redis()
    time.sleep(1.0)
    fresh_stack.restart_redis()

    # Then every job succeeds, with one terminal event each, and the workers are still the same
    ended = list(batch.as_completed(timeout=60))
    assert Counter(job.status for job in ended) == {JobStatus.SUCCEEDED: JOBS}
    assert len({job.id for job in ended}) == JOBS
    terminal = [
        event
        for event in fresh_client.events(since="0", idle=1)
        if event.type == "maskq.job.succeeded"
    ]
    assert sorted(event.subject for event in terminal) == sorted(job.id for job in batch.jobs)
    assert len({event.id for event in terminal}) == JOBS
    assert all(worker.child.alive for worker in workers)
