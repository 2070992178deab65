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
from dataclasses import dataclass
from pathlib import Path

import pytest
from chaos.conftest import IMAGE, Fleet, fleet_of
from support.s3_front import Rule, tell

from maskq import FailureCode, JobRecord, JobStatus
from maskq_standalone.ports import free_port, listens

GOOD, BAD = 240, 80  # jobs a round; a refusal costs the worker 0.7 ms of processor time
BAD_BUCKET = r"^[A-Z]+ /bad/"  # not the folder of the tenant `bad` in the deployment's own bucket
REFUSALS = {
    "403 AccessDenied": Rule(BAD_BUCKET, status=403, code="AccessDenied"),
    "403 InvalidObjectState": Rule(BAD_BUCKET, status=403, code="InvalidObjectState"),
}
OUTAGES = {
    "503 SlowDown": Rule(BAD_BUCKET, status=503, code="SlowDown"),
    "hangs": Rule(BAD_BUCKET, do="hang"),
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


def cpu_of(pid: int) -> float:
    """Seconds of processor time that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Round:
    rate: float  # jobs a second of the tenant whose bucket works
    cpu_ms: float  # of the worker, for each of these jobs
    bad_ids: list[str]  # the other's jobs


class Tenants:
    """One whose bucket works, and one whose does not, with one worker between them."""

    def __init__(self, fleet: Fleet, port: int) -> None:
        self.fleet = fleet
        self.port = port
        self.worker = fleet.stack.start_worker(
            {"MASKQ_S3_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
        )
        self.photo = fleet.stored_image()
        plain, buffer = fleet.stack.s3.client(), io.BytesIO()
        IMAGE.save(buffer, "PNG")
        plain.create_bucket(Bucket="bad")
        plain.put_object(Bucket="bad", Key="photo.png", Body=buffer.getvalue())

    def round(self, bad: int) -> Round:
        client, bad_ids, cpu_s = self.fleet.client, [], cpu_of(self.worker.pid)
        os.kill(self.worker.pid, signal.SIGSTOP)  # else it works while we submit
        try:
            good = client.submit_many([self.photo] * GOOD, tenant="good").jobs
            if bad:
                batch = client.submit_many(["s3://bad/photo.png"] * bad, tenant="bad")
                bad_ids = [job.id for job in batch.jobs]
        finally:
            os.kill(self.worker.pid, signal.SIGCONT)
        for job in good:
            job.wait(timeout=120)
        cpu_ms = (cpu_of(self.worker.pid) - cpu_s) / GOOD * 1000
        records = [job.refresh() for job in good]
        assert {one.status for one in records} == {JobStatus.SUCCEEDED}
        began = min(one.started_ms or 0 for one in records)
        ended = max(one.ended_ms or 0 for one in records)
        return Round(GOOD / (ended - began) * 1000, cpu_ms, bad_ids)

    def by_turns(self, rule: Rule, pairs: int) -> list[tuple[Round, Round]]:
        """Pairs of rounds without and with the bad tenant's jobs, every other pair the other way round.

        Of its jobs only those of the last round are left.
        """
        tell(self.port, [rule])
        done = []
        for number in range(pairs):
            if number % 2:
                done.append((self.round(0), self.round(BAD)))
            else:
                beside = self.round(BAD)
                self._cancel(beside.bad_ids)
                done.append((self.round(0), beside))
            if number < pairs - 1:
                self._cancel(done[-1][1].bad_ids)
        return done

    def records(self, ids: list[str]) -> list[JobRecord]:
        return [self.fleet.client.get(job_id).record for job_id in ids]

    def _cancel(self, ids: list[str]) -> None:
        for job_id in ids:
            self.fleet.client.get(job_id).cancel()


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


def show(what: str, pairs: list[tuple[Round, Round]]) -> float:
    """Print the figures. Returns the median over the pairs of the throughput with it by that without.

    The two rounds of a pair follow each other. Their ratio is free of what changes the machine's speed
    for longer than a round; medians of all rounds are not.
    """
    ratios = sorted(beside.rate / alone.rate for alone, beside in pairs)
    ratio = statistics.median(ratios)
    alone, beside = (statistics.median(one[i].rate for one in pairs) for i in (0, 1))
    cpu = [statistics.median(one[i].cpu_ms for one in pairs) for i in (0, 1)]
    print(
        f"\n{what}: jobs a second of the other tenant {alone:.1f} without and {beside:.1f} with it "
        f"(medians of {len(pairs)} rounds by turns); median ratio of a pair {ratio:.3f} (single pairs "
        f"{ratios[0]:.2f} to {ratios[-1]:.2f}); worker's processor time a job {cpu[0]:.1f} and "
        f"{cpu[1]:.1f} ms"
    )
    return ratio


@pytest.mark.parametrize("what", REFUSALS)
def test_a_bucket_that_refuses_costs_the_other_tenant_nothing(tenants: Tenants, what: str) -> None:
    rule = REFUSALS[what]
    pairs = tenants.by_turns(rule, 12)
    ids = [job_id for _, beside in pairs for job_id in beside.bad_ids]
    tenants.fleet.wait_until(lambda: all(one.ended for one in tenants.records(ids)), 30)
    ended = Counter(
        (one.status, one.attempt, one.error.code if one.error else None)
        for one in tenants.records(ids)
    )
    denied = rule.code == "AccessDenied"
    code = FailureCode.ACCESS_DENIED if denied else FailureCode.STORE_REFUSED
    assert ended == {(JobStatus.FAILED, 1, code): len(ids)}  # at once, none canceled
    assert show(what, pairs) >= 0.95


@pytest.mark.parametrize("what", OUTAGES)
def test_a_bucket_that_does_not_answer_ends_no_job_and_stops_nobody(
    tenants: Tenants, what: str
) -> None:
    pairs = tenants.by_turns(OUTAGES[what], 4)
    ids = pairs[-1][1].bad_ids
    waiting = tenants.records(ids)
    assert {one.charges for one in waiting} == {0}
    assert not any(one.ended for one in waiting)
    show(f"{what} ({sum(one.attempt for one in waiting)} attempts at {len(ids)} jobs)", pairs)
    tell(tenants.port, [])
    tenants.fleet.wait_until(lambda: all(one.ended for one in tenants.records(ids)), 180)
    assert {one.status for one in tenants.records(ids)} == {JobStatus.SUCCEEDED}
