"""Limits of tenants, and why a job waits, on every way to submit: direct, HTTP, Celery, the command."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from integration.client import test_cli_edges
from integration.worker.test_pipeline import Bench
from support.http_api import Api, serving

from maskq import AsyncClient, Client, FailureCode, InvalidRequest, JobNotFound, SubmitRateExceeded
from maskq.contract.queueing.tenants import TenantSettings
from maskq.contract.queueing.waiting import WaitReason
from maskq.errors import QueueFull, SegmentRefused
from maskq_gateway.asgi import application
from maskq_gateway.settings import GatewaySettings
from maskq_worker.broker import celery_callers

PLACE = "s3://photos/a.png"


def command(*arguments: str) -> str:
    ran = test_cli_edges.run(*arguments)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


@pytest.fixture
def direct(environment: dict[str, str], bench: Bench) -> Iterator[Client]:
    with Client.from_env() as client:
        yield client


@pytest.fixture
def api(direct: Client) -> Iterator[Api]:
    with serving(application(GatewaySettings.load(), direct)) as api:
        api.key = direct.create_api_key(["admin"]).text
        yield api


@pytest.fixture(params=["direct", "http"])
def client(request: pytest.FixtureRequest, direct: Client) -> Iterator[Client]:
    if request.param == "direct":
        yield direct
        return
    api = request.getfixturevalue("api")
    with Client(api.url, api_key=api.key) as made:
        yield made


def test_a_tenant_submits_no_faster_than_it_may(client: Client, direct: Client) -> None:
    direct.set_tenant("acme", submit_rate=2)
    for _ in range(2):
        client.submit(PLACE, tenant="acme")
    with pytest.raises(SubmitRateExceeded, match="'acme' may submit 2 jobs a minute") as refused:
        client.submit(PLACE, tenant="acme", queue_full_timeout=0)
    assert refused.value.code is FailureCode.SUBMIT_RATE_EXCEEDED
    assert 20 < refused.value.retry_after_s <= 31
    client.submit(PLACE, tenant="other")


def test_submit_waits_for_the_rate_as_for_a_full_queue(client: Client, direct: Client) -> None:
    direct.set_tenant("acme", submit_rate=240)
    batch = client.submit_many([PLACE] * 241, tenant="acme", queue_full_timeout=30)
    assert len(batch.jobs) == 241


def test_over_http_it_is_a_problem_with_retry_after(api: Api, direct: Client) -> None:
    direct.set_tenant("acme", submit_rate=1)
    assert api.post("/v1/jobs", {"image_uri": PLACE, "tenant": "acme"}).status == 202
    refused = api.post("/v1/jobs", {"image_uri": PLACE, "tenant": "acme"})
    api.problem(refused, 429, "submit_rate_exceeded")
    assert 50 < int(refused.headers["Retry-After"]) <= 60


def test_a_celery_caller_is_refused_with_the_same_code(bench: Bench, direct: Client) -> None:
    direct.set_tenant("acme", submit_rate=1)
    direct.submit(PLACE, tenant="acme")
    args = [{"image_uri": PLACE, "tenant": "acme"}]
    with pytest.raises(SegmentRefused, match="submit_rate_exceeded: tenant 'acme'"):
        celery_callers.answer(bench.pipeline.persist, bench.settings, {"id": "task-1"}, args, {})


def test_the_limit_of_waiting_jobs_is_a_tenant_s_own(client: Client, direct: Client) -> None:
    direct.set_tenant("acme", max_queued=1)
    client.submit(PLACE, tenant="acme")
    with pytest.raises(QueueFull):
        client.submit(PLACE, tenant="acme", queue_full_timeout=0)


def test_why_says_the_same_everywhere(client: Client, direct: Client) -> None:
    first, second = (client.submit(PLACE) for _ in range(2))
    found = client.why(second.id)
    assert found == direct.why(second.id)
    assert (found.reason, found.position) == (WaitReason.NO_WORKER, 1)
    first.cancel()
    assert client.why(first.id).reason is WaitReason.ENDED
    with pytest.raises(JobNotFound):
        client.why("0199d3c0-0000-7000-8000-000000000000")


def test_another_tenant_s_job_is_unknown(api: Api, direct: Client) -> None:
    job = direct.submit(PLACE, tenant="acme")
    key = direct.create_api_key(["read"], tenant="other").text
    with Client(api.url, api_key=key) as other, pytest.raises(JobNotFound):
        other.why(job.id)


def test_awaited_it_does_the_same(direct: Client) -> None:
    async def all_of_it() -> None:
        async with AsyncClient.from_env() as client:
            state = await client.set_tenant("acme", weight=3, max_running=2)
            assert state.settings == TenantSettings(weight=3, max_running=2)
            assert await client.tenants() == [state] == [await client.tenant("acme")]
            job = await client.submit(PLACE, tenant="acme")
            assert (await client.why(job.id)).reason is WaitReason.NO_WORKER
            assert (await client.unset_tenant("acme")).settings == TenantSettings()
            assert await client.tenants() == []

    asyncio.run(all_of_it())


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (lambda client: client.set_tenant("a b", weight=1), "not a valid name of a tenant"),
        (lambda client: client.set_tenant("", weight=1), "not a valid name of a tenant"),
        (lambda client: client.set_tenant("acme", weight=0), "weight"),
        (lambda client: client.set_tenant("acme", weight=101), "weight"),
        (lambda client: client.set_tenant("acme", submit_rate=0), "submit_rate"),
        (lambda client: client.set_tenant("acme", max_running=-1), "max_running"),
    ],
)
def test_what_is_not_valid_is_refused(
    direct: Client, act: Callable[[Client], Any], said: str
) -> None:
    with pytest.raises(InvalidRequest, match=said):
        act(direct)
    assert direct.tenants() == []


def test_the_commands_set_show_list_and_unset(direct: Client) -> None:
    assert "weight 3  max running 2" in command(
        "tenants", "set", "acme", "--weight", "3", "--max-running", "2", "--submit-rate", "60"
    )
    shown = json.loads(command("tenants", "show", "acme", "--json"))
    assert shown["settings"] == {
        "weight": 3, "max_running": 2, "submit_rate": 60, "max_queued": None,
    }  # fmt: skip
    assert command("tenants", "list").startswith("acme  weight 3")
    assert json.loads(command("tenants", "list", "--json"))["tenants"] == [shown]
    job = direct.submit(PLACE)
    assert command("why", job.id).startswith(f"job {job.id} waits for a worker")
    assert json.loads(command("why", job.id, "--json"))["reason"] == "no_worker"
    assert "weight 1" in command("tenants", "unset", "acme")
    assert command("tenants", "list") == ""
