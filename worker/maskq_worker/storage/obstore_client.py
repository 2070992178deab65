"""GET and PUT by obstore: in Rust, without the GIL, for a tenth of boto3's processor time.

It is a short cut, not a second opinion. Whatever it does not do at once and without a doubt (an odd
key, most errors) it leaves to boto3, which retries, follows redirects and looks for new credentials.
Only a refusal in S3's own words, and a time-out of a store that it reached before, are final here.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from maskq import s3
from maskq.contract.failures import FailureCode
from maskq.contract.locations import S3Uri
from maskq.s3.errors import REDIRECTS, Meaning, StoreError, error_of

if TYPE_CHECKING:
    import obstore
    import obstore.store

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Of other keys obstore would normalise the path: `a//b`, `a/./b`, what needs quoting.
_PLAIN_KEY = re.compile(r"(?:(?!\.{1,2}/)[\w.=@,-]+/)*(?!\.{1,2}$)[\w.=@,-]+", re.ASCII)
# Those of boto3 have ten minutes left, at least; obstore asks again five before what it is told here.
_CREDENTIALS = timedelta(minutes=10)
_FAILURES = 5  # in a row, where boto3 did what failed here
_PAUSE_S = 300.0  # for so long a bucket is left to boto3 then
_SMALL_BYTES = 8 * 2**20  # a larger object may take longer

# How obstore's errors tell what the store answered: the status, and the body with S3's own words.
_STATUS = re.compile(r"status code: (\d{3})\b[^:]*:?(.*?)(?:\n\nDebug source|\Z)", re.DOTALL)
_CODE = re.compile(r"<Code>([\w.]{1,100})</Code>")
_WORDS = re.compile(r"<Message>([^<]{0,500})</Message>")
_TIMED_OUT = "kind: Timeout"


class Timeouts(NamedTuple):
    """Seconds until an answer begins and between its bytes, and for a whole request."""

    read_s: float
    total_s: float


_SMALL = Timeouts(20, 40)
_LARGE = Timeouts(20, 150)
_LARGE_UPLOAD = Timeouts(150, 150)  # no answer begins before all is sent


class AlreadyThere(Exception):
    """A create-only put found an object in its place."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    body: bytes
    etag: str | None
    version_id: str | None = None  # in a bucket with versions


class FastStore:
    """One a process, shared by its threads. `otherwise` does the same by boto3.

    Not for a forked child: obstore's own threads stay with the parent, and a call would never end. The
    worker forks nowhere.
    """

    def __init__(self, boto3_client: Any) -> None:
        """boto3_client: its endpoint, region and addressing are taken; credentials come by the same
        chain."""
        self.boto3 = boto3_client
        self._reached: set[str] = set()  # buckets that answered
        # None: no credentials.
        self._stores: dict[tuple[str, Timeouts], obstore.store.S3Store | None] = {}
        self._failures: Counter[str] = Counter()
        self._paused_until: dict[str, float] = {}
        self._lock = threading.Lock()

    def get(
        self,
        place: S3Uri,
        *,
        max_bytes: int,
        version_id: str | None,
        etag: str | None,
        on_answer: Callable[[], None],
        otherwise: Callable[[], StoredObject],
    ) -> StoredObject:
        """An object of at most max_bytes; one that is larger is left to `otherwise`.

        on_answer: called when its body begins.
        """
        import obstore

        state: obstore.GetOptions = {}
        if version_id:
            state["version"] = version_id
        if etag:
            state["if_match"] = etag

        def fast(store: obstore.store.S3Store) -> StoredObject:
            answer = obstore.get(store, place.key, options=state)
            on_answer()
            meta = answer.meta
            if meta["size"] > max_bytes:
                return otherwise()
            if meta["size"] > _SMALL_BYTES and (large := self._store_for(place, _LARGE)):
                answer = obstore.get(large, place.key, options=state)
                meta = answer.meta
                if meta["size"] > max_bytes:
                    return otherwise()
            return StoredObject(bytes(answer.bytes()), meta["e_tag"], meta["version"])

        return self._run(place, fast, otherwise, _SMALL)

    def put(
        self,
        place: S3Uri,
        body: bytes,
        content_type: str,
        *,
        create: bool = False,
        otherwise: Callable[[], None],
    ) -> None:
        """create: only where there is no object. Raises AlreadyThere."""
        import obstore

        def fast(store: obstore.store.S3Store) -> None:
            try:
                obstore.put(
                    store,
                    place.key,
                    body,
                    attributes={"Content-Type": content_type},
                    mode="create" if create else "overwrite",
                    use_multipart=False,
                )
            except obstore.exceptions.AlreadyExistsError as error:
                if _status(error) == 412:  # 409 means that another request is in progress
                    raise AlreadyThere(str(place)) from error
                raise

        timeouts = _SMALL if len(body) <= _SMALL_BYTES else _LARGE_UPLOAD
        self._run(place, fast, otherwise, timeouts)

    def _run(
        self,
        place: S3Uri,
        fast: Callable[[obstore.store.S3Store], T],
        otherwise: Callable[[], T],
        timeouts: Timeouts,
    ) -> T:
        from obstore.exceptions import BaseError

        store = self._store_for(place, timeouts)
        if store is None:
            return otherwise()
        try:
            result = fast(store)
        except (BaseError, OSError) as error:  # what is not found is an OSError of Python's own
            logger.debug("obstore: %s: %s", place, error)
            if (final := self._final(place, error)) is not None:
                raise final from error
            result = otherwise()
            self._was_wrong(place.bucket)
            return result
        self._failures.pop(place.bucket, None)
        self._reached.add(place.bucket)
        return result

    def _final(self, place: S3Uri, error: Exception) -> StoreError | None:
        """What boto3 would say as well; None: let it try."""
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
        words = _WORDS.search(answer[2])
        found = error_of(place, int(answer[1]), code[1], words[1] if words else "")
        return found if found.meaning is Meaning.REFUSAL else None

    def _was_wrong(self, bucket: str) -> None:
        with self._lock:
            self._failures[bucket] += 1
            if self._failures[bucket] < _FAILURES:
                return
            del self._failures[bucket]
            self._paused_until[bucket] = time.monotonic() + _PAUSE_S
        logger.warning(
            "obstore does not reach bucket %s the way boto3 does: for the next minutes boto3 is used "
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
            return None  # no credentials, an odd bucket, a file that went: boto3 says so
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
    """Of the store's answer; 0 where there was none."""
    answer = _STATUS.search(str(error))
    return int(answer[1]) if answer else 0


def _endpoint(boto3_client: Any, bucket: str) -> tuple[str, bool]:
    """Where boto3 sends requests for this bucket, and whether the host name has the bucket in it."""
    endpoint = urlsplit(boto3_client.meta.endpoint_url)
    signed = boto3_client.generate_presigned_url("list_objects_v2", Params={"Bucket": bucket})
    if not (urlsplit(signed).hostname or "").startswith(f"{bucket}."):
        return endpoint.geturl(), False
    return endpoint._replace(netloc=f"{bucket}.{endpoint.netloc}").geturl(), True
