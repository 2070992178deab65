"""The present version takes over what a former release left in Redis and S3, with nothing lost."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
from celery import Celery
from integration.worker.test_webhook_delivery import Receiver
from standardwebhooks import Webhook
from support.acl_stack import variables_of
from support.former_release import HOOK, RELEASES, FormerRelease
from support.redis_servers import admin
from support.waiting import until

from maskq import Client, FailureCode, JobFailed, JobRecord, JobStatus, Output
from maskq.settings import Settings
from maskq_standalone.servers.redis import RedisServer, find
from maskq_standalone.stack import Stack
from maskq_standalone.workers import WEBHOOKS_COMMAND, Worker

SECRET = "whsec_bWFza3EgdGVzdHMgc2lnbiB3aXRoIHRoaXMga2V5Lg=="
IMAGE = "s3://maskq/photos/teal.png"
ENDING_WELL = (
    "queued", "queued of a tenant", "queued high", "to cancel", "queued in a batch", "running",
    "committed",
)  # fmt: skip
BATCHES = ("batch", "queued batch")
NO_RECORD_YET = "celery waiting"  # until a worker takes the message


@pytest.fixture(scope="module", params=RELEASES)
def release(request: pytest.FixtureRequest) -> FormerRelease:
    return FormerRelease(request.param)


# --- as it was left: no worker runs -------------------------------------------------------------------


@pytest.fixture(scope="module")
def reader(release: FormerRelease, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    server = RedisServer(
        tmp_path_factory.mktemp("former"), password="secret", binary=find(pinned=True)
    )
    try:
        server.start()
        with admin(server) as loading:
            release.load(loading)
        with Client(Settings(redis_url=server.url)) as client:  # type: ignore[arg-type]
            yield client
    finally:
        server.stop()


def test_every_record_is_read_as_it_was_written(release: FormerRelease, reader: Client) -> None:
    for shows in release.jobs.keys() - {*BATCHES, NO_RECORD_YET}:
        fields = release.record(shows)
        record = reader.get(release.jobs[shows]).refresh()
        assert (record.id, record.status) == (release.jobs[shows], fields["status"])
        assert record.model == fields["model"]
        assert record.attempt == int(fields["attempt"])
        assert record.tenant == fields.get("tenant")
        assert record.source == fields["source"]
    result = reader.get(release.jobs["succeeded"]).refresh().result
    assert result is not None
    assert (result.width, result.height) == (64, 48)
    assert len(result.stats) >= 1
    assert result.model_revision is not None


def test_listings_and_counts_are_complete(release: FormerRelease, reader: Client) -> None:
    by_status = {
        status: len(reader.list(status=status, limit=1000).records) for status in JobStatus
    }
    assert by_status == {
        "queued": 7, "running": 2, "succeeded": 5, "failed": 1, "canceled": 1, "expired": 0,
    }  # fmt: skip
    assert len(reader.list(tenant="acme").records) == 3
    assert len(reader.list(batch_id=release.jobs["batch"]).records) == 2


def test_tenants_models_and_keys_are_known(reader: Client) -> None:
    (acme,) = reader.tenants()
    assert (acme.name, acme.settings.weight, acme.settings.max_running) == ("acme", 2, 2)
    assert reader.default_model().name == "smallest"
    assert {key.name for key in reader.api_keys()} == {"shop", "maskq up"}


def test_every_event_is_read_and_a_group_continues(release: FormerRelease, reader: Client) -> None:
    events = list(reader.events(since="0", idle=0.1))
    of_one = [one.type for one in events if one.subject == release.jobs["succeeded"]]
    assert of_one == ["maskq.job.queued", "maskq.job.running", "maskq.job.succeeded"]
    ended = next(one for one in events if one.type == "maskq.job.succeeded")
    assert ended.job().status is JobStatus.SUCCEEDED
    # The group had confirmed two events. The third, which a reader held, comes again.
    shared = list(reader.events(group="billing", take_over=0.0, idle=0.5))
    assert {one.id for one in shared} == {one.id for one in events[2:]}


# --- with workers of the present version --------------------------------------------------------------


@dataclass(frozen=True)
class Deployment:
    """A former release's deployment that processes of the present version have taken over."""

    release: FormerRelease
    stack: Stack
    client: Client
    receiver: Receiver

    def ended(self, shows: str) -> JobRecord:
        return until(
            lambda: (record := self.client.get(self.release.jobs[shows]).refresh()).ended and record
        )


