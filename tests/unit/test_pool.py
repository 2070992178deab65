"""A thread that becomes free tells the main loop, or the next message waits for its timer."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from kombu.asynchronous import get_event_loop, set_event_loop

from maskq_worker.pool import TaskPool


class Loop:
    """Stands in for kombu's hub: only notes that it was woken."""

    def __init__(self) -> None:
        self.woken = threading.Event()

    def call_soon(self, callback: object) -> None:
        self.woken.set()


@pytest.fixture
def loop() -> Iterator[Loop]:
    before = get_event_loop()
    made = Loop()
    set_event_loop(made)
    yield made
    set_event_loop(before)


def test_the_loop_is_woken_when_a_task_is_over_and_not_before(loop: Loop) -> None:
    # Given a task that runs
    pool, gate, reported = TaskPool(1), threading.Event(), []
    pool.on_apply(gate.wait, (5,), {}, callback=reported.append)
    assert not loop.woken.wait(0.1)

    # When it ends
    gate.set()

    # Then the loop hears of it, after Celery has taken note of the end
    assert loop.woken.wait(5)
    assert reported == [True]
    pool.on_stop()
