"""`maskq retry --code`: all that failed or expired for one reason, over both transports."""

from __future__ import annotations

from support import bulk
from support.bulk import BROKEN, Service, places
from support.waiting import until
from typer.testing import CliRunner

from maskq import FailureCode, Job, JobStatus
from maskq.cli import build
from maskq.contract.ids import new_token
from maskq.ledger import calls

service = bulk.service


def retried(code: str) -> set[str]:
    """The old ids of the jobs that are submitted again."""
    ran = CliRunner().invoke(build(), ["retry", "--code", code])
    assert ran.exit_code == 0, ran.output
    return {line.rpartition(" ")[2] for line in ran.stdout.splitlines()}


def test_each_code_finds_its_failed_and_its_expired_jobs(service: Service) -> None:
    # Given two expired jobs, a failed one, and one that waits for its second attempt
    expired = [service.client.submit(place, queue_ttl=1) for place in places(2)]
    until(lambda: {status_after_a_sweep(service, job) for job in expired} == {JobStatus.EXPIRED})
    [failed, waiting] = [service.client.submit(place) for place in places(2, "others")]
    token = claimed(service, failed.id)
    service.ledger.run(calls.fail(failed.id, token, JobStatus.FAILED, BROKEN))
    token = claimed(service, waiting.id)
    service.ledger.run(calls.release(waiting.id, token, BROKEN, charged=True, delay_s=60))
    # Then each reason finds its own
    assert retried("expired") == {job.id for job in expired}
    assert retried(FailureCode.INVALID_IMAGE) == {failed.id}


def status_after_a_sweep(service: Service, job: Job) -> JobStatus:
    service.ledger.run(calls.sweep(lease_s=60))
    return job.refresh().status


def claimed(service: Service, job_id: str) -> str:
    token = new_token()
    claim = service.ledger.run(calls.claim("demo", token, owner="x:1", lease_s=60))
    assert claim.record
    assert claim.record.id == job_id
    return token
