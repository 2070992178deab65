"""The object store by boto3: how client and worker connect. What its errors mean: s3_errors.py."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Literal, TypeVar

from maskq.contract.places import S3Place
from maskq.errors import InvalidRequest
from maskq.per_process import no_fork
from maskq.s3_errors import Meaning, StoreError, for_callers, typed_errors

__all__ = [
    "Addressing", "Connection", "StoreError", "connect", "delete_under", "for_callers", "list_under",
    "typed_errors",
]  # fmt: skip

T = TypeVar("T")
Addressing = Literal["path", "virtual", "auto"]

_RENEW_EVERY_S = 10.0  # new credentials are looked for at most this often


def connect(
    endpoint_url: str | None,
    *,
    addressing: Addressing = "path",
    connections: int = 16,
    read_timeout_s: float = 20.0,
    attempts: int = 3,
) -> Any:
    """A boto3 S3 client. One a process, shared by its threads, made after any fork.

    addressing: where a URL names the bucket: in its path, in its host name, or as botocore chooses.
    Raises InvalidRequest for an endpoint that is not a URL, or a mistake in AWS's own configuration.
    """
    # A child that is forked during an import finds the module locked for ever; a client imports more.
    with no_fork():
        return _connected(endpoint_url, addressing, connections, read_timeout_s, attempts)


def _connected(
    endpoint_url: str | None,
    addressing: Addressing,
    connections: int,
    read_timeout_s: float,
    attempts: int,
) -> Any:
    import boto3  # half of the import time of everything else together: only when it is needed
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    from maskq.safe_http.boto3_deadline import limit_requests

    try:
        # A session of its own: the default one keeps the first credentials it saw, and is not
        # thread-safe.
        client = boto3.Session().client(
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
                tcp_keepalive=True,
            ),
        )
        limit_requests(client, total_s=1.5 * read_timeout_s)
        return client
    except ValueError as error:
        raise InvalidRequest(
            f"MASKQ_S3_ENDPOINT_URL is no URL of an object store, http://HOST:PORT: {error}"
        ) from None
    except BotoCoreError as error:  # a profile that is not there, a file that cannot be parsed
        raise InvalidRequest(f"the AWS configuration cannot be used: {error}") from None


class Connection:
    """A client that is made at its first use, and made anew when its credentials are refused.

    A new session reads files and roles again, where credentials may have been rotated.
    Threads share it.
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
        """`work(client)`, once more with new credentials if they are refused. Raises StoreError."""
        client = self.client
        try:
            return work(client)
        except StoreError as error:
            if error.meaning is not Meaning.CREDENTIALS or not self._renew(client):
                raise
        return work(self.client)

    def renew(self) -> None:
        """Look for new credentials now. Raises InvalidRequest."""
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
        """Whether there is another client than the one that was refused."""
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


def list_under(client: Any, place: S3Place) -> list[S3Place]:
    """Every object whose key begins with the place and a slash."""
    pages = client.get_paginator("list_objects_v2").paginate(
        Bucket=place.bucket, Prefix=f"{place.key}/"
    )
    return [S3Place(place.bucket, e["Key"]) for page in pages for e in page.get("Contents", ())]


def delete_under(client: Any, place: S3Place) -> None:
    """Delete every object whose key begins with the place and a slash, one by one: a bulk deletion
    needs a checksum that not every S3 server knows."""
    for found in list_under(client, place):
        client.delete_object(Bucket=found.bucket, Key=found.key)
