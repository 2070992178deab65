"""The HTTP API over real HTTP, with a real Redis, a real S3 server and a real model."""

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
from support.http_api import Api, serving
from support.waiting import until

from maskq import Client
from maskq.ledger import keys
from maskq_gateway.asgi import application
from maskq_gateway.settings import GatewaySettings

UNKNOWN = "0199d3c0-0000-7000-8000-000000000000"


def png(colour: str = "teal", size: tuple[int, int] = (60, 40)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def uploaded(api: Api, fields: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    """A job whose image came with the request."""
    form = {"image": ("photo.png", png(), "image/png"), **(fields or {})}
    answer = api.ask("POST", "/v1/jobs", fields=form, **options)
    assert answer.status == 202, answer.data
    record: dict[str, Any] = answer.json()
    assert answer.headers["Location"] == f"/v1/jobs/{record['id']}"
    return record


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
    ],
)
def test_a_batch_that_makes_no_sense_is_refused(api: Api, body: Any, said: str) -> None:
    assert said in api.problem(api.post("/v1/batches", body), 422, "invalid_request")


# --- events -------------------------------------------------------------------------------------------


class Events:
    """What an EventSource sees."""

    def __init__(self, api: Api, path: str, last: str = "") -> None:
        headers = {"Last-Event-ID": last} if last else {}
        self._answer = api.get(path, headers=headers, preload_content=False)
        assert self._answer.status == 200, self._answer.read()
        self._lines = (line for part in self._answer.stream(1) for line in part.decode())
        self.begin = self.next_block()  # of no event

    def next_block(self) -> str:
        text = ""
        while not text.endswith("\n\n"):
            text += next(self._lines)
        return text.strip()

    def next(self) -> tuple[str, dict[str, Any]]:
        """Cursor and event."""
        fields = dict(line.split(": ", 1) for line in self.next_block().splitlines())
        document = json.loads(fields["data"])
        assert fields["event"] == document["type"]
        return fields["id"], document

    def close(self) -> None:
        self._answer.close()


def test_events_arrive_as_they_happen_and_from_where_a_reader_left_off(
    api: Api, bench: Bench
) -> None:
    live = Events(api, "/v1/events")
    job = uploaded(api)
    cursor, queued = live.next()
    assert (queued["type"], queued["subject"]) == ("maskq.job.queued", job["id"])
    bench.pipeline.run("smallest")
    kinds = [live.next()[1]["type"] for _ in range(2)]
    assert kinds == ["maskq.job.running", "maskq.job.succeeded"]
    live.close()
    later = Events(api, "/v1/events?type=job.succeeded", last=cursor)
    assert later.next()[1]["type"] == "maskq.job.succeeded"
    later.close()


def test_a_reader_that_loses_the_connection_before_the_first_event_misses_none(api: Api) -> None:
    uploaded(api)
    live = Events(api, "/v1/events")
    live.close()
    cursor = live.begin.splitlines()[0].removeprefix("id: ")
    job = uploaded(api)
    later = Events(api, "/v1/events", last=cursor)
    assert later.next()[1]["subject"] == job["id"]
    later.close()


def test_events_are_of_the_asked_jobs_and_of_the_own_tenant(
    api: Api, acme: Api, other: Api
) -> None:
    mine, all_of_acme = uploaded(acme), Events(acme, "/v1/events?since=0")
    assert all_of_acme.next()[1]["subject"] == mine["id"]
    uploaded(other)
    second = uploaded(acme)
    assert all_of_acme.next()[1]["subject"] == second["id"]
    one = Events(api, f"/v1/events?since=0&job={second['id']}")
    assert one.next()[1]["subject"] == second["id"]
    all_of_acme.close()
    one.close()


