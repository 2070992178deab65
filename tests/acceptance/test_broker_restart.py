"""The gate for every upgrade of celery, kombu and redis-py: Redis dies under load."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from acceptance.conftest import LEASE_S
from bench.checkpoints import write_smallest
from PIL import Image

from maskq import Client, JobStatus
from maskq_standalone.stack import Stack

JOBS = 500


@pytest.fixture
def fresh_stack(tmp_path: Path) -> Iterator[Stack]:
    """With a model that costs nothing: it is the queue that is tested."""
    model = write_smallest(tmp_path / "smallest")
    environment = {"MASKQ_LEASE_S": str(LEASE_S)}
    with Stack(workers=0, pinned=True, model=str(model), env=environment) as running:
        yield running


def test_500_jobs_over_2_workers_survive_a_killed_redis(
    fresh_stack: Stack, fresh_client: Client
) -> None:
    # Given two worker processes and 500 jobs, some of which have ended
    workers = fresh_stack.start_workers(2)
    image = Image.new("RGB", (64, 48), "teal")
    batch = fresh_client.submit_many([image] * JOBS)
    while batch.progress().counts.get(JobStatus.SUCCEEDED, 0) < JOBS // 10:
        time.sleep(0.1)

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
