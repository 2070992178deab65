"""HTTP to addresses that callers name, without becoming their way into our network (SSRF).

A name is resolved once, every address it has must be public, and the connection goes to one of the
addresses that were checked: a second answer of the name server is never asked for. No redirects, no
proxies from the environment, https only. Private hosts must be allow-listed by a setting.
"""

from __future__ import annotations

import ipaddress
import logging
import re
import socket
import ssl
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection

from maskq.safe_http import happy_eyeballs
from maskq.safe_http.deadline import Deadline
from maskq.safe_http.happy_eyeballs import Address

# At DEBUG urllib3 tells every URL with its query, which is the secret of a presigned one.
logging.getLogger("urllib3.connectionpool").setLevel(logging.INFO)

_CONNECT_S, _READ_S = 5.0, 15.0
_ANSWER_BYTES = 64 * 1024  # read at most
_PART_BYTES = 256 * 1024
_TOTAL_S = 20.0  # for a whole call: an answer that drips is cut off then
_LOOKUP_S = 5.0  # for the addresses of a name
_LOOKUPS = threading.BoundedSemaphore(1024)  # those as well that nobody waits for any more
_PORTS = (443, 8443)
_NOT_IN_URLS = re.compile(r"[\x00-\x20\x7f-\xa0\\]")


OnConnect = Callable[[Address], None]


class Refused(Exception):
    """The URL must not be called; the text says why."""


class Unreachable(Exception):
    """It may be called, but nobody answered as HTTP has it."""


class TooLong(Exception):
    """The answer has more bytes than were asked for; `size`: as it says, where it does."""

    def __init__(self, size: int | None) -> None:
        super().__init__(size)
        self.size = size


@dataclass(frozen=True, slots=True)
class Target:
    """A URL and the addresses that its name had when it was checked."""

    scheme: str
    host: str
    port: int
    path: str  # with its query
    addresses: tuple[Address, ...]  # at least one, at most ten


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]  # lower-case names
    body: bytes  # its beginning


def check(url: str, allowed_hosts: Collection[str] = (), *, setting: str) -> Target:
    """Where a call of this URL may go. Raises Refused, Unreachable if the name has no address.

    `setting`: the variable that holds the allowed hosts, for whoever is refused.
    """
    if _NOT_IN_URLS.search(url):  # urlsplit drops some of them without a word
        raise Refused("it holds a space, a control character or a backslash")
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").rstrip("."), parts.port
    except ValueError:  # its text may hold a part of the password
        raise Refused("it is not a valid URL") from None
    if not host:
        raise Refused("it names no host")
    if parts.username is not None or parts.password is not None:
        raise Refused("it holds a user name or password; use a path that cannot be guessed")
    port = port or (443 if parts.scheme == "https" else 80)
    named = {one.lower() for one in allowed_hosts}
    allowed = host in named or f"{host}:{port}" in named
    if parts.scheme != "https" and not (allowed and parts.scheme == "http"):
        raise Refused(f"only https is called (http for hosts in {setting})")
    if not allowed and port not in _PORTS:
        raise Refused(f"port {port} is not called; use {' or '.join(map(str, _PORTS))}")
    addresses = _resolve(host, port)
    private = [str(one) for one in addresses if not is_public(one)]
    if private and not allowed:
        raise Refused(
            f"{host} has the address {private[0]}, which is not public; add it to {setting} if it is "
            f"to be called"
        )
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(parts.scheme, host, port, path, tuple(happy_eyeballs.tried_first(addresses)))


def post(
    target: Target,
    body: bytes,
    headers: Mapping[str, str],
    *,
    on_connect: OnConnect = lambda _: None,
) -> Answer:
    """POST to a checked address. Raises Unreachable; any HTTP status is an answer."""
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
    """One request; of its answer, the first _ANSWER_BYTES. Raises Unreachable.

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
    """GET the whole of it. Raises TooLong before more than `max_bytes` are read, Unreachable.

    on_answer: called when its body begins.
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
    """One request on one connection to a checked address; the answer's body is not read yet.

    The connection is cut `total_s` seconds from now, whatever it is doing then.
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
        deadline.check()  # an answer whose end is the end of its connection looks whole
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
        "addresses": target.addresses,  # this and what follows is for _Connection
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
        self._on_connect(_address(made.getpeername()[0]))
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


def _resolve(host: str, port: int) -> list[Address]:
    """Raises Unreachable; also if the name servers take too long."""
    if not _LOOKUPS.acquire(blocking=False):
        raise Unreachable(f"{host} is not looked up: too many names wait for their name servers")
    found: Future[list[Any]] = Future()
    threading.Thread(
        target=_look_up, args=(host, port, found), name="maskq-lookup", daemon=True
    ).start()
    try:
        entries = found.result(_LOOKUP_S)
    except TimeoutError:
        raise Unreachable(
            f"the name servers of {host} did not answer within {_LOOKUP_S:g} s"
        ) from None
    except (OSError, UnicodeError) as error:
        raise Unreachable(f"{host} has no address: {error}") from None
    return [_address(str(entry[4][0])) for entry in entries]


def _look_up(host: str, port: int, found: Future[list[Any]]) -> None:
    """In a thread of its own: nothing ends a call of the resolver before its own timeouts do."""
    try:
        found.set_result(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    except BaseException as error:  # noqa: BLE001  # for whoever waits
        found.set_exception(error)
    finally:
        _LOOKUPS.release()


def _address(text: str) -> Address:
    # A zone index (fe80::1%eth0) is no part of the address.
    return ipaddress.ip_address(text.partition("%")[0])


_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_NAT64_LOCAL = ipaddress.ip_network("64:ff9b:1::/48")
_SITE_LOCAL = ipaddress.ip_network("fec0::/10")
_IETF = ipaddress.ip_network("192.0.0.0/24")
_COMPATIBLE = ipaddress.ip_network("::/96")


def is_public(address: Address) -> bool:
    """Whether it is one host on the internet; an IPv4 address inside an IPv6 one counts as well.

    `is_global` alone passes multicast, NAT64 and 6to4 addresses of private networks, and site-local.
    """
    if isinstance(address, ipaddress.IPv4Address):
        return address.is_global and not address.is_multicast and address not in _IETF
    inner = embedded_ipv4(address)
    if inner is not None:
        return is_public(inner)
    return (
        address.is_global
        and not address.is_multicast
        and not address.is_reserved
        and address not in _SITE_LOCAL
        and address not in _NAT64_LOCAL
    )


def embedded_ipv4(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6 one (mapped, 6to4, Teredo, NAT64) leads to."""
    if address.ipv4_mapped:
        return address.ipv4_mapped
    if address.sixtofour:
        return address.sixtofour
    if address.teredo:
        return address.teredo[1]
    if address in _NAT64 or (address in _COMPATIBLE and int(address) > 1):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return None
