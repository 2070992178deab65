"""Verifies messages of Amazon SNS: their signature, topic and age. Confirms subscriptions.

https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html
"""

from __future__ import annotations

import base64
import re
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from maskq.errors import MaskqError, StoreUnavailable
from maskq_gateway.sources.signer import SignatureRefused

Fetch = Callable[[str], bytes]  # raises StoreUnavailable

MAX_AGE: Final = timedelta(hours=1)  # SNS itself retries no longer
_AHEAD: Final = timedelta(minutes=5)  # of our clock
_TIMEOUT_S = 5.0  # for a whole fetch
_LARGEST_ANSWER = 64 * 2**10
_CERTIFICATES_KEPT = 16  # AWS signs with one per region, and changes it about once a year
_FAILURES_KEPT = 256
_FAILED_FOR_S = 60.0  # before a certificate that could not be fetched is requested again
_FETCHES = 4  # at once, since anyone can cause them
# A region is us-east-1, us-gov-west-1 or cn-north-1, never s3 or another service.
_ORIGIN = r"https://sns\.[a-z]{2,3}(?:-[a-z]+)+-[0-9]{1,2}\.amazonaws\.com(?:\.cn)?"
_CERTIFICATE_URL = re.compile(rf"{_ORIGIN}/SimpleNotificationService-[0-9a-f]{{8,64}}\.pem")
_SUBSCRIBE_URL = re.compile(rf"{_ORIGIN}/\?[\x21-\x7e]{{1,4096}}")
_HASHES: Final[Mapping[str, type[hashes.HashAlgorithm]]] = {
    "1": hashes.SHA1,
    "2": hashes.SHA256,
}
_CONFIRMATION = ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type")
_SIGNED: Final = {
    "Notification": ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"),
    "SubscriptionConfirmation": _CONFIRMATION,
    "UnsubscribeConfirmation": _CONFIRMATION,
}


class SnsRefused(SignatureRefused):
    """The message is of another topic, not signed by SNS, altered, or too old."""


