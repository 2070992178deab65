"""How many messages a worker may take."""

from __future__ import annotations

from maskq_worker.broker.slots import Slots


def test_slots_that_are_taken_are_not_free() -> None:
    slots = Slots(2)
    slots.take()
    assert slots.free == 1
    slots.take()
    assert slots.free == 0
    slots.release()
    assert slots.free == 1


def test_stalled_threads_are_replaced_by_at_most_as_many_as_there_are_slots() -> None:
    stalled = 1
    slots = Slots(2, stalled=lambda: stalled)
    slots.take()
    slots.take()
    assert slots.free == 1
    stalled = 5
    assert slots.free == 2
    slots.take()
    slots.take()
    assert slots.free == 0
    assert slots.threads == 4


def test_nothing_is_taken_while_replaced_threads_go_on() -> None:
    stalled = 1
    slots = Slots(1, stalled=lambda: stalled)
    slots.take()
    slots.take()
    stalled = 0
    assert slots.free < 0
