"""Notifications of a real bucket in a real queue become jobs."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import urllib3
from support.uploads import Uploads, notified_bucket, reading
from support.waiting import stays, until

from maskq import Client, InvalidRequest
from maskq.contract.locations import S3Uri
from maskq.ledger import calls
from maskq.process.stop_signal import StopSignal
from maskq_gateway.rules.rule import Rules
from maskq_gateway.settings import GatewaySettings
from maskq_gateway.sqs import process
from maskq_standalone.ports import free_port

if TYPE_CHECKING:
    from maskq_standalone.servers.s3 import S3Server

ROOT = Path(__file__).parents[3]


@pytest.fixture
def uploads(s3_server: S3Server, key_prefix: str) -> Iterator[Uploads]:
    with notified_bucket(s3_server, key_prefix) as bucket:
        yield bucket


@pytest.fixture
def settings(
    environment: dict[str, str],
    s3_server: S3Server,
    uploads: Uploads,
    monkeypatch: pytest.MonkeyPatch,
) -> GatewaySettings:
    monkeypatch.setenv("MASKQ_SQS_ENDPOINT_URL", s3_server.endpoint_url)
    monkeypatch.setenv("MASKQ_TRIGGER_QUEUE_URL", uploads.url)
    return GatewaySettings.load()


@pytest.fixture
def client(settings: GatewaySettings) -> Iterator[Client]:
    with Client(settings) as connected:
        ledger = connected.session.ledger
        ledger.run(calls.register_model("some", {}))
        yield connected


@pytest.fixture
def rules(uploads: Uploads) -> Rules:
    table = {"name": "scans", "bucket": uploads.bucket}
    return Rules.of([table], own_output=S3Uri("maskq", "maskq"))


def images(client: Client) -> list[str]:
    return sorted(record.request.image_uri for record in client.list(limit=1000).records)


def test_an_upload_becomes_one_job_and_its_message_goes(
    settings: GatewaySettings, rules: Rules, client: Client, uploads: Uploads
) -> None:
    uploads.put("in/grün + 1.jpg")
    uploads.put("notes.txt")
    uploads.send(json.dumps({"Service": "Amazon S3", "Event": "s3:TestEvent"}))
    assert uploads.left() >= 3
    with reading(settings, rules):
        until(lambda: uploads.left() == 0)
    assert images(client) == [f"s3://{uploads.bucket}/in/grün + 1.jpg"]
    (record,) = client.list().records
    head = uploads.s3.head_object(Bucket=uploads.bucket, Key="in/grün + 1.jpg")
    assert record.request.image_etag == head["ETag"].strip('"')


def test_a_message_that_is_no_event_stays_and_holds_up_nothing(
    settings: GatewaySettings, rules: Rules, client: Client, uploads: Uploads
) -> None:
    uploads.sqs.purge_queue(QueueUrl=uploads.url)
    uploads.send("hello")
    uploads.put("1.jpg")
    with reading(settings, rules):
        until(lambda: uploads.left() == 1 and images(client))
    assert images(client) == [f"s3://{uploads.bucket}/1.jpg"]
    until(lambda: "Messages" in uploads.sqs.receive_message(QueueUrl=uploads.url))


def test_a_tenant_over_its_submit_rate_holds_up_no_other(
    settings: GatewaySettings, client: Client, uploads: Uploads
) -> None:
    tables = [
        {"name": name, "bucket": uploads.bucket, "prefix": f"{name}/", "tenant": name}
        for name in ("acme", "other")
    ]
    client.set_tenant("acme", submit_rate=1)
    for name in ("acme/1.jpg", "acme/2.jpg", "other/1.jpg", "other/2.jpg"):
        uploads.put(name)
    with reading(settings, Rules.of(tables, own_output=S3Uri("maskq", "maskq"))):
        until(lambda: uploads.left() == 1 and len(images(client)) == 3)
    tenants = [record.tenant for record in client.list().records]
    assert sorted(filter(None, tenants)) == ["acme", "other", "other"]


def test_a_refused_job_leaves_its_message(
    settings: GatewaySettings, client: Client, uploads: Uploads
) -> None:
    table = {"name": "scans", "bucket": uploads.bucket, "model": "none"}
    refusing = Rules.of([table], own_output=S3Uri("maskq", "maskq"))
    uploads.put("1.jpg")
    before = uploads.left()
    with reading(settings, refusing):
        until(lambda: uploads.left() <= 1)  # a test event of the bucket's own may have been there
        stays(lambda: uploads.left() == 1, for_s=0.5)
    assert before >= uploads.left() == 1
    assert images(client) == []


def test_with_the_ledger_away_messages_wait_for_it(
    settings: GatewaySettings, rules: Rules, client: Client, uploads: Uploads
) -> None:
    uploads.put("1.jpg")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"redis://127.0.0.1:{taken.getsockname()[1]}/0"
    with reading(GatewaySettings.load(redis_url=url), rules):
        time.sleep(2)
    assert uploads.left() >= 1
    with reading(settings, rules):
        until(lambda: uploads.left() == 0)
    assert images(client) == [f"s3://{uploads.bucket}/1.jpg"]


def test_the_queue_of_jobs_is_full_until_there_is_room(
    settings: GatewaySettings, rules: Rules, client: Client, uploads: Uploads
) -> None:
    uploads.put("1.jpg")
    uploads.put("2.jpg")
    with reading(settings.model_copy(update={"max_queued": 1}), rules):
        until(lambda: client.list().records)
        (first,) = client.list().records
        time.sleep(1.5)
        assert len(client.list().records) == 1
        assert uploads.left() >= 1
        client.get(first.id).cancel()
        until(lambda: uploads.left() == 0)
    assert images(client) == [f"s3://{uploads.bucket}/{n}.jpg" for n in (1, 2)]


def test_a_queue_that_is_away_is_asked_again(
    settings: GatewaySettings, rules: Rules, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    with reading(settings.model_copy(update={"sqs_endpoint_url": url}), rules):
        until(lambda: "cannot be reached" in caplog.text)


def test_what_is_wrong_with_the_queue_is_told_at_the_start(
    settings: GatewaySettings, rules: Rules, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = StopSignal()
    none = settings.model_copy(update={"trigger_queue_url": None})
    with pytest.raises(InvalidRequest, match="MASKQ_TRIGGER_QUEUE_URL"):
        process.run(none, rules, stop)
    unknown = settings.model_copy(update={"trigger_queue_url": f"{settings.trigger_queue_url}-no"})
    with pytest.raises(InvalidRequest, match="there is no queue"):
        process.run(unknown, rules, stop)
    with monkeypatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "SOMEBODYELSE")
        with pytest.raises(InvalidRequest, match="check the credentials"):
            process.run(settings, rules, stop)


@pytest.fixture
def rules_file(uploads: Uploads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "rules.toml"
    file.write_text(f'[[rule]]\nname = "scans"\nbucket = "{uploads.bucket}"\n')
    monkeypatch.setenv("MASKQ_TRIGGER_RULES", str(file))
    return file


@contextmanager
def sqs_process() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "maskq_gateway.sqs"]
    path = os.pathsep.join([str(ROOT / "gateway"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as child:
        try:
            yield child
        finally:
            child.kill()


def test_as_a_process_it_is_well_and_ends_when_told(
    settings: GatewaySettings,
    rules_file: Path,
    client: Client,
    uploads: Uploads,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    health = rules_file.with_name("health")
    monkeypatch.setenv("MASKQ_HEALTH_FILE", str(health))
    monkeypatch.setenv("MASKQ_METRICS_PORT", str(port := free_port()))
    uploads.put("1.jpg")
    with sqs_process() as child:
        until(health.exists)
        until(lambda: images(client))
        metrics = urllib3.request("GET", f"http://127.0.0.1:{port}/metrics")
        assert b"process_start_time_seconds" in metrics.data
        first = health.stat().st_mtime_ns
        until(lambda: health.stat().st_mtime_ns > first)
        child.send_signal(signal.SIGTERM)
        assert child.wait(timeout=20) == 0, child.stderr.read() if child.stderr else ""
    assert not health.exists()
    assert uploads.left() == 0


def test_a_process_with_a_mistake_says_one_sentence(
    settings: GatewaySettings, rules_file: Path
) -> None:
    rules_file.write_text("[[rule]]\nname = 'scans'\n")
    with sqs_process() as child:
        _, said = child.communicate(timeout=20)
    assert child.returncode == 78
    assert said.count("\n") == 1
    assert "rules.toml: rule 'scans': bucket" in said