@pytest.fixture(scope="module")
def deployment(release: FormerRelease, smallest_model: Path) -> Iterator[Deployment]:
    env = {
        "MASKQ_LEASE_S": "2",
        "MASKQ_WEBHOOK_ALLOWED_HOSTS": "127.0.0.1",
        "MASKQ_WEBHOOK_SECRET": SECRET,
    }
    receiver = Receiver()
    try:
        with (
            Stack(
                workers=0, pinned=True, model=str(smallest_model), env=env, http_api=True
            ) as stack,
            admin(stack.redis) as loading,
            pytest.MonkeyPatch.context() as patch,
        ):
            store = stack.s3.client()
            release.load(loading, store, hook=f"{receiver.url}/hook")
            store.close()
            for name, value in stack.environment.items():
                patch.setenv(name, value)
            stack.start_workers(1)
            with Client.from_env(transport="direct") as client:
                yield Deployment(release, stack, client, receiver)
    finally:
        receiver.close()


@pytest.mark.parametrize("shows", ENDING_WELL)
def test_a_job_that_had_not_ended_succeeds(deployment: Deployment, shows: str) -> None:
    record = deployment.ended(shows)
    assert record.status is JobStatus.SUCCEEDED, record.error
    result = deployment.client.get(record.id).wait(timeout=1)
    assert result.mask().size == (64, 48)


def test_a_committed_result_is_adopted(deployment: Deployment) -> None:
    """Its worker died between the manifest and the ledger: nothing is computed again."""
    record = deployment.ended("committed")
    of_first_attempt = deployment.release.record("committed")["token"]
    assert record.attempt == 2
    assert record.result is not None
    assert of_first_attempt in record.result.outputs[Output.MASK]


def test_outputs_of_ended_jobs_are_read(deployment: Deployment) -> None:
    result = deployment.client.get(deployment.release.jobs["succeeded"]).wait(timeout=1)
    assert result.mask().size == result.overlay().size == (64, 48)


def test_a_failed_job_is_retried(deployment: Deployment) -> None:
    """Its image is still broken."""
    failed = deployment.release.jobs["failed"]
    again = deployment.client.retry(failed)
    with pytest.raises(JobFailed) as raised:
        again.wait(timeout=30)
    assert raised.value.record.error is not None
    assert raised.value.record.error.code is FailureCode.INVALID_IMAGE
    assert raised.value.record.retry_of == failed


def test_an_idempotency_key_still_names_its_job(deployment: Deployment) -> None:
    again = deployment.client.submit(IMAGE, idempotency_key="order-1", webhook=HOOK)
    assert again.id == deployment.release.jobs["queued"]


def test_a_celery_message_is_answered(deployment: Deployment) -> None:
    url = deployment.stack.redis.url
    with Celery("shop", broker=url, backend=url) as app:
        answered = {
            which: app.AsyncResult(deployment.release.jobs[f"celery {which}"]).get(timeout=60)
            for which in ("answered", "waiting")
        }
    assert {one["width"] for one in answered.values()} == {64}


def test_due_webhooks_are_delivered(deployment: Deployment) -> None:
    stack = deployment.stack
    env = stack.environment | variables_of(stack, "webhooks")
    posting = Worker("webhooks", stack.directory, env, command=WEBHOOKS_COMMAND)
    posting.start()
    try:
        wanted = {
            (deployment.release.jobs["succeeded"], "maskq.job.succeeded"),
            (deployment.release.jobs["batch"], "maskq.batch.completed"),
            (deployment.release.jobs["queued"], "maskq.job.succeeded"),
        }
        until(lambda: len(deployment.receiver.received) >= len(wanted))
        events = [
            Webhook(SECRET).verify(body, headers) for headers, body in deployment.receiver.received
        ]
        assert {(one["subject"], one["type"]) for one in events} == wanted
    finally:
        posting.child.stop(10)


def test_an_upload_and_an_api_key_are_still_good(deployment: Deployment) -> None:
    about = deployment.release.about
    headers = {"Authorization": f"Bearer {about['api_key']}"}
    url = f"{os.environ['MASKQ_GATEWAY_URL']}/v1/jobs"
    answer = httpx2.post(url, json={"upload_id": about["upload_id"]}, headers=headers)
    assert answer.status_code in {200, 202}, (
        answer.text
    )  # 200: a worker was quicker than the answer
    job = deployment.client.get(about["upload_id"])
    assert job.wait(timeout=30).mask().size == (64, 48)
    assert job.refresh().tenant == "acme"


def test_verify_accepts_former_results(deployment: Deployment) -> None:
    job_id = deployment.release.jobs["succeeded"]
    command = [str(Path(sys.executable).with_name("maskq")), "verify", job_id]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert said.returncode == 0, said.stdout + said.stderr
