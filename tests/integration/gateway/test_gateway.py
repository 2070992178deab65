"""The gateway over real HTTP, with a real Redis: who may notify, and which jobs that starts."""

from __future__ import annotations

import base64
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import urllib3
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID
from support.uvicorn_thread import running

from maskq import Client, InvalidRequest, JobStatus
from maskq.contract import JobRecord, SegmentRequest
from maskq.contract.locations import S3Uri
from maskq.ledger import calls
from maskq_gateway.app import MAX_BODY, PATH, create_app
from maskq_gateway.rules.rule import Rules
from maskq_gateway.server import config_of
from maskq_gateway.settings import GatewaySettings
from maskq_gateway.sources.signer import SignatureRefused
from maskq_gateway.sources.sns import Verifier, canonical
from maskq_gateway.sources.sns_envelope import SnsSigner

ROOT = Path(__file__).parents[3]
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


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@pytest.fixture
def fetched() -> list[str]:
    return []


@pytest.fixture
def sns_gateway(
    settings: GatewaySettings, client: Client, key: rsa.RSAPrivateKey, fetched: list[str]
) -> Iterator[Gateway]:
    """Without tokens; what AWS would answer comes from memory."""
    now, name = datetime.now(UTC), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sns")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1)
    builder = builder.not_valid_before(now - timedelta(1)).not_valid_after(now + timedelta(1))
    certificate = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def fetch(url: str) -> bytes:
        fetched.append(url)
        return certificate

    without = GatewaySettings.load(trigger_tokens="")
    verifier = Verifier(without.trigger_sns_topics, fetch=fetch)
    with serving(create_app(without, client, rules(), signers=[SnsSigner(verifier)])) as served:
        yield served


@pytest.fixture
def message(key: rsa.RSAPrivateKey) -> Callable[..., dict[str, str]]:
    def signed(text: str = "", **changed: str) -> dict[str, str]:
        plain = {
            "Type": "Notification",
            "MessageId": "m",
            "TopicArn": TOPIC,
            "Message": text,
            "Timestamp": datetime.now(UTC).isoformat(),
            "SigningCertURL": CERTIFICATE_URL,
            "SignatureVersion": "2",
            **changed,
        }
        signature = key.sign(canonical(plain), padding.PKCS1v15(), hashes.SHA256())
        return {**plain, "Signature": base64.b64encode(signature).decode()}

    return signed


def test_a_signed_message_needs_no_token(
    sns_gateway: Gateway, client: Client, message: Callable[..., dict[str, str]]
) -> None:
    good = message(json.dumps(event()))
    assert sns_gateway.notify(good, Accept="*/*").status == 202
    assert len(all_jobs(client)) == 1
    altered = {**good, "Message": json.dumps(event(record("2.jpg", sequencer="02")))}
    other = message(json.dumps(event(record("2.jpg", sequencer="02"))), TopicArn=TOPIC + "-b")
    for bad, said in (
        (altered, "altered"),
        (other, "MASKQ_TRIGGER_SNS_TOPICS"),
        (event(), "token"),
    ):
        answer = sns_gateway.notify(bad, Accept="*/*")
        assert (answer.status, answer.json()["code"]) == (401, "access_denied")
        assert said in answer.json()["detail"]
    assert len(all_jobs(client)) == 1


class HeaderSigner:
    """A sender that signs in a header, as those with a JWT do."""

    is_enabled = True
    enabled_by = "MASKQ_TRIGGER_HEADER to the signature"
    unsigned = "x-signature is not valid"

    def recognises(self, event: Mapping[str, Any]) -> bool:
        return "Records" in event

    def verify(self, headers: Mapping[str, str], event: Mapping[str, Any]) -> None:
        if headers.get("x-signature") != "valid":
            raise SignatureRefused("the x-signature of this message is not valid")

    def handle(self, event: Mapping[str, Any]) -> bool:
        return False


def test_a_sender_that_signs_another_way_needs_no_token(client: Client) -> None:
    without = GatewaySettings.load(trigger_tokens="", trigger_sns_topics="")
    app = create_app(without, client, rules(), signers=[HeaderSigner()])
    with serving(app) as gateway:
        headers = {"Accept": "*/*"}
        assert gateway.notify(event(), **headers, **{"X-Signature": "no"}).status == 401
        answer = gateway.notify({"a": "stranger"}, **headers)
        assert answer.status == 401
        assert answer.json()["detail"].endswith(", and x-signature is not valid")
        assert gateway.notify(event(), **headers, **{"X-Signature": "valid"}).status == 202
    assert len(all_jobs(client)) == 1


def test_a_subscription_is_confirmed_by_visiting_it(
    sns_gateway: Gateway, fetched: list[str], message: Callable[..., dict[str, str]]
) -> None:
    url = SUBSCRIBE_URL
    asked = {"Type": "SubscriptionConfirmation", "SubscribeURL": url, "Token": "t"}
    assert sns_gateway.notify(message(**asked), Accept="*/*").status == 200
    assert fetched[-1] == url
    fetched.clear()
    stranger = message(**asked, TopicArn=TOPIC + "-b")
    assert sns_gateway.notify(stranger, Accept="*/*").status == 401
    leaving = message(**{**asked, "Type": "UnsubscribeConfirmation"})
    assert sns_gateway.notify(leaving, Accept="*/*").status == 200
    assert url not in fetched


