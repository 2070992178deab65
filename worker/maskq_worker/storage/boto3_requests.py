"""GET and PUT of one object by boto3."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from maskq import s3
from maskq.contract import FailureCode
from maskq_worker.errors import PermanentError
from maskq_worker.storage.obstore_client import ReadRequest, StoredObject, WriteRequest

if TYPE_CHECKING:
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