class Verifier:
    """Verifies messages of the allowed topics, and caches certificates. Thread-safe."""

    def __init__(
        self,
        topics: frozenset[str],
        *,
        fetch: Fetch | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.topics = topics
        self._fetch = fetch or fetch_from_aws
        self._now = now
        self._certificates: dict[str, x509.Certificate] = {}
        self._failures: dict[str, tuple[float, MaskqError]] = {}  # URL → until when
        self._fetches = threading.BoundedSemaphore(_FETCHES)
        self._changing = threading.Lock()

    def verify(self, message: Mapping[str, Any]) -> None:
        """Raises SnsRefused, or StoreUnavailable if the certificate cannot be fetched now."""
        signed = canonical(message)
        self._refuse_other_topics(message["TopicArn"])
        self._refuse_old(message["Timestamp"])
        version = str(message.get("SignatureVersion"))
        algorithm = _HASHES.get(version)
        if algorithm is None:
            raise SnsRefused(
                f"SignatureVersion {version:.20} of an SNS message is not supported; 1 and 2 are"
            )
        key = self._key(
            _aws_url(message, "SigningCertURL", _CERTIFICATE_URL, "SimpleNotificationService-….pem")
        )
        try:
            signature = base64.b64decode(str(message.get("Signature")), validate=True)
            key.verify(signature, signed, padding.PKCS1v15(), algorithm())
        except (InvalidSignature, ValueError):
            raise SnsRefused(
                "the signature of an SNS message does not match its content: the message was altered, "
                "or Amazon did not sign it"
            ) from None

    def confirm(self, message: Mapping[str, Any]) -> None:
        """Verify a SubscriptionConfirmation and subscribe. Raises as `verify` does."""
        self.verify(message)
        topic = message["TopicArn"]
        if message["Type"] != "SubscriptionConfirmation":
            raise SnsRefused(f"an SNS {message['Type']} does not confirm a subscription")
        url = _aws_url(message, "SubscribeURL", _SUBSCRIBE_URL, "?Action=ConfirmSubscription&…")
        query = dict(parse_qsl(urlsplit(url).query))
        if query.get("Action") != "ConfirmSubscription" or query.get("TopicArn") != topic:
            raise SnsRefused(
                f"the SubscribeURL of an SNS message does not confirm a subscription to {topic:.200}"
            )
        self._fetch(url)

    def _refuse_other_topics(self, topic: str) -> None:
        if topic not in self.topics:
            raise SnsRefused(
                f"SNS topic {topic!r:.200} is not allowed here; if it is yours, add its ARN to "
                f"MASKQ_TRIGGER_SNS_TOPICS"
            )

    def _refuse_old(self, timestamp: str) -> None:
        try:
            age = self._now() - datetime.fromisoformat(timestamp)
        except (ValueError, TypeError):  # not a time, or one without a time zone
            raise SnsRefused(
                f"the Timestamp {timestamp!r:.200} of an SNS message is not a valid time"
            ) from None
        if not -_AHEAD <= age <= MAX_AGE:
            raise SnsRefused(
                f"an SNS message of {timestamp:.200} is not of the last hour; if it is new, check this "
                f"machine's clock"
            )

    def _key(self, url: str) -> rsa.RSAPublicKey:
        certificate = self._certificates.get(url)
        if certificate is None:
            certificate = self._fetched(url)
        if not certificate.not_valid_before_utc <= self._now() <= certificate.not_valid_after_utc:
            raise SnsRefused(f"the certificate at {url:.200} is not valid today")
        key = certificate.public_key()
        if not isinstance(key, rsa.RSAPublicKey):
            raise SnsRefused(f"the certificate at {url:.200} holds no RSA key")
        return key

    def _fetched(self, url: str) -> x509.Certificate:
        """Fetch a certificate. Raises SnsRefused, StoreUnavailable; a failure is cached for a while."""
        with self._changing:
            until, failure = self._failures.get(url, (0.0, None))
            if failure is not None and time.monotonic() < until:
                raise failure.with_traceback(None)  # else each raise would lengthen its traceback
        if not self._fetches.acquire(blocking=False):
            raise StoreUnavailable(
                "other certificates of Amazon SNS are being fetched; send the message again later"
            )
        try:
            certificate = x509.load_pem_x509_certificate(self._fetch(url))
        except ValueError:
            raise self._failed(url, SnsRefused(f"there is no certificate at {url:.200}")) from None
        except MaskqError as error:
            raise self._failed(url, error) from None
        finally:
            self._fetches.release()
        with self._changing:
            if len(self._certificates) >= _CERTIFICATES_KEPT:
                self._certificates.clear()
            self._certificates[url] = certificate
        return certificate

    def _failed(self, url: str, error: MaskqError) -> MaskqError:
        with self._changing:
            if len(self._failures) >= _FAILURES_KEPT:
                self._failures.clear()
            self._failures[url] = (time.monotonic() + _FAILED_FOR_S, error)
        return error


def canonical(message: Mapping[str, Any]) -> bytes:
    """The signed text: names and values of the signed fields, a line each. Raises SnsRefused."""
    kind = message.get("Type")
    names = _SIGNED.get(kind) if isinstance(kind, str) else None
    if names is None:
        raise SnsRefused(f"{kind!r:.200} is not a Type of SNS messages")
    lines = []
    for name in names:
        value = message.get(name)
        if value is None and name == "Subject":
            continue
        if not isinstance(value, str):
            raise SnsRefused(f"{name} of an SNS {kind} is missing or not text")
        lines.append(f"{name}\n{value}\n")
    return "".join(lines).encode(errors="surrogatepass")


def _aws_url(message: Mapping[str, Any], field: str, pattern: re.Pattern[str], example: str) -> str:
    """A URL of AWS. The sender of a message must not choose which host is called."""
    url = message.get(field)
    if not isinstance(url, str) or not pattern.fullmatch(url):
        raise SnsRefused(
            f"the {field} of an SNS message is {str(url)[:200]!r}; expected "
            f"https://sns.REGION.amazonaws.com/{example}"
        )
    return url


def fetch_from_aws(url: str) -> bytes:
    """GET one small document, without redirects. Raises StoreUnavailable."""
    from maskq import safe_http

    place = url.partition("?")[0]  # the query of a SubscribeURL is a secret
    host = urlsplit(url).hostname or ""
    try:
        # The host is Amazon's, and its certificate is checked. Its address may be private: a VPC can
        # have its own endpoint for SNS.
        target = safe_http.check(url, {host}, setting="")
        answer = safe_http.get(target, max_bytes=_LARGEST_ANSWER, total_s=_TIMEOUT_S)
    except (safe_http.Unreachable, safe_http.Refused) as error:
        raise StoreUnavailable(f"Amazon SNS does not answer at {place}: {error}") from None
    except safe_http.TooLong:
        raise StoreUnavailable(
            f"Amazon SNS answers more than {_LARGEST_ANSWER} bytes at {place}"
        ) from None
    if answer.status != 200:
        raise StoreUnavailable(f"Amazon SNS answers {answer.status} at {place}")
    return answer.body
