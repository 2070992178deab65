"""HTTP to addresses that callers name, without becoming their way into our network (SSRF).

A name is resolved once, every address it has must be public, and the connection goes to the address
that was checked: a second answer of the name server is never asked for. No redirects, no proxies from
the environment, https only. What is private but meant (MASKQ_WEBHOOK_ALLOWED_HOSTS) is named.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from urllib.parse import urlsplit

import urllib3

_CONNECT_S, _READ_S = 5.0, 15.0
_ANSWER_BYTES = 64 * 1024  # read at most
_TOTAL_S = 20.0  # an answer that drips is given up then
_PORTS = (443, 8443)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Refused(Exception):
    """The URL must not be called; the text says why."""


class Unreachable(Exception):
    """It may be called, but nobody answered as HTTP has it."""


@dataclass(frozen=True, slots=True)
class Target:
    """A URL and the address that its name had when it was checked."""

    scheme: str
    host: str
    port: int
    path: str  # with its query
    address: str


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]  # lower-case names
    body: bytes  # its beginning


def check(url: str, allowed_hosts: Collection[str] = ()) -> Target:
    """Where a call of this URL may go. Raises Refused, Unreachable if the name has no address."""
    parts = urlsplit(url)
    try:
        host, port = (parts.hostname or "").rstrip("."), parts.port
    except ValueError:
        raise Refused("its port is no number") from None
    if not host:
        raise Refused("it names no host")
    if parts.username is not None or parts.password is not None:
        raise Refused("it holds a user name or password; use a path that cannot be guessed")
    allowed = host in allowed_hosts or f"{host}:{port}" in allowed_hosts
    if parts.scheme != "https" and not (allowed and parts.scheme == "http"):
        raise Refused("only https is called (http for hosts in MASKQ_WEBHOOK_ALLOWED_HOSTS)")
    port = port or (443 if parts.scheme == "https" else 80)
    if not allowed and port not in _PORTS:
        raise Refused(f"port {port} is not called; use {' or '.join(map(str, _PORTS))}")
    addresses = _resolve(host, port)
    private = [str(one) for one in addresses if not is_public(one)]
    if private and not allowed:
        raise Refused(
            f"{host} has the address {private[0]}, which is not public; hosts that are meant go into "
            f"MASKQ_WEBHOOK_ALLOWED_HOSTS"
        )
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(parts.scheme, host, port, path, str(addresses[0]))


def post(target: Target, body: bytes, headers: Mapping[str, str]) -> Answer:
    """POST to the checked address. Raises Unreachable; any HTTP status is an answer."""
    return request("POST", target, body, headers)


def request(method: str, target: Target, body: bytes | None, headers: Mapping[str, str]) -> Answer:
    """One request, one connection, at most _ANSWER_BYTES of its answer."""
    default_port = {"https": 443, "http": 80}[target.scheme]
    name = f"[{target.host}]" if ":" in target.host else target.host
    host_header = name if target.port == default_port else f"{name}:{target.port}"
    end = time.monotonic() + _TOTAL_S
    pool = _pool(target)
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
            received = _read(answer, end)
        finally:
            answer.close()
        names = {name.lower(): value for name, value in answer.headers.items()}
        return Answer(answer.status, names, received)
    except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        raise Unreachable(_reason(error)) from error
    finally:
        pool.close()


def _read(answer: urllib3.BaseHTTPResponse, end: float) -> bytes:
    received = b""
    while len(received) < _ANSWER_BYTES:
        if time.monotonic() > end:
            raise OSError(f"its answer had not ended after {_TOTAL_S:g} s")
        part = answer.read1(_ANSWER_BYTES - len(received))
        if not part:
            break
        received += part
    return received


def _pool(target: Target) -> urllib3.HTTPConnectionPool:
    timeout = urllib3.Timeout(connect=_CONNECT_S, read=_READ_S)
    if target.scheme == "http":
        return urllib3.HTTPConnectionPool(target.address, target.port, timeout=timeout, maxsize=1)
    return urllib3.HTTPSConnectionPool(
        target.address,
        target.port,
        timeout=timeout,
        maxsize=1,
        ssl_context=_tls(),
        server_hostname=target.host,
        assert_hostname=target.host,
    )


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


def _reason(error: Exception) -> str:
    inner = error.args[1] if len(error.args) > 1 and isinstance(error.args[1], Exception) else error
    return f"{type(inner).__name__}: {inner}"[:300]


def _resolve(host: str, port: int) -> list[Address]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise Unreachable(f"{host} has no address: {error}") from None
    # A zone index (fe80::1%eth0) is no part of the address.
    return [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]


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
    inner = _embedded(address)
    if inner is not None:
        return is_public(inner)
    return (
        address.is_global
        and not address.is_multicast
        and not address.is_reserved
        and address not in _SITE_LOCAL
        and address not in _NAT64_LOCAL
    )


def _embedded(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if address.ipv4_mapped:
        return address.ipv4_mapped
    if address.sixtofour:
        return address.sixtofour
    if address.teredo:
        return address.teredo[1]
    if address in _NAT64 or (address in _COMPATIBLE and int(address) > 1):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return None
