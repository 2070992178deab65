"""The worker's side of the object store: read inputs, write outputs, commit the manifest."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, Literal

from maskq import s3
from maskq.backoff import S3_CONFLICT
from maskq.contract import FailureCode
from maskq.contract.locations import S3Uri
from maskq.contract.locations.allowed import CONDITIONAL_MARK, AllowedLocations
from maskq.contract.storage_layout import MANIFEST, JobStorage
from maskq.s3.errors import StoreError
from maskq_worker.errors import JobError, PermanentError, StoreAway, TransientError
from maskq_worker.storage import boto3_requests
from maskq_worker.storage.boto3_requests import ObjectState, WholeObject
from maskq_worker.storage.circuit_breaker import Use
from maskq_worker.storage.obstore_client import (
    AlreadyThere,
    LeftToBoto3,
    ObstoreClient,
    ReadRequest,
    StoredObject,
    WriteRequest,
)
from maskq_worker.storage.store_requests import StoreRequests

__all__ = [
    "AlreadyThere", "NotConditional", "ObjectState", "ObjectStore", "StoredObject", "TooLarge",
    "WholeObject",
]  # fmt: skip

NO_METADATA: Final[Mapping[str, str]] = MappingProxyType({})
_MARK_BODY = b"maskq asks here whether the store creates an object only once\n"
_CONFLICTS = 5  # attempts to create an object that another request creates or deletes now
_UNKNOWN_REQUEST = ("NotImplemented", "501")


class NotConditional(PermanentError):
    """The store does not support conditional writes, or ignores the condition."""


class TooLarge(PermanentError):
    """An object has more bytes than its reader accepts."""


class ObjectStore:
    """One per process, shared by its threads, made after any fork.

    `job` names the job of a request. `AllowedLocations` decides for every request what that job may
    read and write. A request without a job is the worker's own and belongs to no tenant.
    """

    def __init__(
        self,
        endpoint_url: str | None,
        *,
        connections: int,
        allowed: AllowedLocations | None = None,
        client: Literal["obstore", "boto3"] = "obstore",
        addressing: s3.Addressing = "path",
        home: S3Uri | None = None,
        concurrency: int | None = None,
    ) -> None:
        """
        allowed: where jobs may read and write; default: wherever the credentials allow.
        client: reads inputs and writes outputs; boto3 does everything else.
        home: the deployment's own folder. No job runs while its bucket does not answer; an outage of
            any other bucket affects only the jobs that use it.
        concurrency: jobs at once; default: as many as connections.
        """
        self._requests = StoreRequests(
            endpoint_url,
            connections=connections,
            concurrency=concurrency or connections,
            addressing=addressing,
            home=home,
        )
        self.breaker = self._requests.breaker
        self.home = home
        self._use_obstore = client == "obstore"
        self._obstore: ObstoreClient | None = None
        self._allowed = allowed or AllowedLocations()
        self._conditional: set[str] = set()  # buckets that create an object only once

    # --- read -----------------------------------------------------------------------------------------

    def get(
        self,
        place: S3Uri,
        *,
        max_bytes: int,
        version_id: str | None = None,
        etag: str | None = None,
        job: JobStorage | None = None,
    ) -> StoredObject:
        """Read an input. Its size is checked before its body is read.

        version_id: read that version. etag: only if the object has it, else source_changed.
        """
        _check(self._allowed.refuse_read(place, job))
        return self._read(place, max_bytes, version_id, etag)

    def find(self, place: S3Uri, *, max_bytes: int, job: JobStorage | None = None) -> bytes | None:
        """Read an object that a job wrote; None if there is none. Raises TooLarge."""
        _check(self._allowed.refuse_write(place, job))
        try:
            return self._read(place, max_bytes).body
        except PermanentError as error:
            if error.code is FailureCode.NOT_FOUND:
                return None
            if error.code is FailureCode.IMAGE_TOO_LARGE:
                raise TooLarge(error.code, f"{place} has more than {max_bytes} bytes") from error
            raise

    def list_of(self, place: S3Uri, job: JobStorage) -> list[S3Uri]:
        """The objects in a folder, and in the folders below it, that maskq wrote for the job."""
        # A folder itself belongs to nobody; the objects in it do.
        _check(self._allowed.refuse_write(place / MANIFEST, job))

        def work(client: Any, _: Use) -> list[S3Uri]:
            with s3.typed_errors(place):
                return [found for found in s3.list_under(client, place) if job.has(found)]

        return self._requests.run(place, work)

    def _read(
        self,
        place: S3Uri,
        max_bytes: int,
        version_id: str | None = None,
        etag: str | None = None,
    ) -> StoredObject:
        request = ReadRequest(place, max_bytes, version_id, etag)

        def work(client: Any, use: Use) -> StoredObject:
            obstore = self._obstore_like(client)
            if obstore is None:
                return boto3_requests.get(client, use, request)
            try:
                return obstore.get(request, on_answer=use.answered)
            except LeftToBoto3 as left:
                found = boto3_requests.get(client, use, request)
                obstore.note_boto3_success(place, left)
                return found

        return self._requests.run(place, work)

    # --- write ----------------------------------------------------------------------------------------

    def check_writable(self, job: JobStorage, place: S3Uri | None = None) -> None:
        """Raise PermanentError if the job may not write to a place; default: that of its outputs."""
        _check(self._allowed.refuse_write(place or job.manifest, job))

    def put(
        self,
        place: S3Uri,
        body: bytes,
        content_type: str,
        *,
        metadata: Mapping[str, str] = NO_METADATA,
        job: JobStorage | None = None,
    ) -> None:
        """Write an object. metadata: user-defined, ASCII, without S3's prefix `x-amz-meta-`."""
        _check(self._allowed.refuse_write(place, job))
        self._put(WriteRequest(place, body, content_type, metadata))

    def create(
        self,
        place: S3Uri,
        body: bytes,
        content_type: str,
        *,
        metadata: Mapping[str, str] = NO_METADATA,
        job: JobStorage | None = None,
    ) -> None:
        """Write an object if there is none. Raises AlreadyThere, NotConditional.

        The first time in a bucket it writes twice: the second request must find the object.
        """
        _check(self._allowed.refuse_write(place, job))
        request = WriteRequest(place, body, content_type, metadata, create=True)
        self._create(request)
        if place.bucket in self._conditional:
            return
        try:
            self._create(request)
        except AlreadyThere:
            return
        raise _not_conditional(
            f"the object store overwrote {place}, although the request forbade it (If-None-Match)"
        )

    # --- copies under chosen names --------------------------------------------------------------------

    def state_of(self, place: S3Uri, *, job: JobStorage) -> ObjectState | None:
        """ETag and metadata of an object that a job may write; None if there is none."""
        _check(self._allowed.refuse_write(place, job))
        try:
            return self._requests.run(place, lambda client, _: boto3_requests.head(client, place))
        except PermanentError as error:
            if error.code is FailureCode.NOT_FOUND:
                return None
            raise

    def read_whole(self, place: S3Uri, *, job: JobStorage) -> WholeObject:
        """Read an object that the job wrote."""
        _check(self._allowed.refuse_write(place, job))
        return self._requests.run(place, lambda client, _: boto3_requests.get_whole(client, place))

    def put_named(
        self, place: S3Uri, whole: WholeObject, *, replaces: ObjectState | None, job: JobStorage
    ) -> None:
        """Write an object in place of `replaces`; None: only if there is none.

        Raises AlreadyThere if the object is in another state.
        """
        _check(self._allowed.refuse_write(place, job))
        try:
            self._requests.run(
                place,
                lambda client, _: boto3_requests.put_whole(client, place, whole, replaces),
                size=len(whole.body),
            )
        except PermanentError as error:
            is_gone = replaces is not None and error.code is FailureCode.NOT_FOUND
            if is_gone or error.code is FailureCode.SOURCE_CHANGED:
                raise AlreadyThere(str(place)) from error
            raise

    # --- create and delete ----------------------------------------------------------------------------

    def check_conditional_writes(self) -> None:
        """Check that the home bucket creates an object only once. Raises JobError."""
        if self.home:
            try:
                self.create(self.home / CONDITIONAL_MARK, _MARK_BODY, "text/plain")
            except AlreadyThere:
                return

    def delete(self, place: S3Uri, *, job: JobStorage | None = None) -> None:
        """Delete an object, if there is one."""
        _check(self._allowed.refuse_write(place, job))

        def work(client: Any, _: Use) -> None:
            with s3.typed_errors(place):
                client.delete_object(Bucket=place.bucket, Key=place.key)

        self._requests.run(place, work)

    def delete_all(self, places: Iterable[S3Uri], *, job: JobStorage) -> bool:
        """Delete objects of a job. Returns False if some are left."""
        are_deleted = True
        for place in places:
            try:
                self.delete(place, job=job)
            except StoreAway:
                return False
            except JobError:
                are_deleted = False
        return are_deleted

    def check_open(self, bucket: str) -> None:
        """Raise StoreAway if requests to this bucket would be refused now."""
        self._requests.check_open(bucket)

    def close(self) -> None:
        self._requests.close()

    def _obstore_like(self, client: Any) -> ObstoreClient | None:
        """obstore with the credentials that `client` has; None if boto3 does everything."""
        if not self._use_obstore:
            return None
        obstore = self._obstore
        if obstore is None or obstore.boto3 is not client:
            obstore = self._obstore = ObstoreClient(client)
        return obstore

    def _put(self, request: WriteRequest) -> None:
        def work(client: Any, use: Use) -> None:
            obstore = self._obstore_like(client)
            if obstore is None:
                return boto3_requests.put(client, request)
            try:
                obstore.put(request)
            except AlreadyThere:
                use.answered()
                raise
            except LeftToBoto3 as left:
                boto3_requests.put(client, request)
                obstore.note_boto3_success(request.place, left)

        self._requests.run(request.place, work, size=len(request.body))

    def _create(self, request: WriteRequest) -> None:
        """Raises AlreadyThere, which proves that the bucket supports conditional writes."""
        place = request.place
        for tries_left in reversed(range(_CONFLICTS)):
            try:
                return self._put(request)
            except AlreadyThere:
                self._conditional.add(place.bucket)
                raise
            except PermanentError as error:
                if error.code is FailureCode.SOURCE_CHANGED:
                    self._conditional.add(place.bucket)
                    raise AlreadyThere(str(place)) from error
                cause = error.__cause__
                if isinstance(cause, StoreError) and cause.s3_code in _UNKNOWN_REQUEST:
                    raise _not_conditional(error.message) from error
                raise
            except StoreAway:
                raise
            except TransientError:  # another request for this object is in progress
                if not tries_left:
                    raise
                time.sleep(S3_CONFLICT.pause_s(_CONFLICTS - tries_left))


def _check(refusal: str) -> None:
    if refusal:
        raise PermanentError(FailureCode.BUCKET_NOT_ALLOWED, refusal)


def _not_conditional(what: str) -> NotConditional:
    text = f"{what}; maskq needs a store with conditional writes (If-None-Match on PUT)"
    return NotConditional(FailureCode.STORE_REFUSED, text)
