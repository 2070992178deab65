"""The gateway over real HTTP, with a real Redis: who may notify, and which jobs that starts."""

from __future__ import annotations

import json
import random
import socket
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from support import notifications
from support.notifications import (
    JOB,
    LATIN,
    RULE,
    TOKEN,
    TOKENS,
    Gateway,
    all_jobs,
    basic,
    event,
    record,
    request_of,
    rules,
    serving,
)

from maskq import Client, InvalidRequest, JobStatus
from maskq_gateway.app import MAX_BODY, PATH, create_app
from maskq_gateway.settings import GatewaySettings

client = notifications.client
gateway = notifications.gateway
settings = notifications.settings


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Authorization": f"Bearer {TOKENS[0]}"}, 202),
        ({"Authorization": f"bearer {TOKENS[0]}"}, 202),
        ({"Authorization": f"Bearer   {TOKENS[0]}"}, 202),
        ({"Authorization": f"Bearer {LATIN}"}, 202),
        ({"X-Api-Key": TOKENS[0]}, 202),
        ({"Authorization": basic(TOKENS[0])}, 202),
        ({"Authorization": basic(TOKENS[1])}, 202),
        ({"Authorization": basic("wrong"), "X-Api-Key": TOKENS[0]}, 202),
        ({"Accept": "*/*"}, 401),
        ({"Authorization": f"Bearer {TOKENS[0]}x"}, 401),
        ({"Authorization": "Bearer "}, 401),
        ({"Authorization": "Bearer"}, 401),
        ({"Authorization": f"Token {TOKENS[0]}"}, 401),
        ({"Authorization": ",".join(TOKENS[:1] * 2)}, 401),
        ({"Authorization": basic("")}, 401),
        ({"Authorization": "Basic %%%"}, 401),
        ({"X-Api-Key": ""}, 401),
        ({"X-Api-Key": "wrong"}, 401),
    ],
)
def test_who_may_notify(
    gateway: Gateway, client: Client, headers: dict[str, str], status: int
) -> None:
    answer = gateway.notify(event(), **headers)
    assert answer.status == status, answer.data
    assert len(all_jobs(client)) == (status == 202)
    if status == 401:
        assert answer.headers["WWW-Authenticate"] == 'Bearer realm="maskq", Basic realm="maskq"'
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.json()["code"] == "access_denied"


def test_who_may_not_notify_is_not_told_what_is_wrong_with_the_body(gateway: Gateway) -> None:
    assert gateway.notify(b"no json", Accept="*/*").status == 401


def test_a_gateway_that_nobody_may_notify_does_not_start(
    environment: dict[str, str], client: Client
) -> None:
    nobody = GatewaySettings.load(trigger_tokens=" , ", trigger_sns_topics="")
    with pytest.raises(InvalidRequest, match="accepts no notifications"):
        create_app(nobody, client, rules())


def test_an_upload_starts_the_job_that_its_rule_asks_for(gateway: Gateway, client: Client) -> None:
    answer = gateway.notify(event(record("in/gr%C3%BCn+1.JPG", version="v1")))
    assert answer.status == 202
    (started,) = answer.json()["jobs"]
    assert started["rule"] == "scans"
    request = request_of(client, started["job_id"])
    assert request.image_uri == "s3://photos/in/grün 1.JPG"
    assert (request.image_version_id, request.image_etag) == ("v1", None)
    assert request.metadata == {"from": "test", "trigger": "scans"}
    assert request.tenant == "acme"
    unversioned = gateway.job(event(record("2.png", sequencer="01")))
    assert request_of(client, unversioned).image_etag == "etag-of-01"


