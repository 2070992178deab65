"""From no worker to two, down in the middle of the work, and to none: no job is lost or charged."""

from __future__ import annotations

from demo_scenes.scenes import draw
from support.stack_jobs import jpeg
from support.waiting import until

from maskq import Client, JobStatus
from maskq.contract.statuses import TERMINAL
from maskq.ledger.calls import queueing
from maskq.ledger.calls.queueing import Demand
from maskq_standalone.stack import Stack
from maskq_standalone.workers import Worker

JOBS = 60


def stop(worker: Worker) -> None:
    """As an autoscaler does: SIGTERM, and time to finish."""
    worker.child.stop(grace_s=30)
    assert worker.child.returncode == 0


def demand(client: Client) -> Demand:
    (found,) = client.session.run(queueing.demand())
    return found


def test_scaled_from_zero_and_back_no_job_is_lost_or_charged(
    fresh_stack: Stack, fresh_client: Client, direct: Client
) -> None:
    photo = jpeg(draw(3, size=(320, 240)).image)
    # Given a model whose last worker went
    (first,) = fresh_stack.start_workers(1)
    fresh_client.submit(photo).wait(timeout=60)
    stop(first)
    until(lambda: demand(direct).workers == 0, within_s=10)

    # When jobs come, then one worker is desired at least, whether or not its speed is known
    jobs = fresh_client.submit_many([photo] * JOBS).jobs
    assert demand(direct).startable == JOBS
    assert demand(direct).workers_for(60) >= 1
    one, two = fresh_stack.start_workers(2)

    # When one of the two goes in the middle of the work
    until(lambda: sum(job.refresh().status in TERMINAL for job in jobs) >= 5, within_s=60)
    stop(one)
    for job in jobs:
        job.wait(timeout=60)

    # Then every job succeeded, none was charged, and the speed is known
    records = [job.refresh() for job in jobs]
    assert {record.status for record in records} == {JobStatus.SUCCEEDED}
    assert {record.charges for record in records} == {0}
    found = demand(direct)
    assert (found.startable, found.running) == (0, 0)
    assert found.seconds == 0.0
    assert found.rate_of_one

    # When the last one goes, then the next job is demand again, at the speed that was measured
    stop(two)
    until(lambda: demand(direct).workers == 0, within_s=10)
    fresh_client.submit(photo)
    later = demand(direct)
    assert later.seconds
    assert later.workers_for(60) >= 1
