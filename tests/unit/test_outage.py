"""While the store is away nobody claims; one probe tells all that it is back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from maskq_worker.outage import Outage

WAIT_S = 10.0


class Store:
    def __init__(self) -> None:
        self.up = threading.Event()
        self.probed = threading.Semaphore(0)

    def answers(self) -> bool:
        self.probed.release()
        return self.up.is_set()


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr("maskq_worker.outage._PROBE_EVERY_S", 0.01)
    return Store()


@pytest.fixture
def outage(store: Store) -> Iterator[Outage]:
    made = Outage(store.answers)
    yield made
    made.close()


def test_without_an_outage_nobody_waits_and_nothing_is_probed(store: Store, outage: Outage) -> None:
    assert outage.wait() is True
    assert outage.none
    assert not store.probed.acquire(timeout=0.05)


def test_all_wait_until_the_store_answers(store: Store, outage: Outage) -> None:
    before = set(threading.enumerate())
    outage.report()
    outage.report()  # the second to notice
    assert not outage.none
    (prober,) = set(threading.enumerate()) - before
    with ThreadPoolExecutor(3) as pool:
        waits = [pool.submit(outage.wait) for _ in range(3)]
        for _ in range(3):
            assert store.probed.acquire(timeout=WAIT_S)
        assert not any(wait.done() for wait in waits)
        store.up.set()
        assert [wait.result(WAIT_S) for wait in waits] == [True] * 3
    prober.join(WAIT_S)
    assert not prober.is_alive()


def test_it_can_happen_again(store: Store, outage: Outage) -> None:
    store.up.set()
    for _ in range(2):
        outage.report()
        assert outage.wait() is True


def test_a_worker_that_stops_lets_them_go_without_a_claim(outage: Outage) -> None:
    outage.report()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(outage.wait)
        outage.close()
        assert waiting.result(WAIT_S) is False
    assert outage.wait() is False
