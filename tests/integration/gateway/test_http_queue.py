"""A queued job's place over HTTP, and the demand of each model for autoscalers."""

from __future__ import annotations

from typing import Any

import pytest
from integration.worker.test_pipeline import Bench
from support.http_api import Api, uploaded

from maskq import Client
from maskq.contract.models import ServingWorker
from maskq.ledger.calls import models


@pytest.fixture
def admin(stranger: Api, client: Client) -> Api:
    return stranger.with_key(client.create_api_key(["admin"]).text)


def look(api: Api, job: dict[str, Any]) -> dict[str, Any]:
    record: dict[str, Any] = api.get(f"/v1/jobs/{job['id']}").json()
    return record


def worker_lives(bench: Bench) -> None:
    worker = ServingWorker(model="smallest", revision="1", owner="host:1", labels=3, since_ms=1)
    bench.ledger.run(models.register(worker))


def was_fast(bench: Bench, jobs: int, ms: int) -> None:
    """So many completions in this minute."""
    seconds, _ = bench.ledger.redis.time()
    minute = seconds // 60
    bench.ledger.redis.hset(
        f"{bench.prefix}:pace:smallest", f"work:{minute % 8}", f"{minute} {jobs} {ms}"
    )


def test_a_queued_job_tells_its_place(api: Api, bench: Bench) -> None:
    first, second = uploaded(api), uploaded(api)
    urgent = uploaded(api, {"priority": "high"})
    positions = {one["id"]: look(api, one)["position"] for one in (urgent, first, second)}
    assert list(positions.values()) == [0, 1, 2]
    assert look(api, first)["eta_s"] is None
    worker_lives(bench)
    was_fast(bench, 100, 10_000)
    low, high = look(api, second)["eta_s"]
    assert low <= 0.2 <= high


def test_the_place_changes_the_etag(api: Api, bench: Bench) -> None:
    first, second = uploaded(api), uploaded(api)
    path = f"/v1/jobs/{second['id']}"
    etag = api.get(path).headers["ETag"]
    assert api.get(path, headers={"If-None-Match": etag}).status == 304
    assert api.post(f"/v1/jobs/{first['id']}/cancel").status == 200
    answer = api.get(path, headers={"If-None-Match": etag})
    assert (answer.status, answer.json()["position"]) == (200, 0)


def test_a_job_that_does_not_wait_has_no_place(api: Api, bench: Bench) -> None:
    job = uploaded(api)
    bench.pipeline.run("smallest")
    assert not {"position", "eta_s"} & look(api, job).keys()


def test_the_demand_is_told(api: Api, admin: Api, bench: Bench) -> None:
    def demand(query: str = "") -> dict[str, Any]:
        answer = admin.get(f"/v1/scale{query}")
        assert answer.status == 200, answer.data
        (one,) = answer.json()["models"]
        found: dict[str, Any] = one
        return found

    nothing = {"model": "smallest", "queued": 0, "startable": 0, "running": 0, "workers": 0}
    unknown = {"jobs_per_s": None, "offered_load": None, "demand_s": None, "desired_workers": 1}
    idle = {"offered_load": 0.0, "demand_s": 0.0, "desired_workers": 0}
    assert demand() == nothing | unknown | idle
    waiting = {"queued": 3, "startable": 3}
    for _ in range(3):
        uploaded(api)
    assert demand() == nothing | unknown | waiting
    worker_lives(bench)
    was_fast(bench, 100, 1_000_000)  # one in ten seconds
    known = nothing | waiting | {"jobs_per_s": 0.1, "demand_s": 30.0, "workers": 1}
    found = demand()
    assert 3 / 180 / 0.1 <= found.pop("offered_load") <= 3 / 120 / 0.1
    assert found == known | {"desired_workers": 1}
    found = demand("?target_wait_s=7&model=smallest")
    del found["offered_load"]
    assert found == known | {"desired_workers": 5}


def test_a_model_that_was_never_served_needs_its_first_worker(admin: Api) -> None:
    answer = admin.get("/v1/scale?model=to-come").json()
    (one,) = answer["models"]
    assert (one["model"], one["workers"], one["desired_workers"]) == ("to-come", 0, 1)


def test_the_demand_needs_an_admin_key(api: Api, stranger: Api) -> None:
    api.problem(api.get("/v1/scale"), 403, "access_denied")
    stranger.problem(stranger.get("/v1/scale"), 401, "access_denied")


@pytest.mark.parametrize("target", ["0", "-1", "nan", "inf", "soon", ""])
def test_a_target_that_makes_no_sense_is_refused(admin: Api, target: str) -> None:
    admin.problem(admin.get(f"/v1/scale?target_wait_s={target}"), 422, "invalid_request")
