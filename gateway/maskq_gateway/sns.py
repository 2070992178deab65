"""Messages of Amazon SNS: signed by AWS, of a topic we know, and not old; and confirming to it.

https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html
"""

from __future__ import annotations

import base64
import re
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from maskq.contract.failures import FailureCode
from maskq.errors import MaskqError, StoreUnavailable

Fetch = Callable[[str], bytes]  # raises StoreUnavailable

MAX_AGE: Final = timedelta(hours=1)  # SNS itself tries no longer
_AHEAD: Final = timedelta(minutes=5)  # of our clock
_TIMEOUT_S = 5.0
_LARGEST_ANSWER = 64 * 2**10
_CERTIFICATES_KEPT = 16  # AWS signs with one of each region, and changes it about once a year
_HOST = re.compile(r"sns\.[a-z0-9-]+\.amazonaws\.com(\.cn)?")
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


class SnsRefused(MaskqError, ValueError):
    """Not a message of an allowed topic, not signed by SNS, altered, or too old."""

    code = FailureCode.ACCESS_DENIED


class Verifier:
    """Knows the allowed topics and keeps the certificates. Thread-safe."""

    def __init__(
        self,
        topics: frozenset[str],
        *,
        fetch: Fetch | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._topics = topics
        self._fetch = fetch or fetch_from_aws
        self._now = now
        self._certificates: dict[str, x509.Certificate] = {}
        self._changing = threading.Lock()

    def verify(self, message: Mapping[str, Any]) -> None:
        """Raises SnsRefused, or StoreUnavailable when the certificate cannot be had just now."""
        signed = canonical(message)
        self._refuse_other_topics(message["TopicArn"])
        self._refuse_old(message["Timestamp"])
        version = str(message.get("SignatureVersion"))
        algorithm = _HASHES.get(version)
        if algorithm is None:
            raise SnsRefused(
                f"SignatureVersion {version:.20} of an SNS message is unknown; 1 and 2 are"
            )
        key = self._key(_aws_url(message.get("SigningCertURL"), "SigningCertURL", ending=".pem"))
        try:
            signature = base64.b64decode(str(message.get("Signature")), validate=True)
            key.verify(signature, signed, padding.PKCS1v15(), algorithm())
        except (InvalidSignature, ValueError):
            raise SnsRefused(
                "the signature of an SNS message is not of its content: it was altered on its way, "
                "or is not of Amazon's"
            ) from None

    def confirm(self, message: Mapping[str, Any]) -> None:
        """Verify a SubscriptionConfirmation and subscribe. Raises as `verify` does."""
        self.verify(message)
        if message["Type"] != "SubscriptionConfirmation":
            raise SnsRefused(f"an SNS {message['Type']} confirms no subscription")
        self._fetch(_aws_url(message["SubscribeURL"], "SubscribeURL"))

    def _refuse_other_topics(self, topic: str) -> None:
        if topic not in self._topics:
            raise SnsRefused(
                f"SNS topic {topic!r:.200} is not allowed here; if it is yours, add its ARN to "
                f"MASKQ_TRIGGER_SNS_TOPICS"
            )

    def _refuse_old(self, timestamp: str) -> None:
        try:
            age = self._now() - datetime.fromisoformat(timestamp)
        except (ValueError, TypeError):  # no time; or one without its zone
            raise SnsRefused(
                f"the Timestamp {timestamp!r:.200} of an SNS message is no time"
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
        try:
            certificate = x509.load_pem_x509_certificate(self._fetch(url))
        except ValueError:
            raise SnsRefused(f"there is no certificate at {url:.200}") from None
        with self._changing:
            if len(self._certificates) >= _CERTIFICATES_KEPT:
                self._certificates.clear()
            self._certificates[url] = certificate
        return certificate


def canonical(message: Mapping[str, Any]) -> bytes:
    """What is signed: names and values of the signed fields, a line each. Raises SnsRefused."""
    kind = message.get("Type")
    names = _SIGNED.get(kind) if isinstance(kind, str) else None
    if names is None:
        raise SnsRefused(f"{kind!r:.200} is no Type of an SNS message")
    lines = []
    for name in names:
        value = message.get(name)
        if value is None and name == "Subject":
            continue
        if not isinstance(value, str):
            raise SnsRefused(f"an SNS {kind} lacks {name}, or has it as no text")
        lines.append(f"{name}\n{value}\n")
    return "".join(lines).encode(errors="surrogatepass")


def _aws_url(url: object, field: str, *, ending: str = "") -> str:
    """Only what AWS answers: whoever writes a message must not choose whom we call."""
    try:
        parts = urlsplit(url) if isinstance(url, str) else None
        ours = parts is not None and parts.scheme == "https" and _HOST.fullmatch(parts.netloc)
    except ValueError:
        ours = None
    if not ours or not parts or not parts.path.endswith(ending):
        raise SnsRefused(
            f"the {field} of an SNS message is {str(url)[:200]!r}; expected "
            f"https://sns.REGION.amazonaws.com/…{ending}"
        )
    return str(url)


def fetch_from_aws(url: str) -> bytes:
    """GET one small document, without redirects. Raises StoreUnavailable."""
    import urllib3

    place = url.partition("?")[0]  # the rest of a SubscribeURL is a secret
    timeout = urllib3.Timeout(_TIMEOUT_S)
    try:
        with urllib3.PoolManager(timeout=timeout, retries=False) as pool:
            answer = pool.request("GET", url, redirect=False, preload_content=False)
            try:
                body = answer.read(_LARGEST_ANSWER + 1)
            finally:
                answer.close()
    except urllib3.exceptions.HTTPError as error:
        raise StoreUnavailable(f"Amazon SNS does not answer at {place}: {error}") from None
    if answer.status != 200:
        raise StoreUnavailable(f"Amazon SNS answers {answer.status} at {place}")
    if len(body) > _LARGEST_ANSWER:
        raise StoreUnavailable(f"Amazon SNS answers more than {_LARGEST_ANSWER} bytes at {place}")
    return body
