"""Slow receivers leave room for the others, however many names they have."""

from __future__ import annotations

import ipaddress
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from maskq.safe_http import Address
from maskq_worker import bulkhead
from maskq_worker.bulkhead import (
    BoundCall,
    Bulkhead,
    Busy,
    Share,
    Standing,
    host_of,
    registered_domain,
)

SHARES = {
    Standing.FAST: Share(total=16, host=4, wider=8),
    Standing.UNKNOWN: Share(total=8, host=1, wider=2),
    Standing.SLOW: Share(total=4, host=2, wider=2),
}


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(bulkhead, "time", made)
    return made


@pytest.fixture
def rooms(clock: Clock) -> Bulkhead:
    return Bulkhead(16, SHARES)


def address(text: str) -> Address:
    return ipaddress.ip_address(text)


def entered(rooms: Bulkhead, host: str, at: str = "", port: int = 443) -> BoundCall | None:
    """A call that runs, connected to `at`; None: there is no room for it."""
    try:
        call = rooms.enter(host, port)
    except Busy:
        return None
    try:
        call.resolved([address(at or _own_address(host))])
    except Busy:
        rooms.leave(call)
        return None
    call.connected(address(at or _own_address(host)))
    return call


def _own_address(host: str) -> str:
    return str(ipaddress.IPv4Address(0x08000000 + zlib.crc32(host.encode()) % 2**24))


def prove(rooms: Bulkhead, host: str, clock: Clock, *, took_s: float = 0.1, size: int = 0) -> None:
    call = entered(rooms, host)
    assert call
    call.add_transferred(size)
    clock.now += took_s
    rooms.leave(call)


def many(rooms: Bulkhead, hosts: Iterator[str], at: str = "") -> list[BoundCall]:
    return [call for host in hosts if (call := entered(rooms, host, at))]


def test_thousands_of_names_of_one_address_take_two_places(rooms: Bulkhead) -> None:
    assert len(many(rooms, (f"host.evil-{n}.com" for n in range(2000)), at="1.2.3.4")) == 2
    assert entered(rooms, "new.example")


def test_thousands_of_names_below_one_domain_take_two_places(rooms: Bulkhead) -> None:
    assert len(many(rooms, (f"x{n}.a.evil.co.uk" for n in range(2000)))) == 2
    assert entered(rooms, "good.co.uk")


@pytest.mark.parametrize("standing", [Standing.UNKNOWN, Standing.SLOW])
def test_hosts_that_are_not_fast_leave_room_for_those_that_are(
    rooms: Bulkhead, clock: Clock, standing: Standing
) -> None:
    prove(rooms, "good.example", clock)
    if standing is Standing.SLOW:
        for n in range(10):
            prove(rooms, f"evil-{n}.com", clock, took_s=20.0)
    kept = many(rooms, (f"evil-{n}.com" for n in range(40 if standing is Standing.UNKNOWN else 10)))
    assert len(kept) == SHARES[standing].total
    assert len(many(rooms, iter(["good.example"] * 9))) == 4


def test_slow_hosts_leave_room_for_unknown_ones(rooms: Bulkhead, clock: Clock) -> None:
    for n in range(10):
        prove(rooms, f"evil-{n}.com", clock, took_s=20.0)
    many(rooms, (f"evil-{n}.com" for n in range(10)))
    assert entered(rooms, "new.example")


def test_a_host_must_be_fast_before_it_is_called_many_times_at_once(
    rooms: Bulkhead, clock: Clock
) -> None:
    first = entered(rooms, "a.example")
    assert first
    assert not entered(rooms, "a.example")
    rooms.leave(first)
    assert len(many(rooms, iter(["a.example"] * 9))) == 4


def test_one_slow_call_makes_a_fast_host_a_slow_one(rooms: Bulkhead, clock: Clock) -> None:
    prove(rooms, "a.example", clock)
    prove(rooms, "a.example", clock, took_s=20.0)
    assert len(many(rooms, iter(["a.example"] * 9))) == 2


def test_a_slow_host_is_unknown_again_after_a_while_and_fast_when_it_is(
    rooms: Bulkhead, clock: Clock
) -> None:
    prove(rooms, "a.example", clock, took_s=20.0)
    call = rooms.enter("a.example", 443)
    assert call.standing is Standing.SLOW
    rooms.leave(call)
    clock.now += 301
    call = rooms.enter("a.example", 443)
    assert call.standing is Standing.UNKNOWN
    rooms.leave(call)
    prove(rooms, "a.example", clock)
    assert rooms.enter("a.example", 443).standing is Standing.FAST


