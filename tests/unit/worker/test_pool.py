"""A thread that becomes free tells the main loop, or the next message waits for its timer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest
from celery.worker import state
from kombu.asynchronous import get_event_loop, set_event_loop

from maskq_worker.broker.pool import TaskPool
from maskq_worker.broker.slots import Slots


class Loop:
    """Stands in for kombu's hub: only notes that it was woken."""

    def __init__(self) -> None:
        self.woken = threading.Event()

    def call_soon(self, callback: object) -> None:
        self.woken.set()


def pool_of(threads: int) -> TaskPool:
    return TaskPool(threads, app=SimpleNamespace(slots=Slots(threads)))


@pytest.fixture
def loop() -> Iterator[Loop]:
    before = get_event_loop()
    made = Loop()
    set_event_loop(made)
    yield made
    set_event_loop(before)


def test_the_loop_is_woken_when_a_task_is_over_and_not_before(loop: Loop) -> None:
    # Given a task that runs
    pool, gate, reported = pool_of(1), threading.Event(), []
    pool.on_apply(gate.wait, (5,), {}, callback=reported.append)
    assert not loop.woken.wait(0.1)

    # When it ends
    gate.set()

    # Then the loop hears of it, after Celery has taken note of the end
    assert loop.woken.wait(30)
    assert reported == [True]
    pool.on_stop()


class Request:
    """Stands in for Celery's: its `on_success` is what ends it."""

    id = "a"

    def on_success(self, result: object) -> None:
        raise ValueError("Celery's own handling of the end fails")


def fails() -> None:
    raise ValueError("before the task itself began")


@pytest.mark.parametrize("target", [fails, lambda: None])
def test_a_slot_is_free_again_however_a_task_ends(
    loop: Loop, target: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    # Given a request that Celery counts as reserved
    pool, request = pool_of(1), Request()
    state.task_reserved(request)

    # When an error leaves Celery's hands, so that Celery never counts it as ready
    pool.on_apply(target, (), {}, callback=request.on_success)
    assert loop.woken.wait(30)

    # Then the thread is free, nothing is kept, and the log has the error
    assert pool.slots.free == 1
    assert "a" not in state.requests
    assert request not in state.reserved_requests
    assert "ValueError" in caplog.text
    pool.on_stop()


def test_a_slot_is_taken_while_a_task_runs_and_free_where_none_could_be_started(loop: Loop) -> None:
    pool, gate = pool_of(2), threading.Event()
    pool.on_apply(gate.wait, (5,), {}, callback=print)
    assert pool.slots.free == 1
    gate.set()
    assert loop.woken.wait(30)
    assert pool.slots.free == 2
    pool.on_stop()
    with pytest.raises(RuntimeError):
        pool.on_apply(gate.wait, (5,), {}, callback=print)
    assert pool.slots.free == 2
