"""Divides the calls that run at the same time, so that slow receivers leave room for the others.

Callers choose which hosts are called. One receiver that answers a byte at a time keeps each call until
its deadline, and can have any number of host names. So a call is counted under its host, the registered
domain of that, and the address it connects to; and hosts whose last call was fast have room that no
other host can take.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from maskq.backoff import Jitter
from maskq.safe_http import Address, embedded_ipv4

if TYPE_CHECKING:
    from publicsuffixlist import PublicSuffixList

_SLOW_S = 5.0  # a call that took longer was slow
_SLOW_BYTES_S = 2.0**20  # bytes a second; what a call carried counts
_SLOW_FOR_S = 300.0  # after this time without a call a slow host counts as unknown
_RETRY_S = (0.1, 15.0)  # shortest and longest pause before another try
_RETRY_JITTER = Jitter(1.0, 1.5)
_KEPT = 10_000  # hosts that are remembered, of the fast and of the slow


class Busy(Exception):
    """There is no room for this call. `retry_s`: seconds before it should be tried again."""

    def __init__(self, said: str, retry_s: float) -> None:
        super().__init__(said)
        self.retry_s = retry_s


class Standing(Enum):
    """What a host's last call was like."""

    FAST = "fast"
    UNKNOWN = "unknown"
    SLOW = "slow"


@dataclass(frozen=True, slots=True)
class Share:
    """How many calls to hosts of one standing may run at once."""

    total: int
    host: int  # of these, to one host and port
    wider: int  # of these, to one registered domain, and to one address and port


class BoundCall:
    """One call, while it runs."""

    def __init__(self, bulkhead: Bulkhead, host: str, port: int, standing: Standing) -> None:
        self._bulkhead = bulkhead
        self.host = f"{host}:{port}"
        self.port = port
        self.domain = registered_domain(host)
        self.standing = standing
        self.blocks: frozenset[str] = frozenset()  # addresses that it may be connected to
        self.began = time.monotonic()
        self.is_connected = False
        self.carried_bytes = 0  # what it transferred, which may take its time

    def resolved(self, addresses: Sequence[Address]) -> tuple[Address, ...]:
        """Count it under these addresses; returns those that have room. Raises Busy if none has."""
        return self._bulkhead.resolved(self, addresses)

    def connected(self, address: Address) -> None:
        """Count it under this address alone."""
        self.is_connected = True
        self.blocks = frozenset({_block(address, self.port)})


