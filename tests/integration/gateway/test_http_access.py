"""Who may do what over HTTP: keys, scopes, tenants and rates."""

from __future__ import annotations

from typing import Any

import pytest
from integration.worker.test_pipeline import Bench
from support.http_api import UNKNOWN, Api, png, uploaded

from maskq import Client

# --- who may do what ----------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["", "maskq_0123456789_" + "x" * 43, "nonsense"])
def test_without_a_key_nothing_is_told(stranger: Api, key: str) -> None:
    answer = stranger.with_key(key).get(f"/v1/jobs/{UNKNOWN}")
    stranger.problem(answer, 401, "access_denied")
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_a_revoked_or_expired_key_opens_nothing(stranger: Api, client: Client) -> None:
    made = client.create_api_key(["read"])
    caller = stranger.with_key(made.text)
    assert caller.get("/v1/jobs").status == 200
    client.revoke_api_key(made.key.id)
    caller.problem(caller.get("/v1/jobs"), 401, "access_denied")


def test_a_scope_is_needed_for_what_it_stands_for(stranger: Api, client: Client) -> None:
    reader = stranger.with_key(client.create_api_key(["read"]).text)
    said = reader.problem(reader.post("/v1/jobs", {}), 403, "access_denied")
    assert "'submit'" in said
    reader.problem(reader.get("/v1/webhooks/deliveries"), 403, "access_denied")
    admin = stranger.with_key(client.create_api_key(["admin"]).text)
    assert admin.get("/v1/webhooks/deliveries").json() == []


def test_a_tenant_learns_nothing_of_another_tenants_job(
    acme: Api, other: Api, api: Api, bench: Bench
) -> None:
    job = uploaded(acme)
    assert job["tenant"] == "acme"
    path = f"/v1/jobs/{job['id']}"
    unknown = other.get(f"/v1/jobs/{UNKNOWN}").json()["detail"].replace(UNKNOWN, job["id"])
    for answer in (
        other.get(path),
        other.post(f"{path}/cancel"),
        other.post(f"{path}/retry"),
        other.ask("DELETE", path),
        other.get(f"{path}/outputs/mask"),
    ):
        assert other.problem(answer, 404, "not_found") == unknown
    assert other.get("/v1/jobs").json()["jobs"] == []
    assert other.get("/v1/jobs?tenant=acme").json()["jobs"] == []
    assert api.get(path).status == 200


def test_a_tenants_key_submits_for_its_tenant_only(acme: Api, bench: Bench) -> None:
    answer = acme.post("/v1/jobs", {"image_uri": "s3://bucket/k", "tenant": "other"})
    acme.problem(answer, 403, "access_denied")
    answer = acme.post("/v1/batches", {"image_uris": ["s3://bucket/k"], "options": {"tenant": "x"}})
    acme.problem(answer, 403, "access_denied")


REFUSED: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "no such job": ("GET", f"/v1/jobs/{UNKNOWN}", {}, f"with 404: there is no job {UNKNOWN}"),
    "no such route": ("GET", "/v1/nothing", {}, "with 404: GET /v1/nothing"),
    "a wrong parameter": ("GET", "/v1/jobs?limit=0", {}, "with 422: limit: "),
    "another type": ("POST", "/v1/jobs", {"body": b"x"}, "with 415: the request has no Content-Type"),
    "a scope": ("GET", "/v1/workers", {}, "with 403: API key "),
    "another tenant": (
        "POST", "/v1/jobs", {"fields": {"image": ("a.png", png()), "tenant": "other"}},
        "with 403: API key ",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("method", "path", "options", "said"), REFUSED.values(), ids=REFUSED)
def test_every_refused_call_is_one_line_in_the_log(
    acme: Api,
    caplog: pytest.LogCaptureFixture,
    method: str,
    path: str,
    options: dict[str, Any],
    said: str,
) -> None:
    assert acme.ask(method, path, **options).status >= 400
    (line,) = caplog.messages
    asked = path.partition("?")[0]
    key_id = acme.key.split("_")[1]
    # What no route matches is answered before the key is looked at
    key = f" by API key {key_id}" if path != "/v1/nothing" else ""
    assert line.startswith(f"refused {method} {asked} from 127.0.0.1{key} {said}")
    assert acme.key not in line


def test_the_log_tells_of_another_tenants_job_what_the_answer_does_not(
    acme: Api, other: Api, caplog: pytest.LogCaptureFixture
) -> None:
    job_id = other.post("/v1/jobs", fields={"image": ("a.png", png())}).json()["id"]
    detail = acme.problem(acme.get(f"/v1/jobs/{job_id}"), 404, "not_found")
    assert "other" not in detail
    (line,) = caplog.messages
    assert line.endswith(f"with 404: job {job_id} is of tenant 'other'")


def test_tenants_choose_idempotency_keys_independently(acme: Api, other: Api) -> None:
    headers = {"Idempotency-Key": "1"}
    assert uploaded(acme, headers=headers)["id"] != uploaded(other, headers=headers)["id"]


def test_a_batch_of_another_tenant_is_unknown(acme: Api, other: Api, bench: Bench) -> None:
    bench.submit("a")
    uri = bench.record("a").request.image_uri
    path = acme.post("/v1/batches", {"image_uris": [uri]}).headers["Location"]
    assert acme.get(path).status == 200
    other.problem(other.get(path), 404, "not_found")
    other.problem(other.post(f"{path}/cancel"), 404, "not_found")


def test_a_key_has_so_many_requests_a_minute(stranger: Api, client: Client) -> None:
    caller = stranger.with_key(client.create_api_key(["read"], requests_per_minute=2).text)
    answers = [caller.get("/v1/jobs") for _ in range(4)]
    statuses = [answer.status for answer in answers]
    # The third may fall into the next minute.
    assert statuses in (
        [200, 200, 429, 429],
        [200, 200, 200, 429],
        [200, 200, 200, 200],
        [200, 200, 429, 200],
    )
    assert answers[0].headers["RateLimit-Limit"] == "2"
    assert answers[0].headers["RateLimit-Remaining"] in ("1", "0")
    if 429 in statuses:
        refused = answers[statuses.index(429)]
        caller.problem(refused, 429, "rate_limited")
        assert 1 <= int(refused.headers["Retry-After"]) <= 60
