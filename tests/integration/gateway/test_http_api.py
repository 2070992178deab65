"""The HTTP API: the life of jobs and batches, and what it tells of the deployment."""

from __future__ import annotations

import io
import json
import re
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import urllib3
from integration.worker.test_pipeline import Bench
from PIL import Image
from support.http_api import UNKNOWN, Api, png, serving, uploaded
from support.waiting import until

from maskq import Client
from maskq.ledger import keys
from maskq_gateway.asgi import application
from maskq_gateway.settings import GatewaySettings

# --- a job's life -------------------------------------------------------------------------------------


def test_an_image_that_is_sent_becomes_a_mask_that_can_be_fetched(api: Api, bench: Bench) -> None:
    job = uploaded(api, {"outputs": "mask,stats", "metadata": json.dumps({"order": "7"})})
    assert (job["status"], job["request"]["metadata"]) == ("queued", {"order": "7"})
    bench.pipeline.run("smallest")
    record = api.get(f"/v1/jobs/{job['id']}?wait=10").json()
    assert record["status"] == "succeeded"
    answer = api.get(f"/v1/jobs/{job['id']}/outputs/mask?delivery=stream")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "image/png")
    assert Image.open(io.BytesIO(answer.data)).size == (60, 40)


def test_an_image_is_named_by_its_place_in_s3(api: Api, bench: Bench) -> None:
    bench.submit("a")  # it has put an image there
    uri = bench.record("a").request.image_uri
    answer = api.post("/v1/jobs", {"image_uri": uri, "outputs": ["overlay"], "queue_ttl_s": 60})
    assert answer.status == 202
    asked = answer.json()["request"]
    assert (asked["image_uri"], asked["outputs"]) == (uri, ["overlay"])
    assert asked["queue_ttl_s"] == 60


def test_an_output_is_redirected_to_a_url_that_needs_no_key(
    api: Api, stranger: Api, bench: Bench
) -> None:
    job = uploaded(api)
    bench.pipeline.run("smallest")
    answer = api.get(f"/v1/jobs/{job['id']}/outputs/mask")
    assert answer.status == 302
    with urllib3.PoolManager() as pool:
        fetched = pool.request("GET", answer.headers["Location"])
    assert fetched.data.startswith(b"\x89PNG")


def test_wait_answers_when_the_job_ends_or_the_time_is_up(api: Api, bench: Bench) -> None:
    job = uploaded(api)
    assert api.get(f"/v1/jobs/{job['id']}?wait=0.05").json()["status"] == "queued"
    bench.pipeline.run("smallest")
    answer = api.get(f"/v1/jobs/{job['id']}", headers={"Prefer": "wait=10"})
    assert answer.json()["status"] == "succeeded"


@pytest.mark.parametrize("kind", ["job", "batch", "ended jobs of a batch"])
def test_a_caller_that_goes_away_is_not_waited_for(
    api: Api, client: Client, bench: Bench, kind: str
) -> None:
    if kind == "job":
        subject = api.post("/v1/jobs", {"image_uri": "s3://photos/a.jpg"}).json()["id"]
        path = f"/v1/jobs/{subject}?wait=60"
    else:
        subject = api.post("/v1/batches", {"image_uris": ["s3://photos/a.jpg"]}).json()["id"]
        path = f"/v1/batches/{subject}?wait=60" + ("" if kind == "batch" else "&seen=0")
    channel = keys.wake(subject).within(client.key_prefix)

    def waiters() -> int:
        return int(client.session.ledger.redis.execute_command("PUBSUB", "NUMSUB", channel)[1])

    place = urlsplit(api.url)
    with socket.create_connection((place.hostname, place.port)) as caller:
        head = f"GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {api.key}\r\n\r\n"
        caller.sendall(head.encode())
        until(lambda: waiters() == 1)
    until(lambda: waiters() == 0)


@pytest.mark.parametrize(
    ("method", "path", "options"),
    [
        ("POST", "/v1/jobs", {"fields": {"image": ("a.png", png())}}),
        ("POST", "/v1/batches", {"body": '{"image_uris": ["s3://photos/a.jpg"]}'}),
        ("POST", "/v1/uploads", {"body": '{"bytes": 1}'}),
        ("GET", "/v1/jobs?limit=1", {}),
        ("GET", f"/v1/jobs/{UNKNOWN}?wait=1", {}),
        ("GET", f"/v1/jobs/{UNKNOWN}/outputs/mask", {}),
        ("GET", "/v1/events", {}),
        ("GET", "/v1/models", {}),
        ("GET", "/readyz", {}),
    ],
)
def test_while_redis_is_away_every_route_says_when_to_come_again(
    monkeypatch: pytest.MonkeyPatch, method: str, path: str, options: dict[str, Any]
) -> None:
    monkeypatch.setenv("MASKQ_REDIS_URL", "redis://127.0.0.1:9")
    key = "maskq_0123456789_" + "x" * 43
    with Client.from_env() as away, serving(application(GatewaySettings.load(), away)) as served:
        headers = {} if "fields" in options else {"Content-Type": "application/json"}
        answer = served.with_key(key).ask(method, path, headers=headers, **options)
        served.problem(answer, 503, "store_unavailable")
        assert answer.headers["Retry-After"] == "5"
        assert served.get("/healthz").status == 200


