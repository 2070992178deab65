"""The worker's side of the object store: read inputs, write outputs, commit the manifest."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Literal, TypeVar

from maskq import s3
from maskq.backoff import ExponentialBackoff
from maskq.contract import FailureCode
from maskq.contract.locations import S3Uri
from maskq.contract.locations.allowed import CONDITIONAL_MARK, AllowedLocations
from maskq.contract.storage_layout import MANIFEST, JobStorage
from maskq.errors import InvalidRequest
from maskq.s3.errors import Meaning, StoreError
from maskq_worker.errors import JobError, PermanentError, StoreAway, TransientError
from maskq_worker.storage.circuit_breaker import CircuitOpen, StoreCircuitBreaker, Use
from maskq_worker.storage.obstore_client import AlreadyThere, FastStore, StoredObject

__all__ = ["AlreadyThere", "NotConditional", "ObjectStore", "StoredObject", "TooLarge"]

T = TypeVar("T")

_MARK_BODY = b"maskq asks here whether the store creates an object only once\n"
_CONFLICTS = 5  # tries to create an object that another request creates or deletes just now
_CONFLICT_BACKOFF = ExponentialBackoff(first_s=0.1, longest_s=0.8)
_ODD_S = 60.0  # how long a bucket's refusal of good credentials is believed
_ODD_KEPT = 1000
_UNKNOWN_REQUEST = ("NotImplemented", "501")


class NotConditional(PermanentError):
    """The store does not know conditional writes, or ignores the condition."""


class TooLarge(PermanentError):
    """An object has more bytes than whoever looks for it takes."""


class ObjectStore:
    """One a process, shared by its threads, made after any fork.

    `job` of a request is whose it is: what it may read and write is decided by `AllowedLocations`, for
    every request. Without one it is the worker's own, which belongs to no tenant.
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
        allowed: where jobs may read and write; default: wherever the credentials reach.
        client: what reads inputs and writes outputs; everything else is boto3's.
        home: the deployment's own place. While its bucket does not answer nothing can be done; of all
        others each stands for itself.
        concurrency: jobs at once; default: as many as connections.
        """
        connect = partial(s3.connect, endpoint_url, addressing=addressing)
        self._connection = s3.Connection(partial(connect, connections=connections))
        self._asking = s3.Connection(partial(connect, connections=2, read_timeout_s=5, attempts=1))
        self._use_fast = client == "obstore"
        self._fast: FastStore | None = None
        self._allowed = allowed or AllowedLocations()
        self._home = home
        self._conditional: set[str] = set()  # buckets that create an object only once
        self._odd: dict[
            str, float
        ] = {}  # bucket → until when its refusal of credentials is its own
        self.breaker = StoreCircuitBreaker(
            home.bucket if home else "", concurrency or connections, self._ask
        )
        _ = self._connection.client  # a mistake in the settings is told now

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

        version_id: that version; etag: only while it is that state, else source_changed.
        """
        _check(self._allowed.refuse_read(place, job))
        return self._read(place, max_bytes, version_id, etag)

    def find(self, place: S3Uri, *, max_bytes: int, job: JobStorage | None = None) -> bytes | None:
        """Read what a job wrote; None: there is nothing. Raises TooLarge."""
        _check(self._allowed.refuse_write(place, job))
        try:
            return self._read(place, max_bytes).body
        except PermanentError as error:
            if error.code is FailureCode.NOT_FOUND:
                return None
            if error.code is FailureCode.IMAGE_TOO_LARGE:
                raise TooLarge(error.code, f"{place} has more than {max_bytes} bytes") from error
            raise

    def _read(
        self,
        place: S3Uri,
        max_bytes: int,
        version_id: str | None = None,
        etag: str | None = None,
    ) -> StoredObject:
        def work(client: Any, use: Use) -> StoredObject:
            by_boto3 = partial(_get, client, use, place, max_bytes, version_id, etag)
            fast = self._fast_by(client)
            if fast is None:
                return by_boto3()
            return fast.get(
                place,
                max_bytes=max_bytes,
                version_id=version_id,
                etag=etag,
                on_answer=use.answered,
                otherwise=by_boto3,
            )

        return self._run(place, work)

    def check_writable(self, job: JobStorage) -> None:
        """Raise PermanentError if the job may not write where its outputs are to be."""
        _check(self._allowed.refuse_write(job.manifest, job))

    def put(
        self, place: S3Uri, body: bytes, content_type: str, *, job: JobStorage | None = None
    ) -> None:
        _check(self._allowed.refuse_write(place, job))
        self._put(place, body, content_type, create=False)

    def create(
        self, place: S3Uri, body: bytes, content_type: str, *, job: JobStorage | None = None
    ) -> None:
        """Write an object where there is none. Raises AlreadyThere, NotConditional.

        The first time in a bucket it is tried twice: the second time must find the object.
        """
        _check(self._allowed.refuse_write(place, job))
        self._create(place, body, content_type)
        if place.bucket in self._conditional:
            return
        try:
            self._create(place, body, content_type)
        except AlreadyThere:
            return
        raise _not_conditional(
            f"the object store wrote over {place}, although it was asked not to (If-None-Match)"
        )

    def check_conditional_writes(self) -> None:
        """Ask the home bucket whether it creates an object only once. Raises JobError."""
        if self._home:
            try:
                self.create(self._home / CONDITIONAL_MARK, _MARK_BODY, "text/plain")
            except AlreadyThere:
                return

    def delete(self, place: S3Uri, *, job: JobStorage | None = None) -> None:
        _check(self._allowed.refuse_write(place, job))

        def work(client: Any, _: Use) -> None:
            with s3.typed_errors(place):
                client.delete_object(Bucket=place.bucket, Key=place.key)

        self._run(place, work)

    def list_of(self, place: S3Uri, job: JobStorage) -> list[S3Uri]:
        """The objects in a folder, and in the folders below it, that maskq wrote for the job."""
        # A folder is nobody's: what is in it is.
        _check(self._allowed.refuse_write(place / MANIFEST, job))

        def work(client: Any, _: Use) -> list[S3Uri]:
            with s3.typed_errors(place):
                return [found for found in s3.list_under(client, place) if job.has(found)]

        return self._run(place, work)

    def check_open(self, bucket: str) -> None:
        """Raise StoreAway if requests to this bucket would be refused just now."""
        try:
            self.breaker.check(bucket)
        except CircuitOpen as error:
            raise _away(error) from error

    def close(self) -> None:
        self.breaker.close()
        self._connection.close()
        self._asking.close()

    # --- every request goes this way ------------------------------------------------------------------

    def _run(self, place: S3Uri, work: Callable[[Any, Use], T], *, size: int = 0) -> T:
        """Raises PermanentError, TransientError, StoreAway, AlreadyThere."""
        try:
            with self.breaker.using(place.bucket, size=size) as use:
                if self._is_odd(place.bucket):
                    return work(self._connection.client, use)
                return self._connection.run(lambda client: work(client, use))
        except CircuitOpen as error:
            raise _away(error) from error
        except StoreError as error:
            raise self._job_error(place, error) from error

    def _job_error(self, place: S3Uri, error: StoreError) -> JobError:
        match error.meaning:
            case Meaning.OUTAGE:
                # Not the job's fault: it waits inside its own time limit, uncharged.
                return StoreAway(error.code, str(error))
            case Meaning.CONFLICT:
                return TransientError(error.code, str(error), charged=False)
            case Meaning.CREDENTIALS:
                return self._credentials_refused(place, error)
        return PermanentError(error.code, str(error))

    def _credentials_refused(self, place: S3Uri, error: StoreError) -> JobError:
        """By this bucket alone, which ends its job, or by home as well, which ends none."""
        own: StoreError | None = error
        if self._is_odd(place.bucket):
            own = None
        elif self._home and place.bucket != self._home.bucket:
            own = self._ask(self._home.bucket)
        if not self._is_odd(place.bucket) and self._asking.made_at > self._connection.made_at:
            # Whoever asks may have found newer ones than this request was made with.
            with suppress(InvalidRequest):
                self._connection.renew()
            return StoreAway(error.code, str(error))
        if own is None:
            if len(self._odd) >= _ODD_KEPT:
                self._odd.clear()
            self._odd.setdefault(place.bucket, time.monotonic() + _ODD_S)
            return PermanentError(
                error.code, f"{error}; those are good for {self._home}, so ask the bucket's owner"
            )
        self.breaker.home_failed(own)
        return StoreAway(own.code, str(own))

    def _is_odd(self, bucket: str) -> bool:
        until = self._odd.get(bucket)
        if until is not None and time.monotonic() > until:
            self._odd.pop(bucket, None)
            return False
        return until is not None

    def _ask(self, bucket: str) -> StoreError | None:
        """Ask a bucket for something small. None: it answers, and takes our credentials."""

        def work(client: Any) -> None:
            with s3.typed_errors(bucket):
                if self._home and bucket == self._home.bucket:
                    # An answer to HEAD has no body to say what is wrong with the credentials.
                    mark = self._home / CONDITIONAL_MARK
                    client.get_object(Bucket=mark.bucket, Key=mark.key)["Body"].read()
                else:
                    client.head_bucket(Bucket=bucket)

        try:
            self._asking.run(work)
        except StoreError as error:
            if error.meaning in (Meaning.OUTAGE, Meaning.CREDENTIALS):
                return error
        return None

    def _fast_by(self, client: Any) -> FastStore | None:
        """The short cut with the credentials that `client` has."""
        if not self._use_fast:
            return None
        fast = self._fast
        if fast is None or fast.boto3 is not client:
            fast = self._fast = FastStore(client)
        return fast

    def _put(self, place: S3Uri, body: bytes, content_type: str, *, create: bool) -> None:
        condition = {"IfNoneMatch": "*"} if create else {}

        def work(client: Any, use: Use) -> None:
            def by_boto3() -> None:
                with s3.typed_errors(place):
                    client.put_object(
                        Bucket=place.bucket,
                        Key=place.key,
                        Body=body,
                        ContentType=content_type,
                        **condition,
                    )

            fast = self._fast_by(client)
            if fast is None:
                return by_boto3()
            try:
                fast.put(place, body, content_type, create=create, otherwise=by_boto3)
            except AlreadyThere:
                use.answered()
                raise

        self._run(place, work, size=len(body))

    def _create(self, place: S3Uri, body: bytes, content_type: str) -> None:
        """Raises AlreadyThere, which proves that the bucket knows conditional writes."""
        for tries_left in reversed(range(_CONFLICTS)):
            try:
                return self._put(place, body, content_type, create=True)
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
            except TransientError:  # another request for it is in progress
                if not tries_left:
                    raise
                time.sleep(_CONFLICT_BACKOFF.pause_s(_CONFLICTS - tries_left))


def _check(refusal: str) -> None:
    if refusal:
        raise PermanentError(FailureCode.BUCKET_NOT_ALLOWED, refusal)


def _get(
    client: Any,
    use: Use,
    place: S3Uri,
    max_bytes: int,
    version_id: str | None,
    etag: str | None,
) -> StoredObject:
    which = {"VersionId": version_id} if version_id else {}
    if etag:
        which["IfMatch"] = etag
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


def _not_conditional(what: str) -> NotConditional:
    text = f"{what}; maskq needs a store with conditional writes (If-None-Match on PUT)"
    return NotConditional(FailureCode.STORE_REFUSED, text)


def _away(error: CircuitOpen) -> StoreAway:
    return StoreAway(FailureCode.STORE_UNAVAILABLE, str(error), retry_s=error.retry_s)
