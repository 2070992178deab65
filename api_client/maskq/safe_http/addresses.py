"""Addresses of a host's name, and whether they are on the public internet."""

from __future__ import annotations

import ipaddress
import socket
import threading
from concurrent.futures import Future
from typing import Any

from maskq.safe_http.errors import Unreachable
from maskq.safe_http.happy_eyeballs import Address

_LOOKUP_S = 5.0  # for the addresses of a name
_LOOKUPS = threading.BoundedSemaphore(1024)  # also lookups whose caller has given up

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_NAT64_LOCAL = ipaddress.ip_network("64:ff9b:1::/48")
_SITE_LOCAL = ipaddress.ip_network("fec0::/10")
_IETF = ipaddress.ip_network("192.0.0.0/24")
_COMPATIBLE = ipaddress.ip_network("::/96")


def is_public(address: Address) -> bool:
    """Whether the address is one public host; an IPv4 address embedded in IPv6 must be public too.

    `is_global` alone accepts multicast, site-local, and NAT64 and 6to4 addresses of private networks.
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
    """The IPv4 address inside an IPv6 address (mapped, 6to4, Teredo, NAT64); None if there is none."""
    if address.ipv4_mapped:
        return address.ipv4_mapped
    if address.sixtofour:
        return address.sixtofour
    if address.teredo:
        return address.teredo[1]
    if address in _NAT64 or (address in _COMPATIBLE and int(address) > 1):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return None


def resolve(host: str, port: int) -> list[Address]:
    """The addresses of a host's name. Raises Unreachable, also if name servers take too long."""
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
    return [parse_address(str(entry[4][0])) for entry in entries]


def _look_up(host: str, port: int, found: Future[list[Any]]) -> None:
    """Runs in its own thread, because a call of the resolver cannot be cancelled."""
    try:
        found.set_result(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    except BaseException as error:  # noqa: BLE001  # the caller raises it
        found.set_exception(error)
    finally:
        _LOOKUPS.release()


def parse_address(text: str) -> Address:
    # A zone index (fe80::1%eth0) is not part of the address.
    return ipaddress.ip_address(text.partition("%")[0])
