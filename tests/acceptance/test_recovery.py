"""Workers come and go; jobs do not."""

from __future__ import annotations

import os
import signal
import time

import pytest
from acceptance.conftest import LEASE_S
from demo_scenes.scenes import draw
from support.stack_jobs import jpeg, names_of, pid_of, stopped_mid_run
from support.waiting import stays, until

from maskq import Client, JobStatus
from maskq_standalone.stack import Stack
from maskq_standalone.workers import Worker


@pytest.fixture(scope="module")
def large() -> bytes:
    """Takes a worker a second or more: time enough to kill it in the middle."""
    return jpeg(draw(11, size=(640, 480)).image.resize((4800, 3600)))


def log_of(worker: Worker) -> str:
    return worker.child.log.read_text()


def test_a_killed_worker_s_job_runs_elsewhere_within_lease_plus_5_s(
    fresh_stack: Stack, fresh_client: Client, large: bytes
) -> None:
    # Given two workers, and a job in the hands of one
    workers = {worker.pid: worker for worker in fresh_stack.start_workers(2)}
    job, victim = stopped_mid_run(lambda: fresh_client.submit(large))
    assert victim in workers

    # When that worker is killed
    os.kill(victim, signal.SIGKILL)
    killed = time.monotonic()

    # Then another one starts the job in time, and it ends well, uncharged
    within_s = killed + LEASE_S + 5 - time.monotonic()
    until(lambda: job.refresh().attempt >= 2, within_s=within_s)
    job.wait(timeout=60)
    record = job.refresh()
    assert (record.status, record.attempt, record.charges) == (JobStatus.SUCCEEDED, 2, 0)
    assert pid_of(record) in workers.keys() - {victim}


def test_a_worker_that_stood_still_past_its_lease_does_no_harm(
    fresh_stack: Stack, fresh_client: Client, large: bytes
) -> None:
    # Given a job whose worker is stopped in the middle (a debugger, a suspended machine)
    fresh_stack.start_workers(2)
    job, holder = stopped_mid_run(lambda: fresh_client.submit(large))

    # When another one has done the job, and the first goes on
    result = job.wait(timeout=60)
    ended = job.refresh()
    os.kill(holder, signal.SIGCONT)
    after = fresh_client.submit_many([draw(n, size=(320, 240)).image for n in range(6)])
    assert all(one.record is not None for one in after.as_completed(timeout=60))

    # Then nothing about the job has changed, and its outputs are the second's alone
    assert job.refresh() == ended
    assert (ended.attempt, ended.status) == (2, JobStatus.SUCCEEDED)
    assert result.mask().size == (4800, 3600)
    store = fresh_stack.s3.client()
    expected = ["input", "mask.png", "result.json"]
    until(
        lambda: names_of(store, job) == expected,
        within_s=30,
        otherwise=lambda: names_of(store, job),
    )


def test_sigterm_lets_what_runs_end_and_exits_0(
    fresh_stack: Stack, fresh_client: Client, large: bytes
) -> None:
    # Given a job in mid-run
    worker = fresh_stack.start_worker()
    job, _ = stopped_mid_run(lambda: fresh_client.submit(large))

    # When the worker is told to stop
    os.kill(worker.pid, signal.SIGTERM)
    os.kill(worker.pid, signal.SIGCONT)

    # Then it ends the job in its first attempt, and itself with exit code 0
    worker.child.wait_ended(60)
    assert worker.child.returncode == 0
    record = job.refresh()
    assert (record.status, record.attempt) == (JobStatus.SUCCEEDED, 1)


def test_jobs_wait_out_an_outage_of_s3_and_a_waiting_worker_can_be_stopped(
    fresh_stack: Stack, fresh_client: Client
) -> None:
    # Given a worker, and jobs that arrive while S3 is away
    worker = fresh_stack.start_worker()
    image = fresh_client.submit(draw(3, size=(320, 240)).image)
    image.wait(timeout=60)
    place = image.refresh().request.image_uri
    fresh_stack.kill_s3()
    jobs = [fresh_client.submit(place) for _ in range(12)]

    # When one of them has met it, nothing more is claimed
    until(lambda: any(job.refresh().error for job in jobs))
    until(lambda: "no job is claimed until the store answers" in log_of(worker))
    until(lambda: not any(job.refresh().status is JobStatus.RUNNING for job in jobs))
    attempts = [job.refresh().attempt for job in jobs]
    stays(lambda: [job.refresh().attempt for job in jobs] == attempts, for_s=3.0)

    # Then the worker still stops at once, and the next one does them all once S3 is back, uncharged
    os.kill(worker.pid, signal.SIGTERM)
    worker.child.wait_ended(20)
    assert worker.child.returncode == 0
    fresh_stack.restart_s3()
    fresh_stack.start_worker()
    for job in jobs:
        job.wait(timeout=60)
        assert job.refresh().charges == 0