def test_a_token_does_not_confirm_a_topic_that_is_not_allowed(
    gateway: Gateway, message: Callable[..., dict[str, str]]
) -> None:
    url = SUBSCRIBE_URL
    asked = {"Type": "SubscriptionConfirmation", "SubscribeURL": url, "Token": "t"}
    answer = gateway.notify(message(**asked, TopicArn=TOPIC + "-b"))
    assert (answer.status, answer.json()["code"]) == (403, "access_denied")


COMMAND_LINE = "from maskq.cli import main; main()"


@contextmanager
def command(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The command line as a shell runs it."""
    path = os.pathsep.join([str(ROOT / "gateway"), os.environ.get("PYTHONPATH", "")])
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    line = [sys.executable, "-c", COMMAND_LINE, *arguments]
    with subprocess.Popen(line, env={**os.environ, "PYTHONPATH": path}, **pipes) as child:
        try:
            yield child
        finally:
            child.kill()


@pytest.fixture
def rules_file(tmp_path: Path) -> Path:
    file = tmp_path / "rules.toml"
    file.write_text('[[rule]]\nname = "scans"\nbucket = "photos"\n')
    return file


def test_the_command_listens_and_ends_when_told(client: Client, rules_file: Path) -> None:
    with (
        command("gateway", "--port", "0", "--rules", str(rules_file)) as child,
        urllib3.PoolManager(retries=False, timeout=20) as pool,
    ):
        assert child.stderr
        line = child.stderr.readline()
        assert line.startswith("listening on http://127.0.0.1:"), line
        Gateway(line.split()[-1], pool).job(event())
        child.send_signal(signal.SIGTERM)
        _, rest = child.communicate(timeout=30)
        assert (child.returncode, rest) == (0, "")
    assert len(all_jobs(client)) == 1


def test_the_command_says_what_is_missing(settings: GatewaySettings, rules_file: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with command("gateway", "--port", port, "--rules", str(rules_file)) as child:
            assert "cannot be listened at" in child.communicate(timeout=30)[1]


@pytest.mark.parametrize("tokens", ["short", "long-enough-for-a-token,short", "a" * 15])
def test_a_token_that_can_be_guessed_ends_the_start_with_78_and_one_line(
    settings: GatewaySettings, rules_file: Path, monkeypatch: pytest.MonkeyPatch, tokens: str
) -> None:
    monkeypatch.setenv("MASKQ_TRIGGER_TOKENS", tokens)
    with command("gateway", "--port", "0", "--rules", str(rules_file)) as child:
        _, said = child.communicate(timeout=30)
        assert child.returncode == 78
    assert "MASKQ_TRIGGER_TOKENS" in said
    assert "fewer than 16 characters" in said
    assert said.count("\n") == 1
    assert tokens not in said


def test_slow_peers_hold_up_neither_a_notification_nor_the_end(
    client: Client, settings: GatewaySettings, rules_file: Path
) -> None:
    # Given more connections than there may be, each with a request that never ends
    with (
        command("gateway", "--port", "0", "--rules", str(rules_file)) as child,
        ExitStack() as held,
        urllib3.PoolManager(retries=False, timeout=20) as pool,
    ):
        assert child.stderr
        gateway = Gateway(child.stderr.readline().split()[-1], pool)
        address = ("127.0.0.1", int(gateway.url.rpartition(":")[2]))
        for number in range(600):
            slow = held.enter_context(socket.create_connection(address))
            slow.sendall((b"POST /", b"POST /v1/triggers/s3 HTTP/1.1\r\nA: ")[number % 2])

        # When a store notifies, then its job is started
        began = time.monotonic()
        gateway.job(event())
        slow.setblocking(False)
        with pytest.raises(BlockingIOError):  # meanwhile, and not once they are cut off
            slow.recv(1)

        # And the process ends when it is told to
        child.send_signal(signal.SIGTERM)
        _, rest = child.communicate(timeout=30)
        assert (child.returncode, rest) == (0, "")
        assert time.monotonic() - began < 10


def test_rules_are_checked_and_shown(settings: GatewaySettings, rules_file: Path) -> None:
    with command("trigger", "check", str(rules_file)) as child:
        shown, _ = child.communicate(timeout=30)
        assert child.returncode == 0
    assert "scans: s3://photos/" in shown
    assert 'outputs = ["mask"]' in shown
    rules_file.write_text(f'[[rule]]\nname = "scans"\nbucket = "{settings.s3_bucket}"\n')
    with command("trigger", "check", str(rules_file)) as child:
        _, said = child.communicate(timeout=30)
        assert child.returncode == 1
    assert "would start itself by its own outputs" in said