def test_a_record_that_did_not_change_is_not_sent_again(api: Api) -> None:
    job = uploaded(api)
    path = f"/v1/jobs/{job['id']}"
    etag = api.get(path).headers["ETag"]
    answer = api.get(path, headers={"If-None-Match": etag})
    assert (answer.status, answer.data) == (304, b"")


def test_a_job_is_canceled_retried_and_deleted(api: Api, client: Client) -> None:
    job = uploaded(api)
    path = f"/v1/jobs/{job['id']}"
    assert api.post(f"{path}/cancel").json()["status"] == "canceled"
    again = api.post(f"{path}/retry")
    assert again.status == 202
    assert again.json()["retry_of"] == job["id"]
    assert api.post(f"{path}/retry").json()["id"] == again.json()["id"]
    assert api.ask("DELETE", path).status == 204
    assert api.get(path).status == 404
    assert client.get(again.json()["id"]).status == "queued"


def test_what_has_ended_cannot_be_canceled(api: Api, bench: Bench) -> None:
    job = uploaded(api)
    bench.pipeline.run("smallest")
    said = api.problem(api.post(f"/v1/jobs/{job['id']}/cancel"), 409, "invalid_request")
    assert "succeeded already" in said


def test_the_same_idempotency_key_is_the_same_job(api: Api) -> None:
    headers = {"Idempotency-Key": "order-4711"}
    first = uploaded(api, headers=headers)
    assert uploaded(api, headers=headers)["id"] == first["id"]
    form = {"image": ("b.png", png("red"), "image/png")}
    answer = api.ask("POST", "/v1/jobs", fields=form, headers=headers)
    api.problem(answer, 422, "idempotency_conflict")


def test_jobs_are_listed_a_page_at_a_time(api: Api) -> None:
    ids = {uploaded(api)["id"] for _ in range(3)}
    found, cursor = set(), ""
    while True:
        page = api.get(f"/v1/jobs?status=queued&limit=2&cursor={cursor}").json()
        found |= {job["id"] for job in page["jobs"]}
        if not (cursor := page["cursor"]):
            break
    assert found == ids


# --- batches ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("since", ["1.7976931348623157e+308", "inf", "nan", "-1e300", "1e12", "x"])
def test_a_time_that_makes_no_sense_is_refused(api: Api, since: str) -> None:
    api.problem(api.get(f"/v1/jobs?ended_since={since}"), 422, "invalid_request")


@pytest.mark.parametrize("since", ["-5", "0", "999999999999"])
def test_any_other_time_lists_what_has_ended_since(api: Api, since: str) -> None:
    job = uploaded(api)
    api.post(f"/v1/jobs/{job['id']}/cancel")
    found = [one["id"] for one in api.get(f"/v1/jobs?ended_since={since}").json()["jobs"]]
    assert found == ([] if since > "1" else [job["id"]])


def test_each_image_of_a_batch_names_the_job_that_its_own_retries(api: Api) -> None:
    image = "s3://photos/a.png"
    failed = [api.post("/v1/jobs", {"image_uri": image}).json()["id"] for _ in range(2)]
    batch = {"batch_id": "again", "image_uris": [image, image], "retry_of": failed}
    joined = api.post("/v1/batches", batch)
    assert joined.status == 202, joined.data
    ids = [one["job_id"] for one in joined.json()["outcomes"]]
    assert [api.get(f"/v1/jobs/{one}").json()["retry_of"] for one in ids] == failed


