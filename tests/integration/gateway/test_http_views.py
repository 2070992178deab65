"""Who may see the workers and the deployment over HTTP, and what they see."""

from __future__ import annotations

import pytest
from integration.worker.test_pipeline import Bench
from support.http_api import Api

from maskq import Client
from maskq.contract.models import ServingWorker
from maskq.ledger.calls import models


@pytest.fixture
def admin(stranger: Api, client: Client) -> Api:
    return stranger.with_key(client.create_api_key(["admin"]).text)


@pytest.mark.parametrize("path", ["/v1/workers", "/v1/overview"])
def test_views_need_an_admin_key(api: Api, stranger: Api, path: str) -> None:
    api.problem(api.get(path), 403, "access_denied")
    stranger.problem(stranger.get(path), 401, "access_denied")


def test_views_show_workers_queues_and_no_password(admin: Api, bench: Bench) -> None:
    worker = ServingWorker(model="smallest", revision="1", owner="host:1", labels=3, since_ms=1)
    bench.ledger.run(models.register(worker))
    (shown,) = admin.get("/v1/workers").json()["workers"]
    assert (shown["owner"], shown["in_hand"], shown["draining"]) == ("host:1", 0, False)
    found = admin.get("/v1/overview").json()
    (queue,) = found["queues"]
    assert (queue["model"], queue["workers"]) == ("smallest", 1)
    assert queue["ready"] == {"high": 0, "normal": 0, "low": 0}
    assert "@" not in found["stores"]["redis"]