@pytest.mark.parametrize(
    "query",
    [
        "since=yesterday", "type=job.exploded", "since=18446744073709551616-0",
        "since=1-18446744073709551616", "group=a&consumer=b&since=18446744073709551616-0",
    ],
)  # fmt: skip
def test_events_that_do_not_exist_cannot_be_followed(api: Api, query: str) -> None:
    api.problem(api.get(f"/v1/events?{query}"), 422, "invalid_request")


def test_a_cursor_that_was_trimmed_away_or_lies_ahead_is_gone(api: Api, client: Client) -> None:
    uploaded(api)
    api.problem(api.get("/v1/events?since=99999999999999-0"), 410, "not_found")
    redis = client.session.ledger.redis
    uploaded(api)
    redis.xtrim(f"{client.key_prefix}:events", maxlen=0, approximate=False)
    api.problem(api.get("/v1/events?since=1-0"), 410, "not_found")


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


# --- bad input ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"", 400, "JSON"),
        (b"{", 400, "JSON"),
        (b"[]", 400, "object"),
        (b'{"image_uri": NaN}', 400, "JSON"),
        (b"[" * 100_000, 400, "JSON"),
        (b'{"image_uri": 5}', 422, "image_uri"),
        (b"{}", 422, "image_uri"),
        (b'{"image_uri": "ftp://x/y"}', 422, "s3://"),
        (b'{"image_uri": "/etc/hostname"}', 422, "s3://"),
        (b'{"image_uri": "file:///etc/hostname"}', 422, "s3://"),
        (b'{"image_uri": ""}', 422, "s3://"),
        (b'{"image_uri": "s3://photos/a.jpg", "output": ["mask"]}', 422, "output"),
        (b'{"image_uri": "s3://photos/a.jpg", "outputs": ["mesh"]}', 422, "outputs"),
        (b'{"image_uri": "s3://photos/a.jpg", "model": "unknown"}', 422, "unknown"),
        (b"x" * (2**20 + 1), 413, "larger"),
    ],
)
def test_a_body_that_makes_no_sense_is_refused(
    api: Api, body: bytes, status: int, said: str
) -> None:
    answer = api.ask("POST", "/v1/jobs", body=body, headers={"Content-Type": "application/json"})
    assert answer.status == status, answer.data
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert said in answer.json()["detail"]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"image": "text"}, "image"),
        ({"image": ("a.png", b"", "image/png")}, "empty"),
        ({"image": ("a.png", b"x"), "model": ("m.txt", b"x")}, "file"),
        ({"image": ("a.png", b"x"), "metadata": "{"}, "metadata"),
        ({"image": ("a.png", b"x"), "speed": "high"}, "speed"),
        ({"image": ("a.png", b"x"), "overlay_alpha": "much"}, "overlay_alpha"),
    ],
)
def test_a_form_that_makes_no_sense_is_refused(api: Api, fields: dict[str, Any], said: str) -> None:
    answer = api.ask("POST", "/v1/jobs", fields=fields)
    assert answer.status in (400, 422), answer.data
    assert said in answer.json()["detail"]


def test_a_file_that_is_no_image_is_refused(api: Api) -> None:
    answer = api.ask("POST", "/v1/jobs", fields={"image": ("a.png", b"{}", "image/png")})
    api.problem(answer, 422, "invalid_image")
    assert "is JSON, which is not accepted" in answer.json()["detail"]


def test_a_broken_form_is_refused(api: Api) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    answer = api.ask("POST", "/v1/jobs", body=b"--x\r\nnonsense", headers=headers)
    api.problem(answer, 422, "invalid_request")
    headers = {"Content-Type": "multipart/form-data"}
    answer = api.ask("POST", "/v1/jobs", body=b"--x\r\nnonsense", headers=headers)
    api.problem(answer, 400, "invalid_request")


