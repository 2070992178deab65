"""HTTP requests to checked addresses, so that callers cannot reach internal hosts (SSRF).

`target.check` resolves a name once, and all its addresses must be public. The request connects to one
of the checked addresses and never resolves the name again. It follows no redirects, uses no proxies,
and uses https only, except for allow-listed hosts.
"""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection

from maskq.safe_http import happy_eyeballs
from maskq.safe_http.addresses import parse_address
from maskq.safe_http.deadline import Deadline
from maskq.safe_http.errors import TooLong, Unreachable
from maskq.safe_http.happy_eyeballs import Address
from maskq.safe_http.target import Target

# At DEBUG urllib3 logs URLs with their query, which holds the secret of a presigned URL.
logging.getLogger("urllib3.connectionpool").setLevel(logging.INFO)

_CONNECT_S, _READ_S = 5.0, 15.0
_ANSWER_BYTES = 64 * 1024  # read at most
_PART_BYTES = 256 * 1024
_TOTAL_S = 20.0  # for a whole call, however slowly its bytes arrive


OnConnect = Callable[[Address], None]


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]  # lower-case names
    body: bytes  # its beginning


def post(
    target: Target,
    body: bytes,
    headers: Mapping[str, str],
    *,
    on_connect: OnConnect = lambda _: None,
) -> Answer:
    """POST to a checked address. Returns any HTTP status as an answer. Raises Unreachable."""
    return send("POST", target, body, headers, on_connect=on_connect)


def send(
    method: str,
    target: Target,
    body: bytes,
    headers: Mapping[str, str],
    *,
    total_s: float = _TOTAL_S,
    on_connect: OnConnect = lambda _: None,
) -> Answer:
    """Send one request; returns the first _ANSWER_BYTES of its answer. Raises Unreachable.

    on_connect: called with the address, once a connection is established.
    """
    with _answer(method, target, body, headers, total_s, on_connect) as answer:
        return _taken(answer, _read(answer, _ANSWER_BYTES))


def get(
    target: Target,
    *,
    max_bytes: int,
    total_s: float,
    on_answer: Callable[[], None] = lambda: None,
    on_connect: OnConnect = lambda _: None,
) -> Answer:
    """GET a whole body. Raises TooLong for more than `max_bytes`, Unreachable.

    on_answer: called when the body begins.
    on_connect: called with the address, once a connection is established.
    """
    headers = {"Accept-Encoding": "identity"}
    with _answer("GET", target, None, headers, total_s, on_connect) as answer:
        on_answer()
        if answer.status != 200:
            return _taken(answer, _read(answer, _ANSWER_BYTES))
        said = answer.headers.get("Content-Length", "")
        if said.isdigit() and int(said) > max_bytes:
            raise TooLong(int(said))
        body = _read(answer, max_bytes + 1)
        if len(body) > max_bytes:
            raise TooLong(None)
        if said.isdigit() and len(body) < int(said):
            raise Unreachable(f"its answer broke off after {len(body)} of {said} bytes")
        return _taken(answer, body)


@contextmanager
def _answer(
    method: str,
    target: Target,
    body: bytes | None,
    headers: Mapping[str, str],
    total_s: float,
    on_connect: OnConnect,
) -> Iterator[urllib3.BaseHTTPResponse]:
    """One request on one connection to a checked address; the answer's body is unread.

    The connection is shut down after `total_s` seconds.
    """
    default_port = {"https": 443, "http": 80}[target.scheme]
    name = f"[{target.host}]" if ":" in target.host else target.host
    host_header = name if target.port == default_port else f"{name}:{target.port}"
    deadline = Deadline(total_s)
    pool = _pool(target, deadline, on_connect)
    try:
        answer = pool.urlopen(
            method,
            target.path,
            body=body,
            headers={**headers, "Host": host_header},
            redirect=False,
            retries=False,
            preload_content=False,
            decode_content=False,
        )
        try:
            yield answer
        finally:
            answer.close()
        deadline.check()  # an answer that ends with its connection looks complete
    except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        raise Unreachable(deadline.reason or _reason(error)) from error
    finally:
        deadline.cancel()
        pool.close()


def _taken(answer: urllib3.BaseHTTPResponse, body: bytes) -> Answer:
    names = {name.lower(): value for name, value in answer.headers.items()}
    return Answer(answer.status, names, body)


def _read(answer: urllib3.BaseHTTPResponse, at_most: int) -> bytes:
    received = bytearray()
    while len(received) < at_most:
        part = answer.read1(min(_PART_BYTES, at_most - len(received)))
        if not part:
            break
        received += part
    return bytes(received)


def _pool(target: Target, deadline: Deadline, on_connect: OnConnect) -> urllib3.HTTPConnectionPool:
    timeout = urllib3.Timeout(connect=_CONNECT_S, read=_READ_S)
    options: dict[str, Any] = {
        "timeout": timeout,
        "maxsize": 1,
        "addresses": target.addresses,  # this and the next two are for _Connection
        "deadline": deadline,
        "on_connect": on_connect,
    }
    if target.scheme == "http":
        return _PlainPool(target.host, target.port, **options)
    return _TlsPool(target.host, target.port, **options, ssl_context=_tls())


class _Connection(HTTPConnection):
    """Connects to one of the checked addresses instead of resolving the name again."""

    def __init__(
        self,
        *args: Any,
        addresses: Sequence[Address],
        deadline: Deadline,
        on_connect: OnConnect,
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        self._addresses = addresses
        self._deadline = deadline
        self._on_connect = on_connect

    def _new_conn(self) -> socket.socket:
        try:
            made = happy_eyeballs.connect(
                self._addresses, self.port, timeout_s=min(_CONNECT_S, self._deadline.left_s())
            )
        except OSError as error:
            raise urllib3.exceptions.NewConnectionError(self, str(error)) from error
        self._deadline.cut(made)
        self._on_connect(parse_address(made.getpeername()[0]))
        made.settimeout(_CONNECT_S)  # of the TLS handshake; urllib3 sets its own for the answer
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made


class _PlainPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsConnection(_Connection, HTTPSConnection):
    """The certificate must be valid for the name, whichever address answers."""


class _TlsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


def _reason(error: Exception) -> str:
    inner = error.args[1] if len(error.args) > 1 and isinstance(error.args[1], Exception) else error
    return f"{type(inner).__name__}: {inner}"[:300]
