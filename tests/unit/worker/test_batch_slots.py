"""Batches that have begun and not ended: what is launched behind them, and how they end."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import pytest
from support.threads import StartedThreads
from support.waiting import until

from maskq_worker.batching.batcher import MicroBatcher
from maskq_worker.batching.errors import BatcherClosed
from maskq_worker.batching.interface import BatchContext, EndedBatch

WAIT_S = 10.0  # far beyond what any of these takes


class Device:
    """Doubles numbers beside the thread that launches; each batch ends when it is told to."""

    def __init__(self, room: int = 99) -> None:
        """room: items that it holds together, else MemoryError."""
        self.launched: list[list[int]] = []
        self.entered = threading.Semaphore(0)
        self._room = room
        self._inside = 0
        self._may_end = threading.Semaphore(0)

    def submit_batch(self, batch: Sequence[int], context: BatchContext) -> OnDevice:
        if self._inside + len(batch) > self._room:
            raise MemoryError
        self._inside += len(batch)
        self.launched.append(list(batch))
        self.entered.release()
        return OnDevice(self, batch)

    def wait(self, batch: Sequence[int]) -> list[int | Exception]:
        assert self._may_end.acquire(timeout=WAIT_S)
        self._inside -= len(batch)
        if 13 in batch:
            raise ValueError("13 is poison")
        return [2 * item for item in batch]

    def end(self, batches: int = 1) -> None:
        self._may_end.release(batches)

    def wait_launched(self, batches: int = 1) -> None:
        for _ in range(batches):
            assert self.entered.acquire(timeout=WAIT_S)

    def launches_no_more(self) -> bool:
        return not self.entered.acquire(timeout=0.05)


@dataclass
class OnDevice:
    """A batch that has begun and not ended."""

    device: Device
    batch: Sequence[int]

    def wait(self) -> list[int | Exception]:
        return self.device.wait(self.batch)


@pytest.fixture
def device() -> Device:
    return Device()


@pytest.fixture
def ahead(device: Device) -> Iterator[MicroBatcher[int, int]]:
    """Two batches of at most two on the device."""
    batcher: MicroBatcher[int, int] = MicroBatcher(
        device, max_batch_size=2, name="model", max_running_batches=2
    )
    batcher.start()
    yield batcher
    device.end(99)
    batcher.close(timeout_s=WAIT_S)


def submitted(batcher: MicroBatcher[int, int], *items: int) -> list[Future[int]]:
    return [batcher.submit(item) for item in items]


def test_a_full_batch_is_launched_behind_the_one_that_computes(
    device: Device, ahead: MicroBatcher[int, int]
) -> None:
    first = ahead.submit(1)
    device.wait_launched()
    futures = submitted(ahead, 2, 3, 4, 5)
    device.wait_launched()

    assert device.launches_no_more()  # two at once: the third waits, though it is full
    assert device.launched == [[1], [2, 3]]
    assert not first.done()
    device.end(3)
    assert [future.result(WAIT_S) for future in (first, *futures)] == [2, 4, 6, 8, 10]
    assert device.launched == [[1], [2, 3], [4, 5]]


class Caller:
    """Doubles numbers in the thread that waits. A batch of 1 waits for `go_on` first."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.alone: list[bool] = []

    def submit_batch(self, batch: Sequence[int], context: BatchContext) -> InWait | EndedBatch[int]:
        self.alone.append(context.is_alone)
        context.heartbeat()
        if batch[0] == 10:
            assert self.go_on.wait(WAIT_S)
        if batch[0] >= 10:
            return EndedBatch([2 * item for item in batch])
        return InWait(self, batch)


@dataclass
class InWait:
    """A batch that is computed where it is waited for."""

    model: Caller
    batch: Sequence[int]

    def wait(self) -> list[int | Exception]:
        if 1 in self.batch:
            assert self.model.go_on.wait(WAIT_S)
        return [2 * item for item in self.batch]


def test_batches_side_by_side_end_in_any_order_and_one_that_hangs_is_seen() -> None:
    threads = StartedThreads()
    model = Caller()
    batcher: MicroBatcher[int, int] = MicroBatcher(
        model, max_batch_size=1, name="model", max_running_batches=2, side_by_side=True
    )
    batcher.start()
    slow = batcher.submit(1)
    until(lambda: batcher.busy_since() is not None)
    since = batcher.busy_since()

    # While the first hangs, others begin, make progress and end beside it
    for item in (2, 3, 14):
        assert batcher.submit(item).result(WAIT_S) == 2 * item
    until(lambda: batcher.busy_since() == since)
    assert not slow.done()

    model.go_on.set()
    assert slow.result(WAIT_S) == 2
    until(lambda: batcher.busy_since() is None)
    assert batcher.submit(5).result(WAIT_S) == 10
    assert model.alone == [True, False, False, False, True]
    batcher.close(timeout_s=WAIT_S)
    assert not threads.named("model-ends")


