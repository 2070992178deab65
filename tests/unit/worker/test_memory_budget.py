"""Images share a process's memory: nobody is over, nobody starves."""

from __future__ import annotations

import threading
from collections.abc import Callable

from support.waiting import until

from maskq_worker.jobs.memory_budget import _MAX_OVERTAKES, MemoryBudget

LONG_S = 20.0


class Guest:
    """A thread in the budget, until it is sent away."""

    def __init__(self, budget: MemoryBudget, wanted: int) -> None:
        self.inside = threading.Event()
        self._leave = threading.Event()
        self._thread = threading.Thread(target=self._stay, args=(budget, wanted), daemon=True)
        self._thread.start()

    def _stay(self, budget: MemoryBudget, wanted: int) -> None:
        with budget.reservation(wanted):
            self.inside.set()
            self._leave.wait(LONG_S)

    def leave(self) -> None:
        self._leave.set()
        self._thread.join(LONG_S)
        assert not self._thread.is_alive()


def eventually(true: Callable[[], bool]) -> None:
    until(true, within_s=LONG_S)


def waiting(budget: MemoryBudget, number: int) -> None:
    eventually(lambda: len(budget._waiting) == number)


def test_who_fits_comes_in_and_who_does_not_waits_for_room() -> None:
    budget = MemoryBudget(10)
    first, second = Guest(budget, 6), Guest(budget, 4)
    assert first.inside.wait(LONG_S)
    assert second.inside.wait(LONG_S)
    third = Guest(budget, 5)
    waiting(budget, 1)
    assert not third.inside.is_set()
    first.leave()
    assert third.inside.wait(LONG_S)
    second.leave(), third.leave()


def test_what_is_larger_than_the_room_has_it_alone() -> None:
    budget = MemoryBudget(10)
    small = Guest(budget, 1)
    assert small.inside.wait(LONG_S)
    giant = Guest(budget, 99)
    waiting(budget, 1)
    small.leave()
    assert giant.inside.wait(LONG_S)
    later = Guest(budget, 1)
    waiting(budget, 1)
    giant.leave()
    assert later.inside.wait(LONG_S)
    later.leave()


def test_small_ones_pass_a_large_one_that_waits_but_not_for_ever() -> None:
    budget = MemoryBudget(10)
    holder = Guest(budget, 5)
    assert holder.inside.wait(LONG_S)
    large = Guest(budget, 8)
    waiting(budget, 1)
    for _ in range(_MAX_OVERTAKES):
        with budget.reservation(1):
            assert not large.inside.is_set()
    late = Guest(budget, 1)
    waiting(budget, 2)  # there would be budget, but it is the large one's turn
    holder.leave()
    assert large.inside.wait(LONG_S)
    assert late.inside.wait(LONG_S)
    large.leave(), late.leave()


def test_room_is_given_back_by_who_fails() -> None:
    budget = MemoryBudget(10)
    try:
        with budget.reservation(10):
            raise ValueError
    except ValueError:
        pass
    with budget.reservation(10):
        assert budget.reserved == 10
    assert budget.reserved == 0


def test_what_is_given_back_early_lets_others_in() -> None:
    budget = MemoryBudget(10)
    with budget.reservation(10) as mine:
        other = Guest(budget, 6)
        waiting(budget, 1)
        mine.shrink(4)
        eventually(lambda: budget.reserved == 10)
        mine.shrink(4)  # again: nothing
        assert budget.reserved == 10
        other.leave()
        eventually(lambda: budget.reserved == 4)
    assert (budget.reserved, budget.images) == (0, 0)


def test_two_that_want_more_do_not_wait_for_each_other() -> None:
    """Given two that share the budget, When both need all of it, Then one after the other has it."""
    budget, had = MemoryBudget(10), []

    def want_all() -> None:
        with budget.reservation(5) as mine:
            both.wait(10)
            mine.take(10)
            had.append(budget.reserved)

    both = threading.Barrier(2)
    threads = [threading.Thread(target=want_all) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert had == [10, 10]
    assert (budget.reserved, budget.images) == (0, 0)