def test_many_bytes_may_take_their_time(rooms: Bulkhead, clock: Clock) -> None:
    prove(rooms, "big.example", clock, took_s=20.0, size=60 * 2**20)
    assert rooms.enter("big.example", 443).standing is Standing.FAST


def test_an_error_before_a_connection_proves_nothing(rooms: Bulkhead, clock: Clock) -> None:
    rooms.leave(rooms.enter("a.example", 443))
    assert rooms.enter("a.example", 443).standing is Standing.UNKNOWN
    dead = rooms.enter("dead.example", 443)
    clock.now += 9  # its name servers, and the attempt to connect
    rooms.leave(dead)
    assert rooms.enter("dead.example", 443).standing is Standing.SLOW


def test_a_name_that_also_has_the_address_of_another_takes_none_of_its_room(
    rooms: Bulkhead,
) -> None:
    both = [address("6.6.6.6"), address("1.1.1.1")]
    for n in range(2):
        call = rooms.enter(f"evil-{n}.com", 443)
        assert call.resolved(both) == tuple(both)
        call.connected(both[0])
    assert entered(rooms, "victim.example", at="1.1.1.1")
    # The address that is full is left out, the other is called.
    call = rooms.enter("evil-3.com", 443)
    assert call.resolved(both) == (both[1],)


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("2001:db8:1::1", "2001:db8:1:ffff::2", True),
        ("2001:db8:1::1", "2001:db8:2::1", False),
        ("64:ff9b::102:304", "1.2.3.4", True),
        ("64:ff9b::102:304", "64:ff9b::102:305", False),
        ("::ffff:1.2.3.4", "1.2.3.4", True),
    ],
)
def test_addresses_that_one_owner_has_count_as_one(first: str, second: str, same: bool) -> None:
    assert (bulkhead._block(address(first), 443) == bulkhead._block(address(second), 443)) is same


@pytest.mark.parametrize(
    ("host", "domain"),
    [
        ("a.b.example.com", "example.com"),
        ("a.example.co.uk", "example.co.uk"),
        ("somebody.github.io", "somebody.github.io"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("localhost", "localhost"),
        ("com", "com"),
        ("127.0.0.1", ""),
        ("::1", ""),
    ],
)
def test_registered_domains(host: str, domain: str) -> None:
    assert registered_domain(host) == domain


@pytest.mark.parametrize(
    "url",
    [
        "https://Example.COM/a",
        "https://example.com.:443/b",
        "https://user:x@example.com/",
        "https://\uff45xample.com/",
    ],
)
def test_one_host_however_it_is_written(url: str) -> None:
    assert host_of(url) == ("example.com", 443)


@pytest.mark.parametrize("url", ["https://[::1/", "https://a:x/", "", "https://" + "ü" * 80 + "/"])
def test_what_is_not_a_url_has_no_host(url: str) -> None:
    assert host_of(url)[0] == ""


def test_where_others_are_slow_a_call_is_tried_again_later(rooms: Bulkhead, clock: Clock) -> None:
    entered(rooms, "a.example")
    with pytest.raises(Busy) as soon:
        rooms.enter("a.example", 443)
    assert soon.value.retry_s < 0.2
    clock.now += 10
    with pytest.raises(Busy) as late:
        rooms.enter("a.example", 443)
    assert 10 <= late.value.retry_s <= 22.5


def test_a_call_waits_for_young_calls_and_not_for_old_ones() -> None:
    rooms = Bulkhead(1, SHARES, max_wait_s=20.0)
    first = rooms.enter("a.example", 443)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(rooms.enter, "b.example", 443)
        while not rooms._changed._waiters:  # type: ignore[attr-defined]
            threading.Event().wait(0.005)
        rooms.leave(first)
        second = waiting.result(10)
    second.began -= 30
    began = time.monotonic()
    with pytest.raises(Busy):
        rooms.enter("c.example", 443)
    assert time.monotonic() - began < 15  # a call that waits does so for twenty


def test_no_more_than_ten_thousand_hosts_are_remembered(
    rooms: Bulkhead, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulkhead, "_KEPT", 10)
    prove(rooms, "good.example", clock)
    for n in range(50):
        prove(rooms, f"slow-{n}.com", clock, took_s=20.0)
    assert rooms.enter("good.example", 443).standing is Standing.FAST
    for n in range(50):
        prove(rooms, f"fast-{n}.com", clock)
    assert (len(rooms._fast), len(rooms._slow)) == (10, 10)


def test_the_list_of_suffixes_is_read_when_a_url_is_called_and_not_before() -> None:
    code = "import sys, maskq_worker.webhooks; print('publicsuffixlist' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