def test_what_has_ended_when_it_is_submitted_leaves_the_next_alone() -> None:
    model = Caller()
    batcher: MicroBatcher[int, int] = MicroBatcher(
        model, max_batch_size=1, name="model", max_running_batches=4, side_by_side=True
    )
    batcher.start()
    futures = [batcher.submit(10)]
    until(lambda: model.alone)
    futures += [batcher.submit(item) for item in (11, 12, 13, 14, 15)]
    model.go_on.set()
    assert [future.result(WAIT_S) for future in futures] == [20, 22, 24, 26, 28, 30]
    # Three that wait and the one that starts are enough for four slots
    assert model.alone == [True, False, False, True, True, True]
    batcher.close(timeout_s=WAIT_S)


def test_a_batch_with_room_stays_open_while_the_device_computes(
    device: Device, ahead: MicroBatcher[int, int]
) -> None:
    first = ahead.submit(1)
    device.wait_launched()
    second = ahead.submit(2)
    assert device.launches_no_more()
    third = ahead.submit(3)  # now it is full
    device.wait_launched()

    device.end(2)
    assert [one.result(WAIT_S) for one in (first, second, third)] == [2, 4, 6]
    assert device.launched == [[1], [2, 3]]


def test_a_batch_with_room_is_launched_when_the_device_is_free(
    device: Device, ahead: MicroBatcher[int, int]
) -> None:
    first = ahead.submit(1)
    device.wait_launched()
    second = ahead.submit(2)
    device.end()
    assert first.result(WAIT_S) == 2
    device.wait_launched()
    device.end()
    assert second.result(WAIT_S) == 4


def test_a_batch_that_fails_on_the_device_fails_alone(
    device: Device, ahead: MicroBatcher[int, int]
) -> None:
    first = ahead.submit(13)
    device.wait_launched()
    others = submitted(ahead, 2, 3)
    device.end(2)

    with pytest.raises(ValueError, match="13 is poison"):
        first.result(WAIT_S)
    assert [one.result(WAIT_S) for one in others] == [4, 6]


def test_what_does_not_fit_beside_another_batch_waits_until_it_has_ended() -> None:
    device = Device(room=2)
    batcher: MicroBatcher[int, int] = MicroBatcher(
        device, max_batch_size=2, name="model", max_running_batches=2
    )
    batcher.start()
    first = batcher.submit(1)
    device.wait_launched()
    others = submitted(batcher, 2, 3)  # raises MemoryError beside the first
    assert device.launches_no_more()
    device.end(2)

    assert [one.result(WAIT_S) for one in (first, *others)] == [2, 4, 6]
    assert device.launched == [[1], [2, 3]]  # whole, and not in halves
    batcher.close()


def test_busy_since_lasts_until_the_last_batch_on_the_device_has_ended(
    device: Device, ahead: MicroBatcher[int, int]
) -> None:
    first = ahead.submit(1)
    device.wait_launched()
    others = submitted(ahead, 2, 3)
    device.wait_launched()
    began = ahead.busy_since()
    device.end()
    first.result(WAIT_S)
    later = ahead.busy_since()
    device.end()
    others[1].result(WAIT_S)

    assert began is not None
    assert later is not None
    assert began < later  # the second has had the device only since then
    assert ahead.busy_since() is None


def test_close_waits_for_what_is_on_the_device(
    device: Device, ahead: MicroBatcher[int, int]
) -> None:
    futures = submitted(ahead, 1)
    device.wait_launched()
    futures += submitted(ahead, 2, 3, 4)
    device.end(3)
    ahead.close(timeout_s=WAIT_S)

    assert [future.result(0) for future in futures] == [2, 4, 6, 8]


def test_what_cuts_a_batch_off_leaves_nobody_waiting() -> None:
    class CutOff:
        def submit_batch(self, batch: Sequence[int], context: BatchContext) -> CutOff:
            return self

        def wait(self) -> list[int | Exception]:
            raise SystemExit

    batcher: MicroBatcher[int, int] = MicroBatcher(
        CutOff(), max_batch_size=2, name="model", max_running_batches=2
    )
    batcher.start()
    for _ in range(2):
        with pytest.raises(BatcherClosed, match="cut off"):
            batcher.submit(1).result(WAIT_S)
    batcher.close()


def test_fewer_than_one_running_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="max_running_batches is 0"):
        MicroBatcher(Device(), max_batch_size=1, name="model", max_running_batches=0)
