"""A worker that is alive and takes nothing is found; one whose neighbours take everything is not."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from support import ledger_harness
from support.ledger_harness import MODEL, LedgerHarness

from maskq.errors import StoreUnavailable
from maskq_worker.broker import consumer_watch, slots
from maskq_worker.broker.consumer_watch import ConsumerWatch
from maskq_worker.broker.slots import Slots
from maskq_worker.jobs.leases import HeldJob

harness = ledger_harness.harness


class Scene:
    """A worker with two threads, a clock, and what it holds."""

    def __init__(self, harness: LedgerHarness, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        clock = SimpleNamespace(monotonic=lambda: self.now)
        monkeypatch.setattr(consumer_watch, "time", clock)
        monkeypatch.setattr(slots, "time", clock)
        self.slots = Slots(2)
        self.held: list[HeldJob] = []
        self.may_claim = True
        leases: Any = SimpleNamespace(holding=lambda: self.held)
        self.watch = ConsumerWatch(
            harness.ledger,
            MODEL,
            slots=self.slots,
            leases=leases,
            may_claim=lambda: self.may_claim,
            stuck_after_s=60,
        )

    def pass_time(self, seconds: float, meanwhile: Callable[[], Any] = lambda: None) -> bool:
        """Checks every five seconds. Returns whether any check found the worker stuck."""
        found = False
        for _ in range(int(seconds / 5)):
            self.now += 5
            meanwhile()
            self.watch.check()
            found |= self.watch.is_stuck
        return found


@pytest.fixture
def scene(harness: LedgerHarness, monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(harness, monkeypatch)


@pytest.mark.parametrize("where", ["tickets", "callers"])
def test_who_takes_nothing_although_there_is_work_is_stuck(
    harness: LedgerHarness, scene: Scene, where: str
) -> None:
    harness.redis.lpush(harness.queue if where == "tickets" else harness.prefix, "a message")
    assert not scene.pass_time(60)
    assert scene.pass_time(10)


def test_who_takes_something_again_is_well_again(harness: LedgerHarness, scene: Scene) -> None:
    harness.submit()
    assert scene.pass_time(70)
    scene.slots.take()
    scene.watch.check()
    assert not scene.watch.is_stuck


def test_an_idle_worker_is_well(scene: Scene) -> None:
    assert not scene.pass_time(300)


def test_a_worker_that_takes_now_and_then_is_well(harness: LedgerHarness, scene: Scene) -> None:
    harness.submit_many(5)
    for _ in range(5):
        assert not scene.pass_time(50)
        scene.slots.take()
        scene.slots.release()


def test_others_that_take_everything_raise_no_alarm(harness: LedgerHarness, scene: Scene) -> None:
    """Work is there at nearly every look, and never stays."""
    looks = iter(range(1000))

    def meanwhile() -> None:
        harness.redis.delete(harness.queue)
        if next(looks) % 8:
            harness.redis.lpush(harness.queue, "a ticket")

    assert not scene.pass_time(600, meanwhile)


def test_a_worker_that_is_busy_with_long_jobs_is_well(harness: LedgerHarness, scene: Scene) -> None:
    harness.submit_many(5)
    for name in ("a", "b"):
        scene.slots.take()
        scene.held.append(HeldJob(name, "token"))
    assert not scene.pass_time(600)


def test_threads_that_hang_on_jobs_they_have_lost_are_found(
    harness: LedgerHarness, scene: Scene
) -> None:
    harness.submit_many(5)
    for name in ("a", "b"):
        scene.slots.take()
        scene.held.append(HeldJob(name, "token"))
        scene.held[-1].mark_lost()
    assert scene.pass_time(70)


def test_while_the_object_store_is_away_nothing_need_be_taken(
    harness: LedgerHarness, scene: Scene
) -> None:
    harness.submit_many(5)
    scene.may_claim = False
    assert not scene.pass_time(600)
    scene.may_claim = True
    assert not scene.pass_time(55)  # it has as long as anybody else from here


def test_a_redis_that_is_away_is_no_alarm(
    harness: LedgerHarness, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness.submit_many(5)

    def away(*_: Any) -> None:
        raise StoreUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(harness.ledger, "run_many", away)
        assert not scene.pass_time(300)
    assert not scene.pass_time(55)
    assert scene.pass_time(15)
