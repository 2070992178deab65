"""Messages of SNS, whose signature stands for a token, and the confirmation of a topic."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID
from support import notifications
from support.notifications import (
    CERTIFICATE_URL,
    SUBSCRIBE_URL,
    TOPIC,
    Gateway,
    all_jobs,
    event,
    record,
    rules,
    serving,
)

from maskq import Client
from maskq_gateway.app import create_app
from maskq_gateway.settings import GatewaySettings
from maskq_gateway.sources.signer import SignatureRefused
from maskq_gateway.sources.sns import Verifier, canonical
from maskq_gateway.sources.sns_envelope import SnsSigner

client = notifications.client
gateway = notifications.gateway
settings = notifications.settings


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
