"""Jobs run together; a suspect runs alone."""

from __future__ import annotations

import threading
import time

from support.waiting import until

from maskq_worker.jobs.read_write_lock import ReadWriteLock


def test_a_suspect_waits_for_the_others_and_keeps_new_ones_out() -> None:
    # Given two jobs inside
    gate, order, release = ReadWriteLock(), [], threading.Event()
    inside = threading.Barrier(3)

    def job(name: str) -> None:
        with gate.shared():
            inside.wait(30)
            release.wait(60)
            order.append(name)

    def suspect() -> None:
        with gate.alone():
            order.append("suspect in")
            time.sleep(0.05)
            order.append("suspect out")

    def latecomer() -> None:
        with gate.shared():
            order.append("latecomer")

    jobs = [threading.Thread(target=job, args=(name,)) for name in ("a", "b")]
    for thread in jobs:
        thread.start()
    inside.wait(30)

    # When a suspect comes, and another job after it
    alone = threading.Thread(target=suspect)
    alone.start()
    until(lambda: gate.is_wanted_alone)
    late = threading.Thread(target=latecomer)
    late.start()
    time.sleep(0.05)
    assert order == []

    # Then the suspect runs when both are out, and the latecomer after it
    release.set()
    for thread in (*jobs, alone, late):
        thread.join(60)
    assert sorted(order[:2]) == ["a", "b"]
    assert order[2:] == ["suspect in", "suspect out", "latecomer"]
