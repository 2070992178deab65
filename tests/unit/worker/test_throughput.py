"""Jobs a second of the last minute."""

from __future__ import annotations

import pytest

from maskq_worker.telemetry.throughput import WINDOW_S, Throughput


class Clock:
    now = 1000.5

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_jobs_of_the_last_minute_count(clock: Clock) -> None:
    throughput = Throughput(clock)
    clock.now += WINDOW_S
    for _ in range(120):
        throughput.count()
    assert throughput.per_s == 2.0
    clock.now += WINDOW_S - 1
    assert throughput.per_s == 2.0
    clock.now += 1
    assert throughput.per_s == 0.0


def test_a_young_process_counts_by_its_age(clock: Clock) -> None:
    throughput = Throughput(clock)
    clock.now += 4
    for _ in range(8):
        throughput.count()
    assert throughput.per_s == 2.0


def test_a_slot_is_used_again_after_a_minute(clock: Clock) -> None:
    throughput = Throughput(clock)
    for _ in range(3 * WINDOW_S):
        throughput.count()
        clock.now += 1
    # the second of the last count is over, so 59 of the last 60 seconds have one
    assert throughput.per_s == pytest.approx(59 / 60)
