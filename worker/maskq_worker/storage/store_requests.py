"""Every request to an object store: its circuit breaker, its credentials, and the meaning of errors."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from maskq import s3
from maskq.contract import FailureCode
from maskq.contract.locations import S3Uri
from maskq.contract.locations.allowed import CONDITIONAL_MARK
from maskq.errors import InvalidRequest
from maskq.s3.errors import Meaning, StoreError
from maskq_worker.errors import JobError, PermanentError, StoreAway, TransientError
from maskq_worker.storage.circuit_breaker import CircuitOpen, StoreCircuitBreaker, Use

T = TypeVar("T")

_REFUSAL_KEPT_S = 60.0  # how long a bucket's refusal of valid credentials is remembered
_MAX_REFUSALS = 1000


class StoreRequests:
    """Runs requests with boto3's clients. Thread-safe."""

    def __init__(
        self,
        endpoint_url: str | None,
        *,
        connections: int,
        concurrency: int,
        addressing: s3.Addressing,
        home: S3Uri | None,
    ) -> None:
        """See ObjectStore."""
        connect = partial(s3.connect, endpoint_url, addressing=addressing)
        self.connection = s3.Connection(partial(connect, connections=connections))
        self._probing = s3.Connection(partial(connect, connections=2, read_timeout_s=5, attempts=1))
        self._home = home
        self._refusals: dict[str, float] = {}  # bucket → until when its refusal is remembered
        self.breaker = StoreCircuitBreaker(home.bucket if home else "", concurrency, self._probe)
        _ = self.connection.client  # reports a mistake in the settings now

    def run(self, place: S3Uri, work: Callable[[Any, Use], T], *, size: int = 0) -> T:
        """Run a request: `work` with a boto3 client. size: bytes that it sends.

        Raises PermanentError, TransientError, StoreAway, and what else `work` raises.
        """
        try:
            with self.breaker.using(place.bucket, size=size) as use:
                if self._refuses_credentials(place.bucket):
                    return work(self.connection.client, use)
                return self.connection.run(lambda client: work(client, use))
        except CircuitOpen as error:
            raise away(error) from error
        except StoreError as error:
            raise self._job_error(place, error) from error

    def check_open(self, bucket: str) -> None:
        """Raise StoreAway if the circuit breaker would refuse a request to this bucket."""
        try:
            self.breaker.check(bucket)
        except CircuitOpen as error:
            raise away(error) from error

    def close(self) -> None:
        self.breaker.close()
        self.connection.close()
        self._probing.close()

    def _job_error(self, place: S3Uri, error: StoreError) -> JobError:
        match error.meaning:
            case Meaning.OUTAGE:
                # Not charged to the job: it waits within its own time limit.
                return StoreAway(error.code, str(error))
            case Meaning.CONFLICT:
                return TransientError(error.code, str(error), charged=False)
            case Meaning.CREDENTIALS:
                return self._credentials_refused(place, error)
        return PermanentError(error.code, str(error))

    def _credentials_refused(self, place: S3Uri, error: StoreError) -> JobError:
        """If only this bucket refuses them, the job fails. If home does as well, no job fails."""
        at_home: StoreError | None = error
        if self._refuses_credentials(place.bucket):
            at_home = None
        elif self._home and place.bucket != self._home.bucket:
            at_home = self._probe(self._home.bucket)
        is_remembered = self._refuses_credentials(place.bucket)
        if not is_remembered and self._probing.made_at > self.connection.made_at:
            # The probe may have found newer credentials than this request used.
            with suppress(InvalidRequest):
                self.connection.renew()
            return StoreAway(error.code, str(error))
        if at_home is None:
            self._remember_refusal(place.bucket)
            return PermanentError(
                error.code,
                f"{error}; they are valid for {self._home}, so ask the owner of the bucket for access",
            )
        self.breaker.home_failed(at_home)
        return StoreAway(at_home.code, str(at_home))

    def _remember_refusal(self, bucket: str) -> None:
        if len(self._refusals) >= _MAX_REFUSALS:
            self._refusals.clear()
        self._refusals.setdefault(bucket, time.monotonic() + _REFUSAL_KEPT_S)

    def _refuses_credentials(self, bucket: str) -> bool:
        """Whether this bucket lately refused credentials that are valid for home."""
        until = self._refusals.get(bucket)
        if until is not None and time.monotonic() > until:
            self._refusals.pop(bucket, None)
            return False
        return until is not None

    def _probe(self, bucket: str) -> StoreError | None:
        """Send a small request to a bucket. Returns None if it answers and accepts our credentials."""

        def work(client: Any) -> None:
            with s3.typed_errors(bucket):
                if self._home and bucket == self._home.bucket:
                    # GET, since an answer to HEAD does not say what is wrong with the credentials.
                    mark = self._home / CONDITIONAL_MARK
                    client.get_object(Bucket=mark.bucket, Key=mark.key)["Body"].read()
                else:
                    client.head_bucket(Bucket=bucket)

        try:
            self._probing.run(work)
        except StoreError as error:
            if error.meaning in (Meaning.OUTAGE, Meaning.CREDENTIALS):
                return error
        return None


def away(error: CircuitOpen) -> StoreAway:
    """The job's error where the circuit breaker is open."""
    return StoreAway(FailureCode.STORE_UNAVAILABLE, str(error), retry_s=error.retry_s)
