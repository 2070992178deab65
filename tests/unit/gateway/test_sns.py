"""SNS messages: signed by a key of our own, its certificate served from memory instead of by AWS."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import NameOID
from support.dripping import Dripping

from maskq import StoreUnavailable
from maskq_gateway.sources.sns import SnsRefused, Verifier, canonical, fetch_from_aws

TOPIC = "arn:aws:sns:eu-west-1:123456789012:uploads"
CERTIFICATE = "SimpleNotificationService-01d088a6f77103d0fe307c0069e40ed6.pem"
CERTIFICATE_URL = f"https://sns.eu-west-1.amazonaws.com/{CERTIFICATE}"
SUBSCRIBE_URL = (
    "https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn=" + TOPIC + "&Token=t"
)
NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
KEY = rsa.generate_private_key(65537, 2048)
NOTIFICATION = {
    "Type": "Notification",
    "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324",
    "TopicArn": TOPIC,
    "Subject": "Amazon S3 Notification",
    "Message": '{"Records": []}\nü',
    "Timestamp": "2026-05-04T11:59:58.123Z",
    "SigningCertURL": CERTIFICATE_URL,
}
CONFIRMATION = {
    **NOTIFICATION,
    "Type": "SubscriptionConfirmation",
    "Token": "t",
    "SubscribeURL": SUBSCRIBE_URL,
}


def certificate(
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey = KEY, *, until: timedelta | None = None
) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sns.amazonaws.com")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW - timedelta(days=30))
        .not_valid_after(NOW + (until or timedelta(days=30)))
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def signed(
    message: Mapping[str, str], version: str = "1", *, key: rsa.RSAPrivateKey = KEY
) -> dict[str, str]:
    algorithm = {"1": hashes.SHA1, "2": hashes.SHA256}[version]()
    signature = key.sign(canonical(message), padding.PKCS1v15(), algorithm)
    return {
        **message,
        "SignatureVersion": version,
        "Signature": base64.b64encode(signature).decode(),
    }


class Aws:
    """What is fetched, and how often."""

    def __init__(self, body: bytes | None = None) -> None:
        self.body = body or certificate()
        self.fetched: list[str] = []

    def __call__(self, url: str) -> bytes:
        self.fetched.append(url)
        return self.body


def verifier(
    aws: Callable[[str], bytes] | None = None, now: datetime = NOW, topic: str = TOPIC
) -> Verifier:
    return Verifier(frozenset({topic}), fetch=aws or Aws(), now=lambda: now)


def test_the_canonical_form_is_that_of_the_documentation() -> None:
    message = {
        "Type": "Notification",
        "MessageId": "m",
        "TopicArn": "a",
        "Message": "hello",
        "Timestamp": "now",
        "SigningCertURL": "not signed",
    }
    plain = b"Message\nhello\nMessageId\nm\nTimestamp\nnow\nTopicArn\na\nType\nNotification\n"
    assert canonical(message) == plain
    with_subject = plain.replace(b"Timestamp\n", b"Subject\ns\nTimestamp\n")
    assert canonical({**message, "Subject": "s"}) == with_subject
    confirmation = {
        **message,
        "Type": "SubscriptionConfirmation",
        "SubscribeURL": "u",
        "Token": "t",
    }
    assert canonical(confirmation) == (
        b"Message\nhello\nMessageId\nm\nSubscribeURL\nu\nTimestamp\nnow\nToken\nt\n"
        b"TopicArn\na\nType\nSubscriptionConfirmation\n"
    )


@pytest.mark.parametrize("version", ["1", "2"])
@pytest.mark.parametrize(
    "message",
    [
        NOTIFICATION,
        {name: value for name, value in NOTIFICATION.items() if name != "Subject"},
        CONFIRMATION,
        {**CONFIRMATION, "Type": "UnsubscribeConfirmation"},
    ],
    ids=["notification", "without-subject", "subscription", "unsubscribe"],
)
def test_what_is_signed_is_accepted(message: dict[str, str], version: str) -> None:
    verifier().verify(signed(message, version))


@pytest.mark.parametrize("version", ["1", "2"])
@pytest.mark.parametrize("field", ["Message", "MessageId", "Subject", "Timestamp"])
def test_an_altered_notification_is_refused(field: str, version: str) -> None:
    message = signed(NOTIFICATION, version)
    changed = "2026-05-04T11:59:59.123Z" if field == "Timestamp" else message[field] + "x"
    with pytest.raises(SnsRefused, match="altered"):
        verifier().verify({**message, field: changed})


@pytest.mark.parametrize("field", ["Token", "SubscribeURL", "Message"])
def test_an_altered_confirmation_is_refused_and_not_followed(field: str) -> None:
    message, aws = signed(CONFIRMATION), Aws()
    with pytest.raises(SnsRefused, match="altered"):
        verifier(aws).confirm({**message, field: message[field] + "x"})
    assert aws.fetched == [CERTIFICATE_URL]


def test_topic_and_type_are_signed_as_well() -> None:
    other = TOPIC + "-b"
    with pytest.raises(SnsRefused, match="altered"):
        verifier(topic=other).verify({**signed(NOTIFICATION), "TopicArn": other})
    with pytest.raises(SnsRefused, match="altered"):
        verifier().verify({**signed(CONFIRMATION), "Type": "UnsubscribeConfirmation"})
    without_subject = signed(NOTIFICATION)
    del without_subject["Subject"]
    with pytest.raises(SnsRefused, match="altered"):
        verifier().verify(without_subject)


@pytest.mark.parametrize("signature", ["", "%%%", "AAAA"])
def test_a_signature_that_is_none(signature: str) -> None:
    with pytest.raises(SnsRefused, match="altered"):
        verifier().verify({**signed(NOTIFICATION), "Signature": signature})


def test_another_key_or_version_does_not_do() -> None:
    other = rsa.generate_private_key(65537, 2048)
    with pytest.raises(SnsRefused, match="altered"):
        verifier().verify(signed(NOTIFICATION, key=other))
    with pytest.raises(SnsRefused, match="altered"):
        verifier().verify({**signed(NOTIFICATION, "1"), "SignatureVersion": "2"})
    with pytest.raises(SnsRefused, match="SignatureVersion 3"):
        verifier().verify({**signed(NOTIFICATION), "SignatureVersion": "3"})


@pytest.mark.parametrize(
    "url",
    [
        f"http://sns.eu-west-1.amazonaws.com/{CERTIFICATE}",
        f"https://sns.eu-west-1.amazonaws.com.evil.example/{CERTIFICATE}",
        f"https://evil.example/sns.eu-west-1.amazonaws.com/{CERTIFICATE}",
        f"https://sns.eu-west-1.amazonaws.com@evil.example/{CERTIFICATE}",
        f"https://evil@sns.eu-west-1.amazonaws.com/{CERTIFICATE}",
        f"https://sns.eu-west-1.amazonaws.com:8443/{CERTIFICATE}",
        f"https://s3.eu-west-1.amazonaws.com/{CERTIFICATE}",
        f"https://snsXeu-west-1.amazonaws.com/{CERTIFICATE}",
        # Buckets and names that others can have below amazonaws.com.
        f"https://sns.s3.amazonaws.com/{CERTIFICATE}",
        f"https://sns.s3-eu-west-1.amazonaws.com/{CERTIFICATE}",
        f"https://sns.s3-website-eu-west-1.amazonaws.com/{CERTIFICATE}",
        f"https://sns.s3.eu-west-1.amazonaws.com/{CERTIFICATE}",
        f"https://sns.execute-api.eu-west-1.amazonaws.com/{CERTIFICATE}",
        f"https://sns.eu-west-1.amazonaws.com.cn.evil.example/{CERTIFICATE}",
        "https://sns.eu-west-1.amazonaws.com/a.pem",
        "https://sns.eu-west-1.amazonaws.com/a.txt",
        "https://sns.eu-west-1.amazonaws.com/?a.pem",
        f"https://sns.eu-west-1.amazonaws.com/{CERTIFICATE}?x=.pem",
        f"https://sns.eu-west-1.amazonaws.com/{CERTIFICATE}#.pem",
        f"https://sns.eu-west-1.amazonaws.com/a/../{CERTIFICATE}",
        f"https://sns.eu-west-1.amazonaws.com//{CERTIFICATE}",
        f"https://SNS.eu-west-1.amazonaws.com/{CERTIFICATE}",
        f"https://sns.eu-west-1.amazonaws.com./{CERTIFICATE}",
        # Some of these urlsplit drops without a word.
        f"https://sns.eu-west-1.amazonaws.com/{CERTIFICATE}\n",
        f"https://sns.eu-west-1.amazonaws.com/\r\nX: y/{CERTIFICATE}",
        f"https://sns.eu-west-1.amazonaws.com/\t{CERTIFICATE}",
        f" https://sns.eu-west-1.amazonaws.com/{CERTIFICATE}",
        f"https://sns.eu-west-1.amazonaws.com/\x00{CERTIFICATE}",
        f"https://sns.eu-west-1.amazonaws.com\\@evil.example/{CERTIFICATE}",
        f"https://sns.eu-west-\u0661.amazonaws.com/{CERTIFICATE}",
        "https://[::1/a.pem",
        "",
    ],
)
def test_nothing_is_fetched_from_elsewhere(url: str) -> None:
    aws = Aws()
    with pytest.raises(SnsRefused, match="SigningCertURL"):
        verifier(aws).verify(signed({**NOTIFICATION, "SigningCertURL": url}))
    assert aws.fetched == []


def test_china_has_a_domain_of_its_own() -> None:
    url = f"https://sns.cn-north-1.amazonaws.com.cn/{CERTIFICATE}"
    verifier().verify(signed({**NOTIFICATION, "SigningCertURL": url}))


def test_another_topic_is_refused_before_anything_is_fetched() -> None:
    aws = Aws()
    message = signed({**NOTIFICATION, "TopicArn": TOPIC + "-b"})
    with pytest.raises(SnsRefused, match="MASKQ_TRIGGER_SNS_TOPICS"):
        verifier(aws).verify(message)
    with pytest.raises(SnsRefused, match="MASKQ_TRIGGER_SNS_TOPICS"):
        verifier(aws).confirm(signed({**CONFIRMATION, "TopicArn": TOPIC + "-b"}))
    assert aws.fetched == []


@pytest.mark.parametrize(
    ("age", "accepted"),
    [
        (timedelta(minutes=59), True),
        (timedelta(minutes=61), False),
        (timedelta(minutes=-4), True),
        (timedelta(minutes=-6), False),
    ],
)
def test_a_message_is_of_the_last_hour(age: timedelta, accepted: bool) -> None:
    message = signed({**NOTIFICATION, "Timestamp": (NOW - age).isoformat()})
    if accepted:
        verifier().verify(message)
        return
    with pytest.raises(SnsRefused, match="last hour"):
        verifier().verify(message)


@pytest.mark.parametrize("timestamp", ["yesterday", "", "2026-05-04T12:00:00"])
def test_a_timestamp_that_is_no_time(timestamp: str) -> None:
    with pytest.raises(SnsRefused, match="is not a valid time"):
        verifier().verify(signed({**NOTIFICATION, "Timestamp": timestamp}))


@pytest.mark.parametrize("field", ["Message", "MessageId", "Timestamp", "TopicArn"])
def test_what_must_be_there_is_named(field: str) -> None:
    message: dict[str, object] = {**signed(NOTIFICATION)}
    with pytest.raises(SnsRefused, match=f"^{field} of an SNS .* is missing or not text"):
        verifier().verify({name: value for name, value in message.items() if name != field})
    with pytest.raises(SnsRefused, match=f"^{field} of an SNS .* is missing or not text"):
        verifier().verify({**message, field: ["a list"]})


@pytest.mark.parametrize("kind", ["Other", None, ["Notification"]])
def test_other_types_are_none(kind: object) -> None:
    with pytest.raises(SnsRefused, match="not a Type"):
        verifier().verify({**signed(NOTIFICATION), "Type": kind})


def test_the_certificate_is_fetched_once_and_must_be_valid() -> None:
    aws = Aws()
    one = verifier(aws)
    for _ in range(3):
        one.verify(signed(NOTIFICATION))
    assert aws.fetched == [CERTIFICATE_URL]
    with pytest.raises(SnsRefused, match="not valid today"):
        verifier(Aws(certificate(until=timedelta(hours=-1)))).verify(signed(NOTIFICATION))
    with pytest.raises(SnsRefused, match="no certificate"):
        verifier(Aws(b"<html>")).verify(signed(NOTIFICATION))
    elliptic = certificate(ec.generate_private_key(ec.SECP256R1()))
    with pytest.raises(SnsRefused, match="no RSA key"):
        verifier(Aws(elliptic)).verify(signed(NOTIFICATION))


def test_a_kept_certificate_is_not_used_past_its_end() -> None:
    later = [NOW]
    one = Verifier(
        frozenset({TOPIC}), fetch=Aws(certificate(until=timedelta(hours=1))), now=lambda: later[0]
    )
    one.verify(signed(NOTIFICATION))
    later[0] = NOW + timedelta(hours=2)
    with pytest.raises(SnsRefused, match="not valid today"):
        one.verify(signed({**NOTIFICATION, "Timestamp": later[0].isoformat()}))


def test_a_subscription_is_confirmed_where_aws_says() -> None:
    aws = Aws()
    verifier(aws).confirm(signed(CONFIRMATION))
    assert aws.fetched == [CERTIFICATE_URL, SUBSCRIBE_URL]


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/",
        "http://169.254.169.254/latest",
        SUBSCRIBE_URL.replace("eu-west-1.amazonaws", "s3.amazonaws"),
        SUBSCRIBE_URL.replace("ConfirmSubscription", "DeleteTopic"),
        SUBSCRIBE_URL.replace(":uploads", ":others"),
        SUBSCRIBE_URL.replace("/?", "/x?"),
        SUBSCRIBE_URL + "\r\nX: y",
        SUBSCRIBE_URL + " ",
    ],
)
def test_a_subscription_is_confirmed_nowhere_else(url: str) -> None:
    aws = Aws()
    with pytest.raises(SnsRefused, match="SubscribeURL"):
        verifier(aws).confirm(signed({**CONFIRMATION, "SubscribeURL": url}))
    assert aws.fetched == [CERTIFICATE_URL]


@pytest.mark.parametrize(
    "message", [NOTIFICATION, {**CONFIRMATION, "Type": "UnsubscribeConfirmation"}]
)
def test_only_a_subscription_is_confirmed(message: dict[str, str]) -> None:
    aws = Aws()
    with pytest.raises(SnsRefused, match="does not confirm a subscription"):
        verifier(aws).confirm(signed(message))
    assert SUBSCRIBE_URL not in aws.fetched


def test_nothing_there_is_told_without_the_query() -> None:
    with pytest.raises(StoreUnavailable, match="does not answer at https://127") as caught:
        fetch_from_aws("https://127.0.0.1:1/?Token=secret")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("region", ["us-east-1", "us-gov-west-1", "ap-southeast-2", "mx-central-1"])
def test_every_region_has_a_certificate(region: str) -> None:
    url = CERTIFICATE_URL.replace("eu-west-1", region)
    verifier().verify(signed({**NOTIFICATION, "SigningCertURL": url}))


def other_certificate(number: int) -> str:
    return CERTIFICATE_URL.replace("01d088a6", f"{number:08x}")


@pytest.mark.parametrize("failure", [StoreUnavailable("SNS is away"), b"<html>"])
def test_a_certificate_that_cannot_be_had_is_asked_for_once_a_minute(
    failure: StoreUnavailable | bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, fetched = [1000.0], []
    monkeypatch.setattr("maskq_gateway.sources.sns.time.monotonic", lambda: clock[0])

    def fetch(url: str) -> bytes:
        fetched.append(url)
        if isinstance(failure, bytes):
            return failure
        raise failure

    one = verifier(fetch)
    for _ in range(50):
        with pytest.raises((SnsRefused, StoreUnavailable)):
            one.verify(signed(NOTIFICATION))
    assert len(fetched) == 1
    clock[0] += 61
    with pytest.raises((SnsRefused, StoreUnavailable)):
        one.verify(signed(NOTIFICATION))
    assert len(fetched) == 2
    # And of many nobody keeps more than some.
    message = signed(NOTIFICATION)
    for number in range(1000):
        with pytest.raises((SnsRefused, StoreUnavailable)):
            one.verify({**message, "SigningCertURL": other_certificate(number)})
    assert len(one._failures) <= 256


def test_strangers_cause_a_few_fetches_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    let_go, started = threading.Event(), threading.Semaphore(0)

    def fetch(_: str) -> bytes:
        started.release()
        let_go.wait(20)
        return certificate()

    one, message = verifier(fetch), signed(NOTIFICATION)
    with ThreadPoolExecutor(4) as pool:
        urls = [other_certificate(number) for number in range(4)]
        waiting = [pool.submit(one.verify, {**message, "SigningCertURL": url}) for url in urls]
        for _ in urls:
            assert started.acquire(timeout=20)
        with pytest.raises(StoreUnavailable, match="other certificates"):
            one.verify(message)
        let_go.set()
        for each in waiting:
            each.result(20)
    one.verify(message)


def test_a_certificate_that_drips_is_given_up_at_the_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("maskq_gateway.sources.sns._TIMEOUT_S", 0.4)
    with (
        Dripping(first=b"HTTP/1.1 200 OK\r\nX-Slow: ") as dripping,
        pytest.raises(StoreUnavailable, match=r"within 0\.4 s"),
    ):
        fetch_from_aws(dripping.url(0, "/a.pem"))
