"""The object store through boto3: connections and listings. errors.py classifies its errors."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

from maskq.contract.locations import S3Uri
from maskq.errors import InvalidRequest
from maskq.per_process import no_fork
from maskq.s3.errors import Meaning, StoreError, for_callers, typed_errors
from maskq.s3.sessions import new_session

__all__ = [
    "Addressing", "Connection", "Listed", "StoreError", "connect", "for_callers", "list_objects",
    "list_under", "typed_errors",
]  # fmt: skip

T = TypeVar("T")
Addressing = Literal["path", "virtual", "auto"]

_RENEW_EVERY_S = 10.0  # minimum time between attempts to renew credentials


def connect(
    endpoint_url: str | None,
    *,
    addressing: Addressing = "path",
    connections: int = 16,
    read_timeout_s: float = 20.0,
    attempts: int = 3,
    session: Any = None,
) -> Any:
    """A boto3 S3 client. Threads share it; each process makes its own, after any fork.

    session: a boto3.Session whose credentials it uses; default: a new one. addressing: where a URL
    names the bucket: in its path, in its host name, or as botocore chooses.
    Raises InvalidRequest for an endpoint that is not a URL, or an invalid AWS configuration.
    """
    # A child that is forked during an import would find the module locked forever.
    with no_fork():
        return _connected(endpoint_url, addressing, connections, read_timeout_s, attempts, session)


def _connected(
    endpoint_url: str | None,
    addressing: Addressing,
    connections: int,
    read_timeout_s: float,
    attempts: int,
    session: Any,
) -> Any:
    import boto3  # imported late, because it is slow
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    from maskq.safe_http.boto3_deadline import limit_requests

    if endpoint_url and "@" in endpoint_url:  # botocore's errors repeat the URL
        raise InvalidRequest(
            "MASKQ_S3_ENDPOINT_URL contains a user name or password: set it to http://HOST:PORT, and "
            "give the credentials as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or by a role"
        )
    try:
        own = new_session()
        _check_authorities(own)
        client = (session or boto3.Session(botocore_session=own)).client(
            "s3",
            endpoint_url=endpoint_url,
            config=Config(
                max_pool_connections=connections,
                connect_timeout=3,
                read_timeout=read_timeout_s,
                retries={"mode": "standard", "total_max_attempts": attempts},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                s3={"addressing_style": addressing},
                signature_version="s3v4",  # presigned URLs too: many stores refuse botocore's v2
                tcp_keepalive=True,
            ),
        )
        limit_requests(client, total_s=1.5 * read_timeout_s)
        return client
    except InvalidRequest:
        raise
    except ValueError as error:
        raise InvalidRequest(
            f"MASKQ_S3_ENDPOINT_URL is not a valid URL of an object store (http://HOST:PORT): {error}"
        ) from None
    except BotoCoreError as error:  # a missing profile, a file that cannot be parsed
        raise InvalidRequest(f"the AWS configuration cannot be used: {error}") from None


def authorities() -> Path | None:
    """The file of CA certificates that boto3 trusts in place of its own: AWS_CA_BUNDLE, or `ca_bundle`
    of the profile. Raises BotoCoreError."""
    return _authorities(new_session())


def _authorities(session: Any) -> Path | None:
    named = session.get_config_variable("ca_bundle")
    return Path(named) if named else None


def _check_authorities(session: Any) -> None:
    """Raise InvalidRequest for an unreadable CA file, which boto3 reports as an outage later."""
    import ssl

    if bundle := _authorities(session):
        try:
            ssl.create_default_context(cafile=bundle)
        except OSError as error:  # SSLError: the file has no certificate
            reason = (
                "not a file of PEM certificates"
                if isinstance(error, ssl.SSLError)
                else error.strerror
            )
            raise InvalidRequest(f"AWS_CA_BUNDLE: {str(bundle)!r}: {reason}") from None


class Connection:
    """A client that is made at its first use, and again when S3 refuses its credentials.

    A new client reads files and roles again, where credentials may have been rotated. Thread-safe.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._client: Any = None
        self._renewed = float("-inf")
        self.made_at = float("-inf")
        self._lock = threading.Lock()

    @property
    def client(self) -> Any:
        with self._lock:
            if self._client is None:
                self._remake()
            return self._client

    def run(self, work: Callable[[Any], T]) -> T:
        """`work(client)`, retried once with new credentials if they are refused. Raises StoreError."""
        client = self.client
        try:
            return work(client)
        except StoreError as error:
            if error.meaning is not Meaning.CREDENTIALS or not self._renew(client):
                raise
        return work(self.client)

    def renew(self) -> None:
        """Read the credentials again now. Raises InvalidRequest."""
        with self._lock:
            self._remake()

    def close(self) -> None:
        with self._lock:
            if self._client is not None:
                self._client.close()

    def _remake(self) -> None:
        self._client = self._make()
        self.made_at = time.monotonic()

    def _renew(self, refused: Any) -> bool:
        """Whether there is a newer client than the refused one."""
        with self._lock:
            if self._client is not refused:
                return True
            if time.monotonic() < self._renewed + _RENEW_EVERY_S:
                return False
            self._renewed = time.monotonic()
            try:
                self._remake()
            except InvalidRequest:
                return False
            return True


# --- many objects -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Listed:
    """An object in a listing."""

    place: S3Uri
    modified: datetime


def list_objects(client: Any, place: S3Uri) -> Iterator[Listed]:
    """Every object below `place`, that is, whose key begins with it and a slash."""
    pages = client.get_paginator("list_objects_v2").paginate(
        Bucket=place.bucket, Prefix=f"{place.key}/"
    )
    for page in pages:
        for entry in page.get("Contents", ()):
            yield Listed(S3Uri(place.bucket, entry["Key"]), entry["LastModified"])


def list_under(client: Any, place: S3Uri) -> list[S3Uri]:
    """Every object below `place`, that is, whose key begins with it and a slash."""
    return [listed.place for listed in list_objects(client, place)]
