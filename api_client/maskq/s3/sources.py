"""What a caller may give as `s3=`: a boto3 session, or a boto3 client that both sides use."""

from __future__ import annotations

import os
from typing import Any, Protocol, TypeAlias, cast

from maskq.errors import InvalidRequest


class Boto3Session(Protocol):
    """A `boto3.Session`: its credentials, region and profile are used."""

    def get_credentials(self) -> Any:
        """The credentials."""

    def client(self, *args: Any, **kwargs: Any) -> Any:
        """A client of a service."""


class Boto3Client(Protocol):
    """A boto3 client of S3, which is used as it is."""

    def get_object(self, *args: Any, **kwargs: Any) -> Any:
        """Read an object."""

    def put_object(self, *args: Any, **kwargs: Any) -> Any:
        """Write an object."""


S3Source: TypeAlias = Boto3Session | Boto3Client


def session_of(source: S3Source | None) -> Any:
    """The session in `source`; None if it is a client or missing. Raises InvalidRequest."""
    if source is None or hasattr(source, "put_object"):
        return None
    if hasattr(source, "get_credentials") and hasattr(source, "client"):
        return source
    raise InvalidRequest(
        f"s3 is a {type(source).__name__}; give a boto3.Session, or a client of S3 that a session made"
    )


class SharedClient:
    """A boto3 client that belongs to the caller, who closes it."""

    def __init__(self, client: Boto3Client) -> None:
        self._client = client
        self._process = os.getpid()

    def get(self) -> Any:
        """The client. Raises InvalidRequest in a forked process, which has its parent's sockets."""
        if os.getpid() != self._process:
            raise InvalidRequest(
                "s3 is a boto3 client that another process made: its connections cannot be used after "
                "a fork; give a boto3.Session instead"
            )
        return cast("Any", _Unclosed(self._client))


class _Unclosed:
    """Passes everything on except `close`."""

    def __init__(self, client: Boto3Client) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def close(self) -> None:
        """The caller closes the client."""
