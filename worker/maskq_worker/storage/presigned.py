"""Images and outputs at presigned URLs of callers, for which the worker needs no permissions.

maskq.safe_http decides which hosts may be called. A URL's query is secret and is never repeated.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace

from maskq import safe_http
from maskq.contract import FailureCode
from maskq.contract.locations import redact
from maskq.s3.errors import StoreError
from maskq.safe_http import Answer, Refused, Target, TooLong, Unreachable
from maskq_worker.bulkhead import BoundCall, Bulkhead, Busy, Share, Standing, host_of
from maskq_worker.errors import PermanentError, StoreAway, TransientError
from maskq_worker.storage.circuit_breaker import CircuitOpen, StoreCircuitBreaker, Use, outage

_TOTAL_S = 60.0  # for one object
_MAX_WAIT_S = 1.0  # if other calls have reached a limit
_SETTING = "MASKQ_PRESIGNED_ALLOWED_HOSTS"
_GONE = (404, 410)
_DENIED = (400, 401, 403)  # S3 answers 400 for an expired token
_LATER = (408, 425, 429)


class Presigned:
    """Reads and writes whole objects. Thread-safe."""

    def __init__(self, allowed_hosts: Collection[str], breaker: StoreCircuitBreaker) -> None:
        self._allowed_hosts = frozenset(allowed_hosts)
        self._breaker = breaker
        # A quarter of the jobs stays for the deployment's own store, however slow other hosts are.
        few, most = breaker.few, breaker.most
        self._bulkhead = Bulkhead(
            most,
            {
                Standing.FAST: Share(total=most, host=most, wider=most),
                Standing.UNKNOWN: Share(total=max(few, most // 2), host=few, wider=few),
                Standing.SLOW: Share(total=few, host=few, wider=few),
            },
            max_wait_s=_MAX_WAIT_S,
        )

    def get(self, url: str, *, max_bytes: int) -> tuple[bytes, str | None]:
        """Read the body and the ETag. Raises PermanentError, TransientError."""
        with self._calling(url) as (use, call):
            try:
                answer = safe_http.get(
                    self._target(url, call),
                    max_bytes=max_bytes,
                    total_s=_TOTAL_S,
                    on_answer=use.answered,
                    on_connect=call.connected,
                )
                call.add_transferred(len(answer.body))
            except TooLong as error:
                size = f"{error.size} bytes" if error.size else "more"
                raise PermanentError(
                    FailureCode.IMAGE_TOO_LARGE,
                    f"{redact(url)} has {size}; this worker takes {max_bytes} "
                    f"(MASKQ_MAX_IMAGE_BYTES)",
                ) from None
        if answer.status != 200:
            raise _failure(url, answer)
        return answer.body, answer.headers.get("etag")

    def put(self, url: str, body: bytes, content_type: str) -> None:
        """Write an object. Raises PermanentError, TransientError."""
        headers = {"Content-Type": content_type}
        with self._calling(url, size=len(body)) as (_, call):
            answer = safe_http.send(
                "PUT",
                self._target(url, call),
                body,
                headers,
                total_s=_TOTAL_S,
                on_connect=call.connected,
            )
            call.add_transferred(len(body))
        if not 200 <= answer.status < 300:
            raise _failure(url, answer)

    def _target(self, url: str, call: BoundCall) -> Target:
        target = safe_http.check(url, self._allowed_hosts, setting=_SETTING)
        return replace(target, addresses=call.resolved(target.addresses))

    @contextmanager
    def _calling(self, url: str, *, size: int = 0) -> Iterator[tuple[Use, BoundCall]]:
        host, port = host_of(url)
        try:
            with (
                self._bulkhead.calling(host, port) as call,
                self._breaker.using(f"{host}:{port}", size=size, probed=False) as use,
            ):
                try:
                    yield use, call
                except Unreachable as error:
                    reason = str(error).replace(url.partition("?")[2] or url, "…")
                    raise outage(f"{redact(url)} could not be reached: {reason}") from None
        except Refused as error:
            message = f"{redact(url)} is not called: {error}"
            raise PermanentError(FailureCode.ACCESS_DENIED, message) from None
        except StoreError as error:
            raise TransientError(error.code, str(error)) from None
        except (CircuitOpen, Busy) as error:  # no request was sent, so the job is not charged
            message = f"{redact(url)} is not called now: {error}"
            raise StoreAway(FailureCode.STORE_UNAVAILABLE, message, retry_s=error.retry_s) from None


def _failure(url: str, answer: Answer) -> PermanentError | TransientError:
    said = f"{redact(url)} answered {answer.status}"
    if answer.status in _GONE:
        return PermanentError(FailureCode.NOT_FOUND, f"{said}: there is no object")
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
