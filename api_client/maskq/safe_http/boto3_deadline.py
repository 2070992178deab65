"""A deadline for each request of a boto3 client, however slowly the bytes of its answer arrive.

botocore's timeouts apply to a single read. A store that sends a byte now and then would block a caller.
"""

from __future__ import annotations

from typing import Any

from botocore.awsrequest import (
    AWSHTTPConnection,
    AWSHTTPConnectionPool,
    AWSHTTPSConnection,
    AWSHTTPSConnectionPool,
)

from maskq.safe_http.deadline import Deadline

BYTES_S = 2.0**19  # the slowest transfer allowed: 0.5 MiB a second
_UNKNOWN_BYTES = 2**24  # assumed for a body without Content-Length
_LONGEST_S = 600.0  # limit for the bytes of one request, and of one answer


def limit_requests(client: Any, *, total_s: float) -> None:
    """End each request that takes longer than `total_s` seconds and its bytes at 0.5 MiB a second.

    It then fails as if the connection was lost, and is retried as often as the client's settings say.
    """
    options: dict[str, Any] = {"total_s": total_s}
    # botocore has no public way to say which connections it makes.
    client._endpoint.http_session._pool_classes_by_scheme.update(
        http=type("_Pool", (_LimitedPool,), options),
        https=type("_TlsPool", (_LimitedTlsPool,), options),
    )


class _Limited:
    """One connection, with the deadline of the request that has it."""

    deadline: Deadline | None = None
    _is_answering = False

    def _new_conn(self) -> Any:
        made = super()._new_conn()  # type: ignore[misc]
        if self.deadline:
            self.deadline.cut(made)
        return made

    def begin(self, total_s: float) -> None:
        self.deadline = Deadline(total_s)
        sock = getattr(self, "sock", None)
        if sock is not None:  # it was used before
            self.deadline.cut(sock)

    def end(self) -> None:
        """Raises TimeoutError if the deadline has passed: an answer that is cut off may look whole."""
        deadline, self.deadline = self.deadline, None
        if deadline:
            deadline.cancel()
            deadline.check()

    def request(self, method: str, url: str, *args: Any, **named: Any) -> Any:
        headers = named.get("headers") or (args[1] if len(args) > 1 else {}) or {}
        self._extend(headers.get("Content-Length", 0))
        return super().request(method, url, *args, **named)  # type: ignore[misc]

    def getresponse(self) -> Any:
        self._is_answering = True
        try:
            answer = super().getresponse()  # type: ignore[misc]
        finally:
            self._is_answering = False
        if answer.status < 300:  # an error has few bytes
            self._extend(answer.headers.get("Content-Length", _UNKNOWN_BYTES))
        return answer

    def close(self) -> None:
        super().close()  # type: ignore[misc]
        # http.client closes a connection that is used once before its answer is read.
        if not self._is_answering and self.deadline:
            self.deadline.cancel()

    def _extend(self, said: Any) -> None:
        said = said.decode("latin-1") if isinstance(said, bytes) else said
        if self.deadline and str(said).isascii() and str(said).isdecimal():
            self.deadline.extend(min(int(said) / BYTES_S, _LONGEST_S))


class _LimitedConnection(_Limited, AWSHTTPConnection):  # type: ignore[misc]  # botocore has no types
    pass


class _LimitedTlsConnection(_Limited, AWSHTTPSConnection):  # type: ignore[misc]
    pass


class _Pool:
    total_s: float

    def _get_conn(self, timeout: float | None = None) -> Any:
        conn = super()._get_conn(timeout)  # type: ignore[misc]
        conn.begin(self.total_s)
        return conn

    def _put_conn(self, conn: Any) -> None:
        """An answer was read to its end."""
        if conn is not None:
            try:
                conn.end()
            except TimeoutError:
                conn.close()
                raise
        super()._put_conn(conn)  # type: ignore[misc]


class _LimitedPool(_Pool, AWSHTTPConnectionPool):  # type: ignore[misc]
    ConnectionCls = _LimitedConnection


class _LimitedTlsPool(_Pool, AWSHTTPSConnectionPool):  # type: ignore[misc]
    ConnectionCls = _LimitedTlsConnection
