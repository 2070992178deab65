"""A gateway on a free port that stores may notify, and the events that they send."""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import urllib3
from support.uvicorn_thread import running

from maskq import Client
from maskq.contract import JobRecord, SegmentRequest
from maskq.contract.locations import S3Uri
from maskq.ledger import calls
from maskq_gateway.app import PATH, create_app
from maskq_gateway.rules.rule import Rules
from maskq_gateway.server import config_of
from maskq_gateway.settings import GatewaySettings

ROOT = Path(__file__).parents[2]
TOKENS = ("the-first-token-of-all", "das-zweite-tökn-ist-lang")
TOPIC = "arn:aws:sns:eu-west-1:123456789012:uploads"
CERTIFICATE_URL = "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-01d088a6.pem"
SUBSCRIBE_URL = f"https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn={TOPIC}"
RULE = {"name": "scans", "bucket": "photos", "metadata": {"from": "test"}, "tenant": "acme"}

JOB, TOKEN = "01a206e7-a91c-7f60-938b-7a3d65bbbf53", "vBAek5XhHv_EKwH0"


def rules(*tables: dict[str, Any]) -> Rules:
    return Rules.of(tables or (RULE,), own_output=S3Uri("maskq", "maskq"))


class Gateway:
    """One that is served on a free port."""

    def __init__(self, url: str, pool: urllib3.PoolManager) -> None:
        self.url, self._pool = url, pool

    def ask(self, method: str, path: str, **options: Any) -> urllib3.BaseHTTPResponse:
        return self._pool.request(method, self.url + path, **options)

    def notify(self, event: Any, **headers: str) -> urllib3.BaseHTTPResponse:
        body = event if isinstance(event, bytes) else json.dumps(event).encode()
        headers = headers or {"Authorization": f"Bearer {TOKENS[0]}"}
        return self.ask("POST", PATH, body=body, headers=headers)

    def skipped(self, event: Any) -> list[str]:
        answer = self.notify(event)
        assert answer.status == 200, answer.data
        return [skipped["reason"] for skipped in answer.json()["skipped"]]

    def job(self, event: Any) -> str:
        answer = self.notify(event)
        assert answer.status == 202, answer.data
        (started,) = answer.json()["jobs"]
        return str(started["job_id"])


@contextmanager
def serving(app: Any) -> Iterator[Gateway]:
    with (
        socket.create_server(("127.0.0.1", 0)) as bound,
        running(config_of(app), bound),
        urllib3.PoolManager(retries=False, timeout=20, maxsize=8) as pool,
    ):
        yield Gateway(f"http://127.0.0.1:{bound.getsockname()[1]}", pool)


@pytest.fixture
def settings(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> GatewaySettings:
    monkeypatch.setenv("MASKQ_TRIGGER_TOKENS", " , ".join(TOKENS))
    monkeypatch.setenv("MASKQ_TRIGGER_SNS_TOPICS", f"{TOPIC},")
    return GatewaySettings.load()


@pytest.fixture
def client(settings: GatewaySettings) -> Iterator[Client]:
    with Client(settings) as connected:
        ledger = connected.session.ledger
        ledger.run(calls.register_model("some", {}))
        yield connected


@pytest.fixture
def gateway(settings: GatewaySettings, client: Client) -> Iterator[Gateway]:
    with serving(create_app(settings, client, rules())) as served:
        yield served


def record(key: str, version: str | None = None, sequencer: str | None = None) -> dict[str, Any]:
    described: dict[str, Any] = {"key": key, "size": 7, "eTag": f"etag-of-{sequencer}"}
    if version:
        described["versionId"] = version
    if sequencer:
        described["sequencer"] = sequencer
    return {
        "eventName": "ObjectCreated:Put",
        "s3": {"bucket": {"name": "photos"}, "object": described},
    }


def event(*records: dict[str, Any]) -> dict[str, Any]:
    return {"Records": list(records) or [record("in/1.jpg", sequencer="01")]}


def all_jobs(client: Client) -> list[JobRecord]:
    found: list[JobRecord] = []
    cursor = ""
    while True:
        page = client.list(limit=500, cursor=cursor)
        found += page.records
        cursor = page.cursor
        if not cursor:
            return found


def request_of(client: Client, job_id: str) -> SegmentRequest:
    record = client.get(job_id).record
    assert record
    return record.request


def basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"maskq:{password}".encode()).decode()


LATIN = TOKENS[1].encode().decode("latin-1")  # a header's bytes, as urllib3 sends text
