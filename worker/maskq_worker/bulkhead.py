"""A bulkhead: limits concurrent calls per host, so that slow receivers cannot use all of them.

Users of the API choose which hosts are called. A receiver that answers one byte at a time keeps each
call until its deadline, and may have any number of host names. So a call counts against its host, the
host's registered domain, and the address it connects to. Hosts whose last call was fast have a share
that no other host can use.
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

from maskq.backoff import LATER_JITTER
from maskq.safe_http import Address, embedded_ipv4

if TYPE_CHECKING:
    from publicsuffixlist import PublicSuffixList

_SLOW_S = 5.0  # a call that took longer was slow
_SLOW_BYTES_S = 2.0**20  # bytes a second; what a call carried counts
_SLOW_FOR_S = 300.0  # a slow host counts as unknown after this time without a call
_RETRY_S = (0.1, 15.0)  # shortest and longest pause before another try
_KEPT = 10_000  # hosts that are remembered, of the fast and of the slow


class Busy(Exception):
    """A limit of concurrent calls is reached. `retry_s`: seconds before the call is retried."""

    def __init__(self, said: str, retry_s: float) -> None:
        super().__init__(said)
        self.retry_s = retry_s


class Standing(Enum):
    """How fast a host's last call was."""

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
    """A call that is running."""

    def __init__(self, bulkhead: Bulkhead, host: str, port: int, standing: Standing) -> None:
        self._bulkhead = bulkhead
        self.host = f"{host}:{port}"
        self.port = port
        self.domain = registered_domain(host)
        self.standing = standing
        self.blocks: frozenset[str] = frozenset()  # the address blocks that it may connect to
        self.began = time.monotonic()
        self.is_connected = False
        self.carried_bytes = 0  # what it transferred; a large transfer may take longer

    def resolved(self, addresses: Sequence[Address]) -> tuple[Address, ...]:
        """Count the call under these addresses. Returns those below their limit. Raises Busy."""
        return self._bulkhead.resolved(self, addresses)

    def add_transferred(self, size: int) -> None:
        """Note that the call transferred so many bytes."""
        self.carried_bytes += size

    def connected(self, address: Address) -> None:
        """Count the call under this address only."""
        self.is_connected = True
        self.blocks = frozenset({_block(address, self.port)})


class Bulkhead:
    """Shared by the threads of a process. Hosts are remembered in memory only."""

    def __init__(
        self, total: int, shares: Mapping[Standing, Share], *, max_wait_s: float = 0.0
    ) -> None:
        """
        total: calls at once, to all hosts. The part that the shares of unknown and slow hosts leave is
        reserved for fast hosts.
        max_wait_s: how long a call waits if younger calls have reached the limit.
        """
        self._total = total
        self._shares = dict(shares)
        self._max_wait_s = max_wait_s
        self._running: set[BoundCall] = set()
        # Host → when its last call ended, the oldest first.
        self._fast: OrderedDict[str, float] = OrderedDict()
        self._slow: OrderedDict[str, float] = OrderedDict()
        self._changed = threading.Condition()

    @property
    def free(self) -> int:
        """How many more calls to fast hosts may start."""
        with self._changed:
            return self._total - len(self._running)

    def enter(self, host: str, port: int) -> BoundCall:
        """Begin a call; the caller must call `leave`. Raises Busy."""
        with self._changed:
            until = time.monotonic() + self._max_wait_s
            while True:
                call = BoundCall(self, host, port, self._standing(f"{host}:{port}"))
                blocking = self._blocking_calls(call)
                if blocking is None:
                    self._running.add(call)
                    return call
                now = time.monotonic()
                youngest_s = now - max(one.began for one in blocking)
                if now >= until or youngest_s > self._max_wait_s:
                    raise _busy(host, blocking)
                self._changed.wait(until - now)

    def leave(self, call: BoundCall) -> None:
        """End a call, and remember whether its host was fast."""
        took_s = time.monotonic() - call.began
        is_slow = took_s > _SLOW_S + call.carried_bytes / _SLOW_BYTES_S
        with self._changed:
            self._running.discard(call)
            self._changed.notify_all()
            if is_slow:
                self._fast.pop(call.host, None)
                _remember(self._slow, call.host)
            elif call.is_connected:  # an earlier error says nothing about the receiver
                self._slow.pop(call.host, None)
                _remember(self._fast, call.host)

    @contextmanager
    def calling(self, host: str, port: int) -> Iterator[BoundCall]:
        """Count a call while the block runs. Raises Busy."""
        call = self.enter(host, port)
        try:
            yield call
        finally:
            self.leave(call)

    def resolved(self, call: BoundCall, addresses: Sequence[Address]) -> tuple[Address, ...]:
        """See BoundCall.resolved."""
        with self._changed:
            same_block = {one: self._same_block(call, _block(one, call.port)) for one in addresses}
            most = self._shares[call.standing].wider
            allowed = tuple(one for one, calls in same_block.items() if len(calls) < most)
            if not allowed:
                raise _busy(call.host, [one for calls in same_block.values() for one in calls])
            call.blocks = frozenset(_block(one, call.port) for one in allowed)
        return allowed

    def _same_block(self, call: BoundCall, block: str) -> list[BoundCall]:
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

    def _blocking_calls(self, call: BoundCall) -> Collection[BoundCall] | None:
        """The calls that reach a limit of this call; None if it may start."""
        share = self._shares[call.standing]
        same = [one for one in self._running if one.standing is call.standing]
        host = [one for one in same if one.host == call.host]
        domain = [one for one in same if call.domain and one.domain == call.domain]
        for calls, most in (
            (self._running, self._total),
            (same, share.total),
            (host, share.host),
            (domain, share.wider),
        ):
            if len(calls) >= most:
                return calls
        return None


def _remember(hosts: OrderedDict[str, float], host: str) -> None:
    hosts[host] = time.monotonic()
    hosts.move_to_end(host)
    if len(hosts) > _KEPT:
        hosts.popitem(last=False)


def _busy(host: str, blocking: Collection[BoundCall]) -> Busy:
    """The retry delay grows with the age of the other calls, so that retries stay cheap."""
    shortest, longest = _RETRY_S
    oldest_s = time.monotonic() - min(one.began for one in blocking)
    retry_s = LATER_JITTER.applied_to(min(max(oldest_s, shortest), longest))
    return Busy(f"{len(blocking)} other calls use the limit of {host}", retry_s)


def host_of(url: str) -> tuple[str, int]:
    """The normalised host and the port of a URL; ('', 0) if it is not a valid URL."""
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
    """The registered domain of a host: example.co.uk of a.b.example.co.uk; '' for an address.

    Below the public suffixes of hosting companies (github.io) each name has its own owner. A name
    without a dot is its own domain.
    """
    if ":" in host or host.rpartition(".")[2].isdigit():
        return ""
    return _suffixes().privatesuffix(host) or host


@cache
def _suffixes() -> PublicSuffixList:
    from publicsuffixlist import PublicSuffixList  # here, since it takes 0.1 s and 4 MiB

    return PublicSuffixList()


def _block(address: Address, port: int) -> str:
    """The address block of one owner: an IPv4 address or a /48 of IPv6, with the port."""
    if address.version == 6:
        inner = embedded_ipv4(address)
        if inner is None:
            return f"{int(address) >> 80:x}::/48 {port}"
        address = inner
    return f"{address} {port}"
