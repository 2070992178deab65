"""Which URLs of callers may be called: https to public hosts, or to hosts that a setting allows."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import urlsplit

from maskq.safe_http import happy_eyeballs
from maskq.safe_http.addresses import is_public, resolve
from maskq.safe_http.errors import Refused
from maskq.safe_http.happy_eyeballs import Address

_PORTS = (443, 8443)
_NOT_IN_URLS = re.compile(r"[\x00-\x20\x7f-\xa0\\]")


@dataclass(frozen=True, slots=True)
class Target:
    """A URL and the addresses that its name had when it was checked."""

    scheme: str
    host: str
    port: int
    path: str  # with its query
    addresses: tuple[Address, ...]  # at least one, at most ten


def check(url: str, allowed_hosts: Collection[str] = (), *, setting: str) -> Target:
    """The target of a URL. Raises Refused, or Unreachable if the name has no address.

    `setting`: the variable of `allowed_hosts`, for the text of Refused.
    """
    if _NOT_IN_URLS.search(url):  # urlsplit drops some of them silently
        raise Refused("it holds a space, a control character or a backslash")
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").rstrip("."), parts.port
    except ValueError:  # the error's text may contain a part of the password
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
    addresses = resolve(host, port)
    private = [str(one) for one in addresses if not is_public(one)]
    if private and not allowed:
        raise Refused(
            f"{host} has the address {private[0]}, which is not public; add it to {setting} if it is "
            f"to be called"
        )
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(parts.scheme, host, port, path, tuple(happy_eyeballs.tried_first(addresses)))
