"""Two models, a default, and every way in which a request can come that names neither."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from celery.exceptions import Ignore

from maskq import AsyncClient, Client, InvalidRequest, JobStatus, ServedModel, UnknownModel
from maskq.contract.ids import new_id
from maskq.contract.models import ModelChoice, ServingWorker
from maskq.ledger import Ledger, calls
from maskq.ledger.calls import models
from maskq.settings import Settings
from maskq_gateway.rules.rule import Rule, Rules
from maskq_gateway.rules.triggers import Started, Triggers
from maskq_gateway.sources.notifications import ObjectCreated
from maskq_worker.broker.celery_callers import SegmentRefused, answer
from maskq_worker.settings import WorkerSettings

IMAGE = "s3://photos/a.png"
MASKQ = Path(sys.executable).with_name("maskq")


class Deployment:
    """Where workers of `day` and `night` are alive."""

    def __init__(self, ledger: Ledger, settings: Settings) -> None:
        self.ledger = ledger
        self.prefix = settings.key_prefix
        for name in ("day", "night"):
            self.register(name)

    def register(self, name: str, owner: str = "host:1") -> ServingWorker:
        worker = ServingWorker(
            owner=f"{owner}-{name}", model=name, revision=f"of-{name}", labels=3, since_ms=1
        )
        self.ledger.run(models.register(worker))
        return worker

    def model_of(self, job_id: str) -> str:
        record = self.ledger.run(calls.get(job_id))
        assert record is not None
        return record.model


@pytest.fixture
def deployment(environment: dict[str, str]) -> Iterator[Deployment]:
    settings = Settings.load()
    ledger = Ledger.of(settings)
    yield Deployment(ledger, settings)
    ledger.close()


# Each submits one job that names no model, and returns its id.


def by_client(_: Deployment) -> str:
    with Client.from_env() as client:
        return client.submit(IMAGE).id


def by_async_client(_: Deployment) -> str:
    async def submit() -> str:
        async with AsyncClient.from_env() as client:
            return (await client.submit(IMAGE)).id

    return asyncio.run(submit())


def in_a_batch(_: Deployment) -> str:
    with Client.from_env() as client:
        return client.submit_many([IMAGE]).jobs[0].id


def one_of_many(_: Deployment) -> str:
    with Client.from_env() as client:
        (submission,) = client.submit_each([IMAGE])
        assert submission.job is not None
        return submission.job.id


def by_command(_: Deployment) -> str:
    return subprocess.run(
        [str(MASKQ), "submit", IMAGE], capture_output=True, text=True, check=True
    ).stdout.strip()


def by_upload(_: Deployment) -> str:
    rules = Rules((Rule(name="all", bucket="photos"),))
    with Client.from_env() as client:
        event = ObjectCreated(bucket="photos", key="a.png", etag="e")
        (outcome,) = Triggers(client, rules).start([event])
        assert isinstance(outcome, Started)
        return outcome.job_id


def by_celery(deployment: Deployment) -> str:
    task_id = new_id()
    # The worker that takes it serves `night`, which is its own affair.
    with pytest.raises(Ignore):
        answer(
            deployment.ledger.run,
            WorkerSettings.load(model="night"),
            {"id": task_id},
            [{"image_uri": IMAGE}],
            {},
        )
    return task_id


def by_retry(deployment: Deployment) -> str:
    with Client.from_env() as client:
        job = client.submit(IMAGE)
        job.cancel()
        return client.retry(job.id).id


WAYS = [
    by_client, by_async_client, in_a_batch, one_of_many, by_command, by_upload, by_celery, by_retry,
]  # fmt: skip


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("stored", [True, False], ids=["stored", "by the settings"])
def test_the_deployment_s_default_reaches_every_caller(
    way: Callable[[Deployment], str],
    stored: bool,
    deployment: Deployment,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if stored:
        monkeypatch.setenv("MASKQ_DEFAULT_MODEL", "night")
        deployment.ledger.run(models.set_default("day"))
    else:
        monkeypatch.setenv("MASKQ_DEFAULT_MODEL", "day")
    assert deployment.model_of(way(deployment)) == "day"


def test_a_caller_that_shares_a_worker_s_environment_means_its_model(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASKQ_MODEL", "/models/night/final")
    monkeypatch.setenv("MASKQ_MODEL_NAME", "night")
    assert deployment.model_of(by_client(deployment)) == "night"


def test_without_a_default_every_caller_is_told_what_to_do(deployment: Deployment) -> None:
    with Client.from_env() as client, pytest.raises(UnknownModel) as refused:
        client.submit(IMAGE)
    with pytest.raises(SegmentRefused) as by_celery:
        answer(
            deployment.ledger.run,
            WorkerSettings.load(model="night"),
            {"id": new_id()},
            [{"image_uri": IMAGE}],
            {},
        )
    for text in (str(refused.value), str(by_celery.value)):
        assert "day, night" in text
        assert "maskq models default NAME" in text
        assert "MASKQ_DEFAULT_MODEL" in text
        assert "None" not in text


def test_models_are_values_both_ways(deployment: Deployment) -> None:
    with Client.from_env() as client:
        client.set_default_model("night")
        client.submit(IMAGE)
        found = client.models()
        default = client.default_model()

    async def same() -> object:
        async with AsyncClient.from_env() as client:
            return await client.models()

    assert asyncio.run(same()) == found
    assert [type(model) for model in found] == [ServedModel, ServedModel]
    assert [(m.name, m.default, m.queued, len(m.workers), m.revision) for m in found] == [
        ("day", False, 0, 1, "of-day"),
        ("night", True, 1, 1, "of-night"),
    ]
    assert (default.name, default.choice, default.known) == ("night", ModelChoice.STORED, True)


def test_a_model_in_use_is_retired_only_by_force(deployment: Deployment) -> None:
    with Client.from_env() as client:
        job = client.submit(IMAGE, model="night")
        with pytest.raises(InvalidRequest, match="1 live worker, 1 queued job"):
            client.retire_model("night")
        assert client.retire_model("night", force=True) == 1
        assert job.refresh().status is JobStatus.CANCELED
        with pytest.raises(UnknownModel, match="'night'"):
            client.submit(IMAGE, model="night")
        with pytest.raises(UnknownModel, match="'night'"):
            client.retire_model("night")
        with pytest.raises(UnknownModel, match="did you mean 'day'"):
            client.set_default_model("dya")
        # A worker that still serves it makes it known again
        deployment.register("night")
        client.submit(IMAGE, model="night")


# --- from a shell -------------------------------------------------------------------------------------


def maskq(*arguments: str, code: int = 0, **environment: str) -> str:
    ran = subprocess.run(
        [str(MASKQ), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    assert ran.returncode == code, ran.stderr
    assert ran.stderr.count("\n") == (1 if code else 0), ran.stderr
    return ran.stdout or ran.stderr


def test_the_command_lists_chooses_and_retires(deployment: Deployment) -> None:
    assert "no default" in maskq("models", "default")
    assert "MASKQ_DEFAULT_MODEL" in maskq("models", "default", MASKQ_DEFAULT_MODEL="day")
    assert "refused" in maskq("models", "default", MASKQ_DEFAULT_MODEL="dusk")
    maskq("models", "default", "night")
    listed = maskq("models").splitlines()
    assert listed[0].split() == ["MODEL", "WORKERS", "QUEUED", "REVISION"]
    assert listed[1].split() == ["day", "1", "0", "of-day"]
    assert listed[2].split() == ["*", "night", "1", "0", "of-night"]
    assert maskq("models", "list", "--json") == maskq("models", "--json")
    documents = json.loads(maskq("models", "--json"))["models"]
    assert [(d["name"], d["default"], d["workers"][0]["owner"]) for d in documents] == [
        ("day", False, "host:1-day"),
        ("night", True, "host:1-night"),
    ]
    assert "live worker" in maskq("models", "retire", "night", code=1)
    assert "model 'dusk' is not known here" in maskq("models", "default", "dusk", code=1)
    assert maskq("models", "retire", "night", "--force") == "night retired\n"
    assert "day (by the only one)" in maskq("models", "default")
    maskq("models", "default", "day")
    assert "the only one" in maskq("models", "default", "--clear")