def test_an_image_that_is_too_large_is_refused_before_it_is_read(
    client: Client, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASKQ_GATEWAY_MAX_UPLOAD_BYTES", "1000")
    with serving(application(GatewaySettings.load(), client)) as served:
        caller = served.with_key(client.create_api_key(["submit"]).text)
        form = {"image": ("a.png", b"x" * (2 * 2**20), "image/png")}
        answer = caller.ask("POST", "/v1/jobs", fields=form)
        caller.problem(answer, 413, "image_too_large")


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        (
            {"Content-Type": "text/xml"},
            "the request has Content-Type 'text/xml'; send application/json",
        ),
        ({}, "the request has no Content-Type; send application/json"),
    ],
)
def test_another_type_of_body_is_refused(api: Api, headers: dict[str, str], said: str) -> None:
    answer = api.ask("POST", "/v1/jobs", body=b"<a/>", headers=headers)
    assert api.problem(answer, 415, "invalid_request").startswith(said)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", f"/v1/jobs/{UNKNOWN}", 404),
        ("GET", "/v1/jobs/%00", 404),
        ("GET", "/v1/nothing", 404),
        ("PUT", "/v1/jobs", 405),
        ("GET", f"/v1/jobs/{UNKNOWN}?wait=-1", 422),
        ("GET", f"/v1/jobs/{UNKNOWN}?wait=1e9", 422),
        ("GET", "/v1/jobs?status=lost", 422),
        ("GET", "/v1/jobs?limit=0", 422),
        ("GET", f"/v1/jobs/{UNKNOWN}/outputs/mesh", 422),
        ("GET", f"/v1/batches/{UNKNOWN}", 404),
    ],
)
def test_errors_are_problem_documents(api: Api, method: str, path: str, status: int) -> None:
    answer = api.ask(method, path)
    assert answer.status == status, answer.data
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["status"] == status


def test_a_wrong_method_is_told_all_that_the_path_has(api: Api) -> None:
    answer = api.ask("PATCH", f"/v1/jobs/{UNKNOWN}")
    assert answer.status == 405
    assert set(answer.headers["Allow"].split(", ")) == {"DELETE", "GET"}


def test_outputs_that_are_not_there_say_why(api: Api, bench: Bench) -> None:
    job = uploaded(api)
    path = f"/v1/jobs/{job['id']}/outputs"
    api.problem(api.get(f"{path}/mask"), 409, "not_found")
    bench.pipeline.run("smallest")
    said = api.problem(api.get(f"{path}/overlay"), 404, "not_found")
    assert "it made: mask" in said
    api.problem(api.get(f"{path}/binary/3"), 404, "not_found")
    assert "mask is one file" in api.problem(api.get(f"{path}/mask/3"), 404, "not_found")


def test_the_binary_mask_of_a_class_is_a_file_of_its_own(api: Api, bench: Bench) -> None:
    job = uploaded(api, {"outputs": "binary"})
    bench.pipeline.run("smallest")
    record = api.get(f"/v1/jobs/{job['id']}").json()
    (first, *_) = record["result"]["labels"]
    path = f"/v1/jobs/{job['id']}/outputs/binary"
    answer = api.get(f"{path}/{first}?delivery=stream")
    assert Image.open(io.BytesIO(answer.data)).mode == "1"
    api.problem(api.get(path), 404, "not_found")


def test_an_output_outside_the_jobs_own_folder_is_not_read(
    api: Api, bench: Bench, client: Client
) -> None:
    secret, job = uploaded(api), uploaded(api)
    for _ in range(2):
        bench.pipeline.run("smallest")
    there = client.get(secret["id"]).refresh()
    here = client.get(job["id"]).refresh()
    assert there.result
    assert here.result
    planted = here.result.model_copy(update={"outputs": there.result.outputs})
    name = f"{client.key_prefix}:job:{job['id']}"
    client.session.ledger.redis.hset(name, "result", planted.model_dump_json())
    answer = api.get(f"/v1/jobs/{job['id']}/outputs/mask?delivery=stream")
    assert "outside" in api.problem(answer, 404, "not_found")


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
