"""GET and PUT by obstore, which is written in Rust, needs no GIL and takes a tenth of boto3's CPU time.

It handles only the simple cases. It leaves the others (an unusual key, most errors) to boto3, which
retries, follows redirects and looks for new credentials. Only an error that S3 itself names and a
time-out of a store that it reached before are final here.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from maskq import s3
from maskq.contract.failures import FailureCode
from maskq.contract.locations import S3Uri
from maskq.s3.errors import REDIRECTS, Meaning, StoreError, error_of

if TYPE_CHECKING:
    import obstore
    import obstore.store

logger = logging.getLogger(__name__)

# obstore would normalise the path of other keys: `a//b`, `a/./b`, characters that need quoting.
_PLAIN_KEY = re.compile(r"(?:(?!\.{1,2}/)[\w.=@,-]+/)*(?!\.{1,2}$)[\w.=@,-]+", re.ASCII)
# boto3's credentials are valid for ten more minutes at least; obstore renews them five before that.
_CREDENTIALS = timedelta(minutes=10)
_FAILURES = 5  # in a row, of requests that boto3 then did
_PAUSE_S = 300.0  # a bucket is then left to boto3 for this time
_SMALL_BYTES = 8 * 2**20  # a larger object may take longer

# How obstore's errors report the store's answer: the status, and the body with S3's message.
_STATUS = re.compile(r"status code: (\d{3})\b[^:]*:?(.*?)(?:\n\nDebug source|\Z)", re.DOTALL)
_CODE = re.compile(r"<Code>([\w.]{1,100})</Code>")
_MESSAGE = re.compile(r"<Message>([^<]{0,500})</Message>")
_TIMED_OUT = "kind: Timeout"


class Timeouts(NamedTuple):
    """Seconds until an answer begins and between its bytes, and for a whole request."""

    read_s: float
    total_s: float


_SMALL = Timeouts(20, 40)
_LARGE = Timeouts(20, 150)
_LARGE_UPLOAD = Timeouts(150, 150)  # the answer begins after the whole body is sent


class AlreadyThere(Exception):
    """A create-only PUT found an object in its place."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    body: bytes
    etag: str | None
    version_id: str | None = None  # in a bucket with versions


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """Which object is read, and in which state."""

    place: S3Uri
    max_bytes: int
    version_id: str | None = None
    etag: str | None = None


@dataclass(frozen=True, slots=True)
class WriteRequest:
    """Which object is written, and what it will be."""

    place: S3Uri
    body: bytes = field(repr=False)
    content_type: str
    metadata: Mapping[str, str]  # ASCII; without S3's prefix `x-amz-meta-`
    create: bool = False  # only if there is none


class LeftToBoto3(Exception):
    """boto3 must do the request. has_failed: obstore tried, and the reason is not certain."""

    def __init__(self, reason: str, *, has_failed: bool = False) -> None:
        super().__init__(reason)
        self.has_failed = has_failed