def test_the_ways_of_one_event_lead_to_one_job(gateway: Gateway) -> None:
    inner = event(record("a+b.jpg", sequencer="0A"))
    described = {"key": "a b.jpg", "etag": "etag-of-0A", "sequencer": "0A"}
    bridge = {
        "source": "aws.s3",
        "detail-type": "Object Created",
        "detail": {"bucket": {"name": "photos"}, "object": described},
    }
    sns = {"Type": "Notification", "TopicArn": "any", "Message": json.dumps(inner)}
    assert len({gateway.job(way) for way in (inner, bridge, sns, inner)}) == 1


def test_each_rule_that_takes_an_object_starts_a_job(
    settings: GatewaySettings, client: Client
) -> None:
    both = rules(RULE, {"name": "low", "bucket": "photos", "priority": "low"})
    with serving(create_app(settings, client, both)) as gateway:
        started = gateway.notify(event()).json()["jobs"]
    assert [job["rule"] for job in started] == ["scans", "low"]
    assert len(all_jobs(client)) == 2


def test_a_thousand_events_twice_in_any_order_are_a_thousand_jobs(
    gateway: Gateway, client: Client
) -> None:
    # Given 250 keys with 4 versions each, notified of twice
    versions = [(f"in/{n}.jpg", f"v{v}", f"{v:018X}") for n in range(250) for v in range(4)]
    deliveries = versions * 2
    random.Random(7).shuffle(deliveries)
    # When several senders deliver at the same time, some of them several at once
    chunks = [deliveries[n : n + 5] for n in range(0, len(deliveries), 5)]
    with ThreadPoolExecutor(6) as pool:
        bodies = [event(*(record(*one) for one in chunk)) for chunk in chunks]
        answers = list(pool.map(gateway.notify, bodies))
    # Then each version has one job
    assert {answer.status for answer in answers} == {202}
    requests = [job.request for job in all_jobs(client)]
    made = Counter((r.image_uri, r.image_version_id) for r in requests)
    assert made == Counter((f"s3://photos/{key}", version) for key, version, _ in versions)


def test_what_was_overwritten_is_skipped_where_there_are_no_versions(
    gateway: Gateway, client: Client
) -> None:
    # Given a state that is known
    newest = gateway.job(event(record("1.jpg", sequencer="0055AED6DCD90281E5")))
    # Then an older one is stale, also one that is older only by its padding
    for older in ("0055AED6DCD90281E4", "0055AED6", "0055aed6dcd90281e4ff"):
        assert gateway.skipped(event(record("1.jpg", sequencer=older))) == [
            "stale: a later state of the object was notified before"
        ]
    # And the same is the same job, and a later one is another
    assert gateway.job(event(record("1.jpg", sequencer="0055AED6DCD90281E5"))) == newest
    later = {gateway.job(event(record("1.jpg", sequencer=s))) for s in ("0055B", "0055C01")}
    assert len(later | {newest}) == 3
    # And another key has an order of its own
    gateway.job(event(record("2.jpg", sequencer="01")))
    assert len(all_jobs(client)) == 4


def test_the_order_is_forgotten_with_the_records(gateway: Gateway, client: Client) -> None:
    gateway.job(event())
    redis = client.session.ledger.redis
    (name,) = redis.keys(f"{client.key_prefix}:trigger:*")
    retention_ms = client.settings.retention_s * 1000
    assert retention_ms - 60_000 < redis.pttl(name) <= retention_ms


def test_a_failed_submission_is_made_up_for_by_its_repetition(
    settings: GatewaySettings, client: Client
) -> None:
    # Given a queue with room for one
    small = settings.model_copy(update={"max_queued": 1})
    with Client(small) as narrow, serving(create_app(small, narrow, rules())) as gateway:
        first = gateway.job(event(record("1.jpg", sequencer="01")))
        full = gateway.notify(event(record("2.jpg", sequencer="02")))
        assert (full.status, full.headers["Retry-After"]) == (503, "30")
        assert full.json()["code"] == "queue_full"
        # When there is room again
        client.get(first).cancel()
        # Then the same event starts its job
        gateway.job(event(record("2.jpg", sequencer="02")))
    assert Counter(job.status for job in all_jobs(client)) == {
        JobStatus.QUEUED: 1,
        JobStatus.CANCELED: 1,
    }


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("notes.txt", "no rule applies to it"),
        ("folder/", "no rule applies to it"),
        (f"masks/{JOB}/{TOKEN}/mask.png", "an output of maskq"),
    ],
)
def test_what_starts_nothing_says_why(
    gateway: Gateway, client: Client, key: str, reason: str
) -> None:
    assert gateway.skipped(event(record(key, sequencer="01"))) == [reason]
    assert all_jobs(client) == []