def test_a_batch_is_submitted_followed_and_canceled(api: Api, bench: Bench) -> None:
    bench.submit("a")
    uri = bench.record("a").request.image_uri
    answer = api.post("/v1/batches", {"image_uris": [uri, uri], "options": {"priority": "low"}})
    assert answer.status == 202
    batch = answer.json()
    assert (batch["total"], len(batch["job_ids"])) == (2, 2)
    path = answer.headers["Location"]
    assert api.get(path).json()["ended"] == 0
    canceled = api.post(f"{path}/cancel").json()
    assert (canceled["ended"], canceled["counts"]) == (2, {"canceled": 2})
    assert api.get(f"{path}?wait=10").json()["ended"] == 2


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"image_uris": []}, "image_uris"),
        ({"image_uris": ["s3://bucket/k"] * 501}, "image_uris"),
        ({"image_uris": ["s3://bucket/k"], "options": {"image_uri": "s3://bucket/k"}}, "image_uri"),
        ({"image_uris": ["s3://bucket/k", "/etc/hostname"]}, "s3://"),
        ({"image_uris": ["s3://bucket/k"], "options": {"mode": "x"}}, "mode"),
        ({"image_uris": ["s3://bucket/k"], "webhook": "nothing"}, "webhook"),
        ({"images": ["s3://bucket/k"]}, "images"),
        ({"image_uris": ["s3://bucket/k"], "idempotency_keys": ["a"]}, "batch_id"),
        ({"image_uris": ["s3://bucket/k"], "retry_of": ["a"]}, "batch_id"),
        ({"image_uris": ["s3://bucket/k"], "total": 2}, "batch_id"),
    ],
)
def test_a_batch_that_makes_no_sense_is_refused(api: Api, body: Any, said: str) -> None:
    assert said in api.problem(api.post("/v1/batches", body), 422, "invalid_request")


# --- the deployment -----------------------------------------------------------------------------------


def test_models_and_limits_are_told(api: Api) -> None:
    answer = api.get("/v1/models").json()
    assert [model["name"] for model in answer["models"]] == ["smallest"]
    assert answer["default"]["name"] == "smallest"
    limits = api.get("/v1/limits").json()
    assert limits["max_batch_jobs"] == 500
    assert limits["image_types"]["image/tiff"] == [".tif", ".tiff"]


def test_health_needs_no_key(stranger: Api) -> None:
    assert stranger.get("/healthz").json() == {"status": "ok"}
    assert stranger.get("/readyz").json() == {"status": "ok"}


def test_it_is_not_ready_while_the_store_is_away(
    client: Client, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASKQ_S3_ENDPOINT_URL", "http://127.0.0.1:9")
    with serving(application(GatewaySettings.load(), client)) as served:
        assert served.get("/healthz").status == 200
        answer = served.get("/readyz")
        served.problem(answer, 503, "store_unavailable")
        assert answer.headers["Retry-After"] == "5"
        caller = served.with_key(client.create_api_key(["submit"]).text)
        form = {"image": ("a.png", png(), "image/png")}
        caller.problem(caller.ask("POST", "/v1/jobs", fields=form), 503, "store_unavailable")
    assert not client.list().records


def test_a_page_of_an_allowed_origin_may_call(
    client: Client, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASKQ_CORS_ORIGINS", "https://shop.example")
    with serving(application(GatewaySettings.load(), client)) as served:
        asked = {
            "Origin": "https://shop.example",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization",
        }
        answer = served.ask("OPTIONS", "/v1/jobs", headers=asked)
        assert answer.headers["Access-Control-Allow-Origin"] == "https://shop.example"
        asked["Origin"] = "https://elsewhere.example"
        answer = served.ask("OPTIONS", "/v1/jobs", headers=asked)
        assert "Access-Control-Allow-Origin" not in answer.headers


def test_without_rules_notifications_are_not_taken(api: Api) -> None:
    api.problem(api.post("/v1/triggers/s3", {}), 404, "invalid_request")


def test_with_rules_an_api_key_does_not_open_the_triggers_nor_a_token_the_api(
    client: Client, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = "a-token-of-the-triggers-that-is-long"
    monkeypatch.setenv("MASKQ_TRIGGER_TOKENS", token)
    rules = tmp_path / "rules.toml"
    rules.write_text('[[rule]]\nname = "scans"\nbucket = "photos"\n')
    with serving(application(GatewaySettings.load(), client, rules)) as served:
        admin = served.with_key(client.create_api_key(["admin"]).text)
        assert admin.post("/v1/triggers/s3", {}).status == 401
        assert served.with_key(token).get("/v1/jobs").status == 401
        # The token does open what it is for: an unknown event is told from an unknown caller.
        assert served.with_key(token).post("/v1/triggers/s3", {"Event": "x"}).status == 400


def test_openapi_describes_every_route(stranger: Api) -> None:
    document = stranger.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    paths = set(document["paths"])
    assert {"/v1/jobs", "/v1/jobs/{job_id}", "/v1/events", "/v1/batches", "/readyz"} <= paths
    for name in ("NewJob", "NewBatch", "ProblemDocument", "JobRecord"):
        assert name in document["components"]["schemas"]
    body = document["paths"]["/v1/jobs"]["post"]["requestBody"]["content"]
    assert set(body) == {"application/json", "multipart/form-data"}
    references = re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document))
    assert set(references) <= set(document["components"]["schemas"])