class Bulkhead:
    """Shared by every thread of a process. Remembers hosts only in memory."""

    def __init__(
        self, total: int, shares: Mapping[Standing, Share], *, patience_s: float = 0.0
    ) -> None:
        """
        total: calls at once, of all hosts. What the shares of unknown and slow hosts leave of it is
        kept for fast ones.
        patience_s: how long a call waits for room that younger calls take.
        """
        self._total = total
        self._shares = dict(shares)
        self._patience_s = patience_s
        self._running: set[BoundCall] = set()
        # Host → when its last call ended, the oldest first.
        self._fast: OrderedDict[str, float] = OrderedDict()
        self._slow: OrderedDict[str, float] = OrderedDict()
        self._changed = threading.Condition()

    @property
    def free(self) -> int:
        """How many more calls there is room for, if their hosts are fast."""
        with self._changed:
            return self._total - len(self._running)

    def enter(self, host: str, port: int) -> BoundCall:
        """Begin a call; whoever enters must call `leave`. Raises Busy."""
        with self._changed:
            until = time.monotonic() + self._patience_s
            while True:
                call = BoundCall(self, host, port, self._standing(f"{host}:{port}"))
                in_the_way = self._in_the_way(call)
                if in_the_way is None:
                    self._running.add(call)
                    return call
                now = time.monotonic()
                youngest_s = now - max(one.began for one in in_the_way)
                if now >= until or youngest_s > self._patience_s:
                    raise _busy(host, in_the_way)
                self._changed.wait(until - now)

    def leave(self, call: BoundCall) -> None:
        """The call has ended; remember how long it took."""
        took_s = time.monotonic() - call.began
        is_slow = took_s > _SLOW_S + call.carried_bytes / _SLOW_BYTES_S
        with self._changed:
            self._running.discard(call)
            self._changed.notify_all()
            if is_slow:
                self._fast.pop(call.host, None)
                _remember(self._slow, call.host)
            elif call.is_connected:  # an error before that says nothing about the receiver
                self._slow.pop(call.host, None)
                _remember(self._fast, call.host)

    @contextmanager
    def calling(self, host: str, port: int) -> Iterator[BoundCall]:
        """Around a call. Raises Busy."""
        call = self.enter(host, port)
        try:
            yield call
        finally:
            self.leave(call)

    def resolved(self, call: BoundCall, addresses: Sequence[Address]) -> tuple[Address, ...]:
        """Count a running call under these addresses; see BoundCall."""
        with self._changed:
            crowds = {one: self._crowd(call, _block(one, call.port)) for one in addresses}
            most = self._shares[call.standing].wider
            with_room = tuple(one for one, crowd in crowds.items() if len(crowd) < most)
            if not with_room:
                raise _busy(call.host, [one for crowd in crowds.values() for one in crowd])
            call.blocks = frozenset(_block(one, call.port) for one in with_room)
        return with_room

    def _crowd(self, call: BoundCall, block: str) -> list[BoundCall]:
        return [
            one
            for one in self._running
            if one is not call and one.standing is call.standing and block in one.blocks
        ]

    def _standing(self, host: str) -> Standing:
        if host in self._fast:
            return Standing.FAST
        slow_at = self._slow.get(host)
        if slow_at is not None and time.monotonic() < slow_at + _SLOW_FOR_S:
            return Standing.SLOW
        return Standing.UNKNOWN

    def _in_the_way(self, call: BoundCall) -> Collection[BoundCall] | None:
        """The calls that take the room of this one; None: there is room."""
        share = self._shares[call.standing]
        same = [one for one in self._running if one.standing is call.standing]
        host = [one for one in same if one.host == call.host]
        domain = [one for one in same if call.domain and one.domain == call.domain]
        for crowd, most in (
            (self._running, self._total),
            (same, share.total),
            (host, share.host),
            (domain, share.wider),
        ):
            if len(crowd) >= most:
                return crowd
        return None


def _remember(hosts: OrderedDict[str, float], host: str) -> None:
    hosts[host] = time.monotonic()
    hosts.move_to_end(host)
    if len(hosts) > _KEPT:
        hosts.popitem(last=False)


def _busy(host: str, in_the_way: Collection[BoundCall]) -> Busy:
    """Looked at again seldom where others are slow: else the looking would cost more than the calls."""
    shortest, longest = _RETRY_S
    oldest_s = time.monotonic() - min(one.began for one in in_the_way)
    retry_s = _RETRY_JITTER.applied_to(min(max(oldest_s, shortest), longest))
    return Busy(f"{len(in_the_way)} other calls take the room of {host}", retry_s)


def host_of(url: str) -> tuple[str, int]:
    """Host and port of a URL, in one spelling; ('', 0) for what is not a URL."""
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").rstrip("."), parts.port
    except ValueError:
        return "", 0
    try:
        host = host.encode("idna").decode() if not host.isascii() else host
    except UnicodeError:
        return "", 0
    return host, port or (443 if parts.scheme == "https" else 80)


def registered_domain(host: str) -> str:
    """What its owner registered: example.co.uk of a.b.example.co.uk; '' for an address.

    Below the public suffixes of hosting companies (github.io) each name is an owner's own. A name that
    has no dot is its own domain.
    """
    if ":" in host or host.rpartition(".")[2].isdigit():
        return ""
    return _suffixes().privatesuffix(host) or host


@cache
def _suffixes() -> PublicSuffixList:
    from publicsuffixlist import PublicSuffixList  # 0.1 s and 4 MiB, once URLs are called

    return PublicSuffixList()


def _block(address: Address, port: int) -> str:
    """The addresses that one owner surely has: an IPv4 address, a /48 of IPv6; with the port."""
    if address.version == 6:
        inner = embedded_ipv4(address)
        if inner is None:
            return f"{int(address) >> 80:x}::/48 {port}"
        address = inner
    return f"{address} {port}"
