"""A tenant whose bucket refuses, fails or hangs, beside one whose bucket works."""

from __future__ import annotations

import io
import os
import signal
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from chaos.conftest import IMAGE, Fleet, fleet_of
from support.s3_front import Rule, tell

from maskq import FailureCode, JobStatus
from maskq_standalone.ports import free_port, listens

GOOD, BAD = 240, 80  # jobs a round
REFUSALS = {
    "403 AccessDenied": Rule("/bad/", status=403, code="AccessDenied"),
    "403 InvalidObjectState": Rule("/bad/", status=403, code="InvalidObjectState"),
}
OUTAGES = {
    "503 SlowDown": Rule("/bad/", status=503, code="SlowDown"),
    "hangs": Rule("/bad/", do="hang"),
}
FRONT = Path(__file__).parents[1] / "support" / "s3_front.py"


@contextmanager
def front_of(fleet: Fleet) -> Iterator[int]:
    """The port of a process in front of the fleet's S3 server, which answers for the bucket `bad`."""
    port = free_port()
    process = subprocess.Popen([sys.executable, str(FRONT), str(fleet.stack.s3.port), str(port)])
    try:
        fleet.wait_until(lambda: listens(port), 20)
        yield port
    finally:
        process.kill()
        process.wait()


class Tenants:
    """One whose bucket works, and one whose does not, with one worker between them."""

    def __init__(self, fleet: Fleet, port: int) -> None:
        self.fleet = fleet
        self.port = port
        self.worker = fleet.stack.start_worker(
            {"MASKQ_S3_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
        )
        self.photo = fleet.client.submit(IMAGE).refresh().request.image_uri
        plain, buffer = fleet.stack.s3.client(), io.BytesIO()
        IMAGE.save(buffer, "PNG")
        plain.create_bucket(Bucket="bad")
        plain.put_object(Bucket="bad", Key="photo.png", Body=buffer.getvalue())

    def round(self, bad: int) -> tuple[float, list[str]]:
        """Jobs a second of the tenant whose bucket works, and the other's jobs."""
        client, bad_ids = self.fleet.client, []
        os.kill(self.worker.pid, signal.SIGSTOP)  # else it works while we submit
        try:
            good = client.submit_many([self.photo] * GOOD, tenant="good").jobs
            if bad:
                place = "s3://bad/photo.png"
                batch = client.submit_many([place] * bad, tenant="bad")
                bad_ids = [job.id for job in batch.jobs]
        finally:
            os.kill(self.worker.pid, signal.SIGCONT)
        for job in good:
            job.wait(timeout=120)
        records = [job.refresh() for job in good]
        assert {one.status for one in records} == {JobStatus.SUCCEEDED}
        began = min(one.started_ms or 0 for one in records)
        return GOOD / (max(one.ended_ms or 0 for one in records) - began) * 1000, bad_ids


@pytest.fixture(scope="module")
def tenants(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tenants]:
    directory = tmp_path_factory.mktemp("bad-store")
    with (
        pytest.MonkeyPatch.context() as patch,
        fleet_of(directory, patch, workers=0) as fleet,
        front_of(fleet) as port,
    ):
        made = Tenants(fleet, port)
        made.round(0)  # warm
        yield made


def by_turns(
    tenants: Tenants, rule: Rule, rounds: int
) -> tuple[list[float], list[float], list[str]]:
    """Throughput without and with the bad tenant's jobs, each pair in the other order; its jobs."""
    alone, beside, ids = [], [], []
    tell(tenants.port, [rule])
    for number in range(rounds):
        for with_bad in (False, True) if number % 2 else (True, False):
            rate, bad_ids = tenants.round(BAD if with_bad else 0)
            (beside if with_bad else alone).append(rate)
            ids += bad_ids
    return alone, beside, ids


def show(what: str, alone: list[float], beside: list[float]) -> float:
    ratio = statistics.median(b / a for a, b in zip(alone, beside, strict=True))
    print(
        f"\n{what}: jobs a second of the other tenant {statistics.median(alone):.1f} without, "
        f"{statistics.median(beside):.1f} with it; ratio {ratio:.3f} (median of {len(alone)} pairs, "
        f"{min(b / a for a, b in zip(alone, beside, strict=True)):.2f} to "
        f"{max(b / a for a, b in zip(alone, beside, strict=True)):.2f})"
    )
    return ratio


@pytest.mark.parametrize("what", REFUSALS)
def test_a_bucket_that_refuses_costs_the_other_tenant_nothing(tenants: Tenants, what: str) -> None:
    rule = REFUSALS[what]
    alone, beside, ids = by_turns(tenants, rule, 8)
    client = tenants.fleet.client
    tenants.fleet.wait_until(lambda: all(client.get(i).record.ended for i in ids), 30)
    ended = Counter(
        (one.status, one.attempt, one.error.code if one.error else None)
        for one in (client.get(i).record for i in ids)
    )
    denied = rule.code == "AccessDenied"
    code = FailureCode.ACCESS_DENIED if denied else FailureCode.STORE_REFUSED
    assert ended == {(JobStatus.FAILED, 1, code): len(ids)}  # at once
    assert show(what, alone, beside) >= 0.95


@pytest.mark.parametrize("what", OUTAGES)
def test_a_bucket_that_does_not_answer_ends_no_job_and_stops_nobody(
    tenants: Tenants, what: str
) -> None:
    alone, beside, ids = by_turns(tenants, OUTAGES[what], 4)
    client = tenants.fleet.client
    waiting = [client.get(i).record for i in ids]
    attempts = sum(one.attempt for one in waiting)
    assert {one.charges for one in waiting} == {0}
    assert not any(one.ended for one in waiting)
    show(f"{what} ({attempts} attempts at {len(ids)} jobs)", alone, beside)
    tell(tenants.port, [])
    tenants.fleet.wait_until(lambda: all(client.get(i).record.ended for i in ids), 180)
    assert {client.get(i).record.status for i in ids} == {JobStatus.SUCCEEDED}
