"""The object store by boto3: how client and worker connect, and what its errors mean."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from maskq.contract.failures import FailureCode
from maskq.contract.places import S3Place
from maskq.errors import InvalidRequest

if TYPE_CHECKING:
    from botocore.exceptions import ClientError

_DENIED = {
    "AccessDenied", "403", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken",
    "AllAccessDisabled",
}  # fmt: skip
_MISSING = {"NoSuchKey", "NoSuchBucket", "404", "NotFound", "NoSuchVersion"}
_CHANGED = {"PreconditionFailed", "412", "ConditionalRequestConflict"}


class StoreError(Exception):
    """`code` is not_found, access_denied, source_changed or store_unavailable; the text says where."""

    def __init__(self, code: FailureCode, message: str) -> None:
        super().__init__(message)
        self.code = code


def connect(endpoint_url: str | None, *, connections: int = 16) -> Any:
    """A boto3 S3 client. One a process, shared by its threads, made after any fork.

    Raises InvalidRequest for an endpoint that is no URL.
    """
    import boto3  # half of the import time of everything else together: only when it is needed
    from botocore.config import Config

    # A session of its own: the default one keeps the first credentials it saw, and is not thread-safe.
    session = boto3.Session()
    try:
        return session.client(
            "s3",
            endpoint_url=endpoint_url,
            config=Config(
                max_pool_connections=connections,
                connect_timeout=3,
                read_timeout=20,
                retries={"mode": "standard", "total_max_attempts": 3},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                s3={"addressing_style": "path"},
                tcp_keepalive=True,
            ),
        )
    except ValueError as error:
        raise InvalidRequest(
            f"MASKQ_S3_ENDPOINT_URL is no URL of an object store, http://HOST:PORT: {error}"
        ) from None


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


@contextmanager
def typed_errors(place: object) -> Iterator[None]:
    """Turn what botocore raises into a StoreError that names `place`."""
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    try:
        yield
    except ClientError as error:
        raise _translated(error, place) from error
    except NoCredentialsError as error:
        raise StoreError(
            FailureCode.ACCESS_DENIED,
            f"no credentials for {place}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or a role",
        ) from error
    except (BotoCoreError, OSError) as error:
        raise StoreError(
            FailureCode.STORE_UNAVAILABLE,
            f"the object store did not answer for {place}: {error}; check MASKQ_S3_ENDPOINT_URL",
        ) from error


def _translated(error: ClientError, place: object) -> StoreError:
    code = str(error.response.get("Error", {}).get("Code", ""))
    if code in _DENIED:
        return StoreError(
            FailureCode.ACCESS_DENIED,
            f"the object store refuses {place} ({code}); check the credentials and their policy",
        )
    if code == "NoSuchBucket":
        return StoreError(FailureCode.NOT_FOUND, f"there is no bucket of this name: {place}")
    if code in _MISSING:
        return StoreError(FailureCode.NOT_FOUND, f"there is no object at {place}")
    if code in _CHANGED:
        return StoreError(
            FailureCode.SOURCE_CHANGED, f"the object at {place} was changed meanwhile"
        )
    return StoreError(
        FailureCode.STORE_UNAVAILABLE, f"the object store failed for {place} ({code}): {error}"
    )