def test_a_refused_job_names_rule_and_key_and_does_not_hold_up_others(
    settings: GatewaySettings, client: Client
) -> None:
    both = rules({**RULE, "name": "wrong", "model": "none"}, RULE)
    with serving(create_app(settings, client, both)) as gateway:
        answer = gateway.notify(event())
    assert answer.status == 422
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem = answer.json()
    assert problem["code"] == "unknown_model"
    assert "rule 'wrong', 's3://photos/in/1.jpg': model 'none' is not known" in problem["detail"]
    assert [job["rule"] for job in problem["jobs"]] == ["scans"]
    assert len(all_jobs(client)) == 1


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"hello", "not JSON"),
        (b"", "not JSON"),
        (b"[1]", "a list"),
        (b"{}", "neither Records"),
        (b'{"\\ud800": 1}', "neither Records"),
    ],
)
def test_what_is_no_event_is_a_bad_request(gateway: Gateway, body: bytes, said: str) -> None:
    answer = gateway.notify(body)
    assert (answer.status, answer.json()["status"]) == (400, 400)
    assert said in answer.json()["detail"]


def test_a_thousand_records_are_taken_and_no_more(gateway: Gateway, client: Client) -> None:
    removed = {**record("in/1.jpg"), "eventName": "ObjectRemoved:Delete"}
    assert gateway.notify(event(*[removed] * 1000)).status == 200
    answer = gateway.notify(event(*[record("in/1.jpg")] * 1001))
    assert (answer.status, answer.json()["code"]) == (400, "invalid_request")
    assert "at most 1000" in answer.json()["detail"]
    assert all_jobs(client) == []


def test_a_test_event_is_welcome(gateway: Gateway) -> None:
    answer = gateway.notify({"Service": "Amazon S3", "Event": "s3:TestEvent"})
    assert (answer.status, answer.json()) == (200, {"jobs": [], "skipped": []})


def test_probes_need_no_token(gateway: Gateway) -> None:
    assert gateway.ask("HEAD", PATH).status == 200
    assert gateway.ask("GET", PATH).status == 200
    assert gateway.ask("GET", "/healthz").json() == {"status": "ok"}
    for answer in (gateway.ask("DELETE", PATH), gateway.ask("GET", "/docs")):
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.json()["status"] == answer.status in (404, 405)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_large(gateway: Gateway, chunked: bool) -> None:
    headers = {"X-Api-Key": TOKENS[0]}
    body = b'{"Records": []' + b" " * MAX_BODY + b"}"
    for excess, status in ((len(body) - MAX_BODY, 200), (0, 413)):
        sent = body.replace(b" " * excess, b"", 1)
        answer = gateway.ask("POST", PATH, body=sent, headers=headers, chunked=chunked)
        assert answer.status == status


def test_without_redis_the_sender_is_asked_to_try_again(settings: GatewaySettings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    away = GatewaySettings.load(redis_url=f"redis://:hidden@127.0.0.1:{port}/0")
    with Client(away) as cut_off, serving(create_app(away, cut_off, rules())) as gateway:
        answer = gateway.notify(event())
        assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
        assert answer.json()["code"] == "store_unavailable"
        assert "hidden" not in answer.data.decode()
        assert gateway.ask("GET", "/healthz").status == 503
        assert gateway.notify(event(), Accept="*/*").status == 401
