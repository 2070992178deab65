"""The worker's side of the object store: read inputs, write outputs, commit the manifest."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Literal

from maskq import s3
from maskq.contract import FailureCode
from maskq.contract.places import S3Place
from maskq_worker.errors import PermanentError, TransientError
from maskq_worker.fast_store import AlreadyThere, FastStore, StoredObject

__all__ = ["AlreadyThere", "ObjectStore", "StoredObject"]


class ObjectStore:
    """One a process, shared by its threads, made after any fork."""

    def __init__(
        self,
        endpoint_url: str | None,
        *,
        allowed_buckets: Collection[str],
        connections: int,
        client: Literal["obstore", "boto3"] = "obstore",
    ) -> None:
        """client: what reads inputs and writes outputs; everything else is boto3's."""
        self._client = s3.connect(endpoint_url, connections=connections)
        self._fast = FastStore(self._client) if client == "obstore" else None
        self._allowed = frozenset(allowed_buckets)

    def get(
        self,
        place: S3Place,
        *,
        max_bytes: int,
        version_id: str | None = None,
        etag: str | None = None,
    ) -> StoredObject:
        """Read an object. Its size is checked before its body is read.

        version_id: that version; etag: only while it is that state, else source_changed.
        """
        self._check(place)
        by_boto3 = partial(self._get, place, max_bytes, version_id, etag)
        if self._fast is None:
            return by_boto3()
        return self._fast.get(
            place, max_bytes=max_bytes, version_id=version_id, etag=etag, otherwise=by_boto3
        )

    def find(self, place: S3Place) -> bytes | None:
        """Read a small object that may not be there."""
        try:
            with s3.typed_errors(place):
                return bytes(
                    self._client.get_object(Bucket=place.bucket, Key=place.key)["Body"].read()
                )
        except s3.StoreError as error:
            if error.code is FailureCode.NOT_FOUND:
                return None
            raise _job_error(error) from error

    def put(self, place: S3Place, body: bytes, content_type: str) -> None:
        self._check(place)
        by_boto3 = partial(self._put, place, body, content_type)
        if self._fast is None:
            return by_boto3()
        return self._fast.put(place, body, content_type, otherwise=by_boto3)

    def create(self, place: S3Place, body: bytes, content_type: str) -> None:
        """Write an object where there is none. Raises AlreadyThere."""
        self._check(place)
        by_boto3 = partial(self._create, place, body, content_type)
        if self._fast is None:
            return by_boto3()
        return self._fast.put(place, body, content_type, create=True, otherwise=by_boto3)

    def delete(self, place: S3Place) -> None:
        with _typed_errors(place):
            self._client.delete_object(Bucket=place.bucket, Key=place.key)

    def delete_under(self, place: S3Place) -> None:
        """Every object whose key begins with the place and a slash."""
        with _typed_errors(place):
            s3.delete_under(self._client, place)

    def list_under(self, place: S3Place) -> list[S3Place]:
        """Every object whose key begins with the place and a slash."""
        with _typed_errors(place):
            return s3.list_under(self._client, place)

    def answers(self, bucket: str) -> bool:
        """Whether the store answers at all; that the bucket is missing or refused is an answer, too."""
        try:
            with s3.typed_errors(bucket):
                self._client.head_bucket(Bucket=bucket)
        except s3.StoreError as error:
            return error.code is not FailureCode.STORE_UNAVAILABLE
        return True

    def close(self) -> None:
        self._client.close()

    def _get(
        self, place: S3Place, max_bytes: int, version_id: str | None, etag: str | None
    ) -> StoredObject:
        which = {"VersionId": version_id} if version_id else {}
        if etag:
            which["IfMatch"] = etag
        with _typed_errors(place):
            answer = self._client.get_object(Bucket=place.bucket, Key=place.key, **which)
            size = answer["ContentLength"]
            if size > max_bytes:
                answer["Body"].close()
                raise PermanentError(
                    FailureCode.IMAGE_TOO_LARGE,
                    f"{place} has {size} bytes; this worker takes {max_bytes} "
                    f"(MASKQ_MAX_IMAGE_BYTES)",
                )
            version = answer.get("VersionId")
            return StoredObject(answer["Body"].read(), answer.get("ETag"), version)

    def _put(self, place: S3Place, body: bytes, content_type: str, **condition: str) -> None:
        with _typed_errors(place):
            self._client.put_object(
                Bucket=place.bucket,
                Key=place.key,
                Body=body,
                ContentType=content_type,
                **condition,
            )

    def _create(self, place: S3Place, body: bytes, content_type: str) -> None:
        try:
            self._put(place, body, content_type, IfNoneMatch="*")
        except PermanentError as error:
            if error.code is FailureCode.SOURCE_CHANGED:
                raise AlreadyThere(str(place)) from error
            raise

    def _check(self, place: S3Place) -> None:
        if self._allowed and place.bucket not in self._allowed:
            raise PermanentError(
                FailureCode.BUCKET_NOT_ALLOWED,
                f"bucket {place.bucket!r} is not among those this worker may use "
                f"(MASKQ_ALLOWED_BUCKETS)",
            )


def _job_error(error: s3.StoreError) -> PermanentError | TransientError:
    if error.code is FailureCode.STORE_UNAVAILABLE:
        # An outage is not the job's fault: it waits inside its own time limit, uncharged.
        return TransientError(error.code, str(error), charged=False)
    return PermanentError(error.code, str(error))


@contextmanager
def _typed_errors(place: S3Place) -> Iterator[None]:
    try:
        with s3.typed_errors(place):
            yield
    except s3.StoreError as error:
        raise _job_error(error) from error
