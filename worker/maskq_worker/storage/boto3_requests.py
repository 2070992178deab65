"""GET and PUT of one object by boto3."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from maskq import s3
from maskq.contract import FailureCode
from maskq_worker.errors import PermanentError
from maskq_worker.storage.obstore_client import ReadRequest, StoredObject, WriteRequest

if TYPE_CHECKING:
    from maskq.contract.locations import S3Uri
    from maskq_worker.storage.circuit_breaker import Use


def get(client: Any, use: Use, request: ReadRequest) -> StoredObject:
    """Read an object. Raises StoreError, and PermanentError if it is too large."""
    place, max_bytes = request.place, request.max_bytes
    which = {"VersionId": request.version_id} if request.version_id else {}
    if request.etag:
        which["IfMatch"] = request.etag
    with s3.typed_errors(place):
        answer = client.get_object(Bucket=place.bucket, Key=place.key, **which)
        use.answered()
        size = answer["ContentLength"]
        if size > max_bytes:
            answer["Body"].close()
            raise PermanentError(
                FailureCode.IMAGE_TOO_LARGE,
                f"{place} has {size} bytes; this worker takes {max_bytes} (MASKQ_MAX_IMAGE_BYTES)",
            )
        return StoredObject(answer["Body"].read(), answer.get("ETag"), answer.get("VersionId"))


@dataclass(frozen=True, slots=True)
class ObjectState:
    """An object without its content."""

    etag: str
    metadata: Mapping[str, str]  # the caller's, without `x-amz-meta-`
    size: int  # bytes


@dataclass(frozen=True, slots=True)
class WholeObject:
    """An object with what S3 stores beside its content."""

    body: bytes
    content_type: str
    metadata: dict[str, str]


def head(client: Any, place: S3Uri) -> ObjectState:
    """Raises StoreError, also if there is no such object."""
    with s3.typed_errors(place):
        answer = client.head_object(Bucket=place.bucket, Key=place.key)
        return ObjectState(answer["ETag"], answer["Metadata"], answer["ContentLength"])


def get_whole(client: Any, place: S3Uri) -> WholeObject:
    """Raises StoreError."""
    with s3.typed_errors(place):
        answer = client.get_object(Bucket=place.bucket, Key=place.key)
        return WholeObject(answer["Body"].read(), answer["ContentType"], answer["Metadata"])


def put_whole(client: Any, place: S3Uri, whole: WholeObject, replaces: ObjectState | None) -> None:
    """Write an object in place of `replaces`; None: only if there is none. Raises StoreError."""
    condition = {"IfMatch": replaces.etag} if replaces else {"IfNoneMatch": "*"}
    with s3.typed_errors(place):
        client.put_object(
            Bucket=place.bucket,
            Key=place.key,
            Body=whole.body,
            ContentType=whole.content_type,
            Metadata=whole.metadata,
            **condition,
        )


def put(client: Any, request: WriteRequest) -> None:
    """Write an object. Raises StoreError."""
    condition = {"IfNoneMatch": "*"} if request.create else {}
    place = request.place
    with s3.typed_errors(place):
        client.put_object(
            Bucket=place.bucket,
            Key=place.key,
            Body=request.body,
            ContentType=request.content_type,
            Metadata=dict(request.metadata),
            **condition,
        )
