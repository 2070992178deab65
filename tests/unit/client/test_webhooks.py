"""Signing and verifying, against the standard's own library."""

from __future__ import annotations

import json
import time
from base64 import b64encode
from datetime import UTC, datetime

import pytest
from standardwebhooks import Webhook

from maskq import InvalidRequest, WebhookRefused, webhooks
from maskq.contract.webhooks.signing import decode_secret, sign

SECRET, OTHER = webhooks.new_secret(), webhooks.new_secret()
BODY = json.dumps(
    {
        "specversion": "1.0",
        "id": "job-1:succeeded",
        "source": "maskq/maskq",
        "type": "maskq.job.succeeded",
        "subject": "job-1",
        "time": "2026-11-23T00:00:00Z",
        "data": {"job_id": "job-1", "text": "ü"},
    },
    ensure_ascii=False,
).encode()


def delivery(body: bytes = BODY, *secrets: str, at: float | None = None) -> dict[str, str]:
    timestamp = int(time.time() if at is None else at)
    keys = [decode_secret(secret) for secret in secrets or (SECRET,)]
    return {
        "Webhook-Id": "job-1:succeeded",
        "Webhook-Timestamp": str(timestamp),
        "Webhook-Signature": sign(keys, "job-1:succeeded", timestamp, body),
    }


def test_the_standard_s_own_library_verifies_what_we_sign() -> None:
    headers = {name.lower(): value for name, value in delivery().items()}
    assert Webhook(SECRET).verify(BODY.decode(), headers) == json.loads(BODY)


def test_we_verify_what_the_standard_s_own_library_signs() -> None:
    now = datetime.now(UTC)
    headers = {
        "webhook-id": "m",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(SECRET).sign("m", now, BODY.decode()),
    }
    assert webhooks.verify(headers, BODY, secret=SECRET).subject == "job-1"


def test_the_standard_s_published_example() -> None:
    """https://github.com/standard-webhooks/standard-webhooks, the test vector of its libraries."""
    key = decode_secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signature = sign([key], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("body", [BODY, BODY.decode()])
def test_a_delivery_becomes_its_event(body: bytes | str) -> None:
    event = webhooks.verify(delivery(), body, secret=SECRET)
    assert (event.type, event.data["text"]) == ("maskq.job.succeeded", "ü")


def test_the_secret_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKQ_WEBHOOK_SECRET", f"{OTHER} {SECRET}")
    assert webhooks.verify(delivery(), BODY).id == "job-1:succeeded"


def test_secrets_can_be_changed_while_both_are_valid() -> None:
    old_and_new = delivery(BODY, SECRET, OTHER)
    assert old_and_new["Webhook-Signature"].count("v1,") == 2
    for one in (SECRET, OTHER):
        webhooks.verify(old_and_new, BODY, secret=one)
    webhooks.verify(delivery(), BODY, secret=[OTHER, SECRET])


def test_what_is_not_ours_is_refused() -> None:
    with pytest.raises(WebhookRefused, match="no signature fits"):
        webhooks.verify(delivery(), BODY.replace(b"job-1", b"job-2"), secret=SECRET)
    with pytest.raises(WebhookRefused, match="no signature fits"):
        webhooks.verify(delivery(), BODY, secret=OTHER)
    with pytest.raises(WebhookRefused, match="no signature fits"):
        webhooks.verify(delivery() | {"Webhook-Id": "another"}, BODY, secret=SECRET)
    with pytest.raises(WebhookRefused, match="replay"):
        webhooks.verify(delivery(at=time.time() - 301), BODY, secret=SECRET)
    with pytest.raises(WebhookRefused, match="replay"):
        webhooks.verify(delivery(at=time.time() + 302), BODY, secret=SECRET)
    with pytest.raises(WebhookRefused, match="no event"):
        webhooks.verify(delivery(b"{}"), b"{}", secret=SECRET)


@pytest.mark.parametrize("name", ["Webhook-Id", "Webhook-Timestamp", "Webhook-Signature"])
def test_a_missing_header_is_named(name: str) -> None:
    headers = delivery()
    del headers[name]
    with pytest.raises(WebhookRefused, match=name.lower()):
        webhooks.verify(headers, BODY, secret=SECRET)


@pytest.mark.parametrize("odd", ["", "soon", "1.5", "٣", "-5", "9" * 400])
def test_an_odd_timestamp_is_refused_and_no_crash(odd: str) -> None:
    with pytest.raises(WebhookRefused):
        webhooks.verify(delivery() | {"Webhook-Timestamp": odd}, BODY, secret=SECRET)


@pytest.mark.parametrize("odd", ["", "v1", "v1,", "v2,abc", "v1,é", "v1,a v1,b"])
def test_an_odd_signature_is_refused_and_no_crash(odd: str) -> None:
    with pytest.raises(WebhookRefused):
        webhooks.verify(delivery() | {"Webhook-Signature": odd}, BODY, secret=SECRET)


@pytest.mark.parametrize(
    ("secret", "says"),
    [
        ("", "MASKQ_WEBHOOK_SECRET"),
        ("hunter2", "begins with"),
        ("whsec_not base64", "not base64"),
        ("whsec_" + b64encode(b"short").decode(), "24 bytes"),
    ],
)
def test_a_bad_secret_is_told_without_repeating_it(secret: str, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says) as caught:
        webhooks.verify(delivery(), BODY, secret=secret)
    assert not secret or secret not in str(caught.value)
