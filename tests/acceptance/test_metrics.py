"""The metrics of a deployment and of its workers are those of the run, across a killed worker."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterable
from typing import Any

import pytest
import urllib3
from demo_scenes.scenes import draw
from integration.gateway.test_gateway_metrics import Values, value, values
from support.http_api import png
from support.stack_jobs import jpeg, stopped_mid_run
from support.waiting import until

from maskq import Client, Job, JobFailed
from maskq.ledger.calls.metrics import DeploymentMetrics, Ended, deployment_metrics
from maskq_standalone.ports import free_port, is_free
from maskq_standalone.stack import Stack
from maskq_standalone.workers import Worker


def port_before_two_free_ones() -> int:
    port = free_port()
    return port if is_free(port + 1) and is_free(port + 2) else 0


@pytest.fixture
def stack_options() -> dict[str, Any]:
    port = until(port_before_two_free_ones)
    return {"env": {"MASKQ_METRICS_PORT": str(port), "MASKQ_LOG_FORMAT": "json"}}


def of_worker(stack: Stack, number: int) -> Values:
    """The series of the worker of this number, from 1 on."""
    port = int(stack.environment["MASKQ_METRICS_PORT"]) + number
    url = f"http://127.0.0.1:{port}/metrics"
    return values(urllib3.request("GET", url, retries=False).data.decode())


def committed(found: Values) -> float:
    """How many jobs; a process that has committed none does not have the series."""
    return found.get(("maskq_stage_seconds_count", frozenset({("stage", "commit")})), 0)


def ends_logged(workers: Iterable[Worker]) -> list[dict[str, Any]]:
    """The whole lines of jobs that succeeded or failed."""
    logs = [worker.child.log.read_text() for worker in workers]
    whole = [line for text in logs for line in text.splitlines(keepends=True) if line[-1] == "\n"]
    lines = [json.loads(line) for line in whole if line[0] == "{"]
    return [line for line in lines if line.get("status") in ("succeeded", "failed")]


def ended(client: Client) -> DeploymentMetrics:
    return client.session.run(deployment_metrics())


def test_the_numbers_are_those_of_a_run_with_a_killed_worker(
    fresh_stack: Stack, fresh_client: Client, direct: Client
) -> None:
    # Given two workers that end six jobs, of which two fail
    first, second = fresh_stack.start_workers(2)
    small = [fresh_client.submit(png()) for _ in range(4)]
    missing = [fresh_client.submit("s3://maskq/nowhere.png") for _ in range(2)]
    for job in small:
        job.wait(timeout=60)
    for job in missing:
        with pytest.raises(JobFailed):
            job.wait(timeout=60)
    until(lambda: sum(committed(of_worker(fresh_stack, number)) for number in (1, 2)) == 4)
    per_worker = [of_worker(fresh_stack, number) for number in (1, 2)]
    assert sum(committed(one) for one in per_worker) == 4
    assert sum(value(one, "maskq_batch_size_sum") for one in per_worker) == 4
    assert all(value(one, "maskq_store_breaker_open", store="home") == 0 for one in per_worker)
    assert sum(value(one, "maskq_store_errors_total", kind="refusal") for one in per_worker) >= 2

    # When one is killed while it runs a job
    large = jpeg(draw(11, size=(640, 480)).image.resize((4800, 3600)))
    submitted: list[Job] = []

    def submit() -> Job:
        submitted.append(fresh_client.submit(large))
        return submitted[-1]

    job, victim = stopped_mid_run(submit)
    dead, left = (1, 2) if victim == first.pid else (2, 1)
    before = committed(of_worker(fresh_stack, left))
    os.kill(victim, signal.SIGKILL)
    job.wait(timeout=60)

    # Then the job counts once, its series are gone, and the other worker has the rest
    found = ended(direct)
    model = job.refresh().model
    assert found.ended == {
        Ended(model, "succeeded", ""): len(small) + len(submitted),
        Ended(model, "failed", "not_found"): 2,
    }
    assert (found.leases_lost, found.retries) == (1, {"worker_lost": 1})
    assert (found.running, sum(one.demand.queued for one in found.models)) == (0, 0)
    with pytest.raises(urllib3.exceptions.HTTPError):
        of_worker(fresh_stack, dead)
    until(lambda: committed(of_worker(fresh_stack, left)) == before + 1)

    # And each worker logged one JSON line for each job that ended there
    until(lambda: len(ends_logged((first, second))) >= 6 + len(submitted))
    of_jobs = ends_logged((first, second))
    assert sorted(line["job"] for line in of_jobs) == sorted(
        one.id for one in [*small, *missing, *submitted]
    )
    (again,) = [line for line in of_jobs if line["job"] == job.id]
    assert (again["attempt"], again["model"], again["status"]) == (2, model, "succeeded")
    assert again["stage_seconds"].keys() >= {"fetch", "decode", "model", "commit"}
    assert {line["code"] for line in of_jobs if line["status"] == "failed"} == {"not_found"}