class ObstoreClient:
    """One per process, shared by its threads.

    Not for a forked child: obstore's threads stay with the parent, and a call would never end. The
    worker does not fork.
    """

    def __init__(self, boto3_client: Any) -> None:
        """boto3_client: provides endpoint, region and addressing. Credentials have the same chain."""
        self.boto3 = boto3_client
        self._reached: set[str] = set()  # buckets that answered
        # None: no credentials.
        self._stores: dict[tuple[str, Timeouts], obstore.store.S3Store | None] = {}
        self._failures: Counter[str] = Counter()
        self._paused_until: dict[str, float] = {}
        self._lock = threading.Lock()

    def get(self, request: ReadRequest, *, on_answer: Callable[[], None]) -> StoredObject:
        """Read an object. Raises StoreError, LeftToBoto3 (also for one that is too large).

        on_answer: called when its body begins.
        """
        import obstore

        state: obstore.GetOptions = {}
        if request.version_id:
            state["version"] = request.version_id
        if request.etag:
            state["if_match"] = request.etag
        place = request.place
        with self._using(place, _SMALL) as store:
            answer = obstore.get(store, place.key, options=state)
            on_answer()
            if (
                _SMALL_BYTES < answer.meta["size"] <= request.max_bytes
                and (large := self._store_for(place, _LARGE)) is not None
            ):
                answer = obstore.get(large, place.key, options=state)
            if (meta := answer.meta)["size"] <= request.max_bytes:
                return StoredObject(bytes(answer.bytes()), meta["e_tag"], meta["version"])
        raise LeftToBoto3(f"{place} has more than {request.max_bytes} bytes")

    def put(self, request: WriteRequest) -> None:
        """Write an object. Raises StoreError, AlreadyThere, LeftToBoto3."""
        import obstore

        place = request.place
        timeouts = _SMALL if len(request.body) <= _SMALL_BYTES else _LARGE_UPLOAD
        with self._using(place, timeouts) as store:
            try:
                obstore.put(
                    store,
                    place.key,
                    request.body,
                    attributes={"Content-Type": request.content_type, **request.metadata},
                    mode="create" if request.create else "overwrite",
                    use_multipart=False,
                )
            except obstore.exceptions.AlreadyExistsError as error:
                if _status(error) == 412:  # 409 means that another request is in progress
                    raise AlreadyThere(str(place)) from error
                raise

    def note_boto3_success(self, place: S3Uri, left: LeftToBoto3) -> None:
        """Note that boto3 did a request that was left to it. After several failures obstore pauses."""
        if left.has_failed:
            self._note_failure(place.bucket)

    @contextmanager
    def _using(self, place: S3Uri, timeouts: Timeouts) -> Iterator[obstore.store.S3Store]:
        """Around a request. Raises LeftToBoto3 for what obstore cannot do."""
        from obstore.exceptions import BaseError

        store = self._store_for(place, timeouts)
        if store is None:
            raise LeftToBoto3(f"{place} is not for obstore")
        try:
            yield store
        except (BaseError, OSError) as error:  # obstore raises Python's own OSError for NOT_FOUND
            logger.debug("obstore: %s: %s", place, error)
            if (final := self._final(place, error)) is not None:
                raise final from error
            raise LeftToBoto3(f"obstore: {place}: {error}", has_failed=True) from error
        self._failures.pop(place.bucket, None)
        self._reached.add(place.bucket)

    def _final(self, place: S3Uri, error: Exception) -> StoreError | None:
        """The error that boto3 would report as well; None if boto3 should try."""
        text = str(error)
        if place.bucket in self._reached and _TIMED_OUT in text:
            return StoreError(
                FailureCode.STORE_UNAVAILABLE,
                f"the object store did not answer completely for {place} in time; "
                f"check MASKQ_S3_ENDPOINT_URL",
                Meaning.OUTAGE,
            )
        answer = _STATUS.search(text)
        code = _CODE.search(answer[2]) if answer else None
        if not answer or not code or code[1] in REDIRECTS:
            return None
        self._reached.add(place.bucket)
        message = _MESSAGE.search(answer[2])
        found = error_of(place, int(answer[1]), code[1], message[1] if message else "")
        return found if found.meaning is Meaning.REFUSAL else None

    def _note_failure(self, bucket: str) -> None:
        with self._lock:
            self._failures[bucket] += 1
            if self._failures[bucket] < _FAILURES:
                return
            del self._failures[bucket]
            self._paused_until[bucket] = time.monotonic() + _PAUSE_S
        logger.warning(
            "obstore does not reach bucket %s, but boto3 does: boto3 is used for the next minutes "
            "(MASKQ_S3_CLIENT=boto3 uses it always)",
            bucket,
        )

    def _store_for(self, place: S3Uri, timeouts: Timeouts) -> obstore.store.S3Store | None:
        if not _PLAIN_KEY.fullmatch(place.key):
            return None
        with self._lock:
            if time.monotonic() < self._paused_until.get(place.bucket, 0.0):
                return None
            which = (place.bucket, timeouts)
            if which not in self._stores:
                self._stores[which] = self._connect(*which)
            return self._stores[which]

    def _connect(self, bucket: str, timeouts: Timeouts) -> obstore.store.S3Store | None:
        import boto3
        from botocore.exceptions import BotoCoreError
        from obstore.auth.boto3 import Boto3CredentialProvider
        from obstore.store import S3Store

        try:
            credentials = Boto3CredentialProvider(boto3.Session(), ttl=_CREDENTIALS)
            endpoint, virtual = _endpoint(self.boto3, bucket)
            bundle = s3.authorities()
            trusted: obstore.store.ClientConfig = (
                {"root_certificate": bundle.read_bytes()} if bundle else {}
            )
        except (ValueError, OSError, BotoCoreError):
            return None  # no credentials, an unusual bucket, a missing file: boto3 reports it
        return S3Store(
            bucket,
            endpoint=endpoint,
            region=self.boto3.meta.region_name,
            virtual_hosted_style_request=virtual,
            credential_provider=credentials,
            client_options={
                "allow_http": endpoint.startswith("http:"),
                "connect_timeout": timedelta(seconds=3),
                "read_timeout": timedelta(seconds=timeouts.read_s),
                "timeout": timedelta(seconds=timeouts.total_s),
                "pool_idle_timeout": timedelta(seconds=15),
                **trusted,
            },
            retry_config={"max_retries": 0},  # boto3 retries
        )


def _status(error: Exception) -> int:
    """The status of the store's answer; 0 if there was none."""
    answer = _STATUS.search(str(error))
    return int(answer[1]) if answer else 0


def _endpoint(boto3_client: Any, bucket: str) -> tuple[str, bool]:
    """Where boto3 sends requests for this bucket, and whether the host name contains the bucket."""
    endpoint = urlsplit(boto3_client.meta.endpoint_url)
    signed = boto3_client.generate_presigned_url("list_objects_v2", Params={"Bucket": bucket})
    if not (urlsplit(signed).hostname or "").startswith(f"{bucket}."):
        return endpoint.geturl(), False
    return endpoint._replace(netloc=f"{bucket}.{endpoint.netloc}").geturl(), True
