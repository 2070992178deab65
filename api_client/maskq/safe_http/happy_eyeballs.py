"""Connect to the first of several addresses that answers (RFC 8305, "Happy Eyeballs").

A name often has an IPv6 address first, which an IPv4-only network cannot reach.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import selectors
import socket
import time
from collections.abc import Sequence
from itertools import chain, zip_longest
from typing import Self, cast

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# RFC 8305, section 5: the "Connection Attempt Delay".
_ATTEMPT_DELAY_S = 0.25
MOST_ATTEMPTS = 10  # limits the connections that a name with many addresses causes


def connect(addresses: Sequence[Address], port: int, *, timeout_s: float) -> socket.socket:
    """Open a TCP connection to one of the addresses, alternating between IPv6 and IPv4.

    The next address is tried 0.25 s after the one before, or at once when that one fails; ten at most.
    The first connection that is established wins; all others are closed.

    Returns:
        A blocking socket without a timeout.

    Raises:
        OSError: every address failed; the text gives the reason for each.
        TimeoutError: no address answered within `timeout_s` seconds.
    """
    with _Attempts(port) as attempts:
        waiting = tried_first(addresses)
        end, next_start = time.monotonic() + timeout_s, 0.0
        while True:
            now = time.monotonic()
            if waiting and (now >= next_start or not attempts.open):
                attempts.start(waiting.pop(0))
                next_start = now + _ATTEMPT_DELAY_S
            elif not attempts.open:
                raise OSError("; ".join(attempts.failures) or "there is no address to connect to")
            elif now >= end:
                tried = ", ".join(map(str, addresses))
                raise TimeoutError(f"no answer from {tried} within {timeout_s:g} s")
            if connected := attempts.wait((min(next_start, end) if waiting else end) - now):
                return connected


class _Attempts:
    """Connections that are being established."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._selector = selectors.DefaultSelector()
        self.failures: list[str] = []  # one sentence for each address

    @property
    def open(self) -> int:
        """How many have neither succeeded nor failed."""
        return len(self._selector.get_map())

    def start(self, address: Address) -> None:
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        try:
            attempt = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:  # this host has no IPv6
            self._failed(address, error.errno or 0)
            return
        attempt.setblocking(False)
        code = attempt.connect_ex((str(address), self._port))
        if code in (0, errno.EINPROGRESS):
            self._selector.register(attempt, selectors.EVENT_WRITE, address)
        else:
            attempt.close()
            self._failed(address, code)

    def wait(self, timeout_s: float) -> socket.socket | None:
        """The first attempt that succeeds within the time, if one does; returns early on a failure."""
        for key, _ in self._selector.select(max(0.0, timeout_s)) if self.open else ():
            attempt = cast("socket.socket", key.fileobj)
            self._selector.unregister(attempt)
            code = attempt.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if not code:
                attempt.setblocking(True)
                return attempt
            attempt.close()
            self._failed(key.data, code)
        return None

    def _failed(self, address: Address, code: int) -> None:
        self.failures.append(f"{address}: {os.strerror(code)}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for key in list(self._selector.get_map().values()):
            cast("socket.socket", key.fileobj).close()
        self._selector.close()


def tried_first(addresses: Sequence[Address]) -> list[Address]:
    """The addresses that `connect` tries, in its order: at most ten, each family in turn.

    So many dead addresses of one family do not delay the other.
    """
    families: dict[int, list[Address]] = {}
    for one in dict.fromkeys(addresses):
        families.setdefault(one.version, []).append(one)
    turns = chain.from_iterable(zip_longest(*families.values()))
    return [one for one in turns if one is not None][:MOST_ATTEMPTS]
