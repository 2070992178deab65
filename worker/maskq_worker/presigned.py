"""Images and outputs at URLs that callers presigned: their bucket, no rights of ours.

Who may be called is decided by maskq.safe_http. A URL's query is its secret and is never repeated.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from maskq import safe_http
from maskq.contract import FailureCode
from maskq.contract.places import shown
from maskq.s3_errors import StoreError
from maskq.safe_http import Answer, Refused, Target, TooLong, Unreachable
from maskq_worker.circuit_breaker import CircuitOpen, StoreCircuitBreaker, Use, outage
from maskq_worker.errors import PermanentError, StoreAway, TransientError

_TOTAL_S = 60.0  # for one object, however slowly it comes
_SETTING = "MASKQ_PRESIGNED_ALLOWED_HOSTS"
_GONE = (404, 410)
_DENIED = (400, 401, 403)  # S3 says 400 of an expired token
_LATER = (408, 425, 429)


class Presigned:
    """Reads and writes whole objects; shared by threads."""

    def __init__(self, allowed_hosts: Collection[str], breaker: StoreCircuitBreaker) -> None:
        self._allowed_hosts = frozenset(allowed_hosts)
        self._breaker = breaker

    def get(self, url: str, *, max_bytes: int) -> tuple[bytes, str | None]:
        """Body and ETag. Raises PermanentError, or TransientError for what may pass."""
        with self._calling(url) as use:
            try:
                answer = safe_http.get(
                    self._target(url),
                    max_bytes=max_bytes,
                    total_s=_TOTAL_S,
                    on_answer=use.answered,
                )
            except TooLong as error:
                size = f"{error.size} bytes" if error.size else "more"
                raise PermanentError(
                    FailureCode.IMAGE_TOO_LARGE,
                    f"{shown(url)} has {size}; this worker takes {max_bytes} "
                    f"(MASKQ_MAX_IMAGE_BYTES)",
                ) from None
        if answer.status != 200:
            raise _failure(url, answer)
        return answer.body, answer.headers.get("etag")

    def put(self, url: str, body: bytes, content_type: str) -> None:
        """Raises PermanentError, or TransientError for what may pass."""
        headers = {"Content-Type": content_type}
        with self._calling(url, size=len(body)):
            answer = safe_http.send("PUT", self._target(url), body, headers, total_s=_TOTAL_S)
        if not 200 <= answer.status < 300:
            raise _failure(url, answer)

    def _target(self, url: str) -> Target:
        return safe_http.check(url, self._allowed_hosts, setting=_SETTING)

    @contextmanager
    def _calling(self, url: str, *, size: int = 0) -> Iterator[Use]:
        try:
            with self._breaker.using(_host(url), size=size, probed=False) as use:
                try:
                    yield use
                except Unreachable as error:
                    reason = str(error).replace(url.partition("?")[2] or url, "…")
                    raise outage(f"{shown(url)} could not be reached: {reason}") from None
        except Refused as error:
            message = f"{shown(url)} is not called: {error}"
            raise PermanentError(FailureCode.ACCESS_DENIED, message) from None
        except StoreError as error:
            raise TransientError(error.code, str(error)) from None
        except CircuitOpen as error:  # nobody was asked, so the job is not charged
            message = f"{shown(url)} is not called now: {error}"
            raise StoreAway(FailureCode.STORE_UNAVAILABLE, message, retry_s=error.retry_s) from None


def _host(url: str) -> str:
    """With its port, and so never the name of a bucket."""
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"


def _failure(url: str, answer: Answer) -> PermanentError | TransientError:
    said = f"{shown(url)} answered {answer.status}"
    if answer.status in _GONE:
        return PermanentError(FailureCode.NOT_FOUND, f"{said}: there is nothing")
    if answer.status in _DENIED:
        return PermanentError(
            FailureCode.ACCESS_DENIED,
            f"{said}: the URL may have expired, or was signed for another method or content type",
        )
    if answer.status in _LATER or answer.status >= 500:
        return TransientError(FailureCode.STORE_UNAVAILABLE, said)
    if answer.status < 400:
        said += "; redirects are not followed, name the object itself"
    return PermanentError(FailureCode.ACCESS_DENIED, said)
