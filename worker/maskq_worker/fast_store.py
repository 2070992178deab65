"""GET and PUT by obstore: in Rust, without the GIL, for a tenth of boto3's processor time.

It is a short cut, not a second opinion. Whatever it does not do at once and without a doubt (an odd
key, an error of any kind) it leaves to boto3, which retries and says in S3's own words what is wrong.
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
from typing import TYPE_CHECKING, Any, TypeVar

from maskq.contract.places import S3Place

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
        """boto3_client: its endpoint and region are taken; credentials come by the same chain."""
        self._boto3 = boto3_client
        self._stores: dict[
            str, obstore.store.S3Store | None
        ] = {}  # by bucket; None: no credentials
        self._failures: Counter[str] = Counter()
        self._paused_until: dict[str, float] = {}
        self._lock = threading.Lock()

    def get(
        self,
        place: S3Place,
        *,
        max_bytes: int,
        version_id: str | None,
        etag: str | None,
        otherwise: Callable[[], StoredObject],
    ) -> StoredObject:
        """An object of at most max_bytes; one that is larger is left to `otherwise`."""
        import obstore

        state: obstore.GetOptions = {}
        if version_id:
            state["version"] = version_id
        if etag:
            state["if_match"] = etag

        def fast(store: obstore.store.S3Store) -> StoredObject:
            answer = obstore.get(store, place.key, options=state)
            meta = answer.meta
            if meta["size"] > max_bytes:
                return otherwise()
            return StoredObject(bytes(answer.bytes()), meta["e_tag"], meta["version"])

        return self._run(place, fast, otherwise)

    def put(
        self,
        place: S3Place,
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
                raise AlreadyThere(str(place)) from error

        self._run(place, fast, otherwise)

    def _run(
        self,
        place: S3Place,
        fast: Callable[[obstore.store.S3Store], T],
        otherwise: Callable[[], T],
    ) -> T:
        from obstore.exceptions import BaseError

        store = self._store_for(place)
        if store is None:
            return otherwise()
        try:
            result = fast(store)
        except (BaseError, OSError) as error:  # what is not found is an OSError of Python's own
            logger.debug("obstore: %s: %s", place, error)
            result = otherwise()
            self._was_wrong(place.bucket)
            return result
        self._failures.pop(place.bucket, None)
        return result

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

    def _store_for(self, place: S3Place) -> obstore.store.S3Store | None:
        if not _PLAIN_KEY.fullmatch(place.key):
            return None
        with self._lock:
            if time.monotonic() < self._paused_until.get(place.bucket, 0.0):
                return None
            if place.bucket not in self._stores:
                self._stores[place.bucket] = self._connect(place.bucket)
            return self._stores[place.bucket]

    def _connect(self, bucket: str) -> obstore.store.S3Store | None:
        import boto3
        from obstore.auth.boto3 import Boto3CredentialProvider
        from obstore.store import S3Store

        try:
            credentials = Boto3CredentialProvider(boto3.Session(), ttl=_CREDENTIALS)
        except ValueError:  # there are none: boto3 says so
            return None
        endpoint = self._boto3.meta.endpoint_url
        return S3Store(
            bucket,
            endpoint=endpoint,
            region=self._boto3.meta.region_name,
            virtual_hosted_style_request=False,
            credential_provider=credentials,
            client_options={
                "allow_http": endpoint.startswith("http:"),
                "connect_timeout": timedelta(seconds=3),
                "read_timeout": timedelta(seconds=20),
                "timeout": timedelta(minutes=2),
                "pool_idle_timeout": timedelta(seconds=15),
            },
            retry_config={"max_retries": 0},  # boto3 retries
        )
