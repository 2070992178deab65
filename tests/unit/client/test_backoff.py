"""Back-off strategies, by tables."""

from __future__ import annotations

import pytest

from maskq.backoff import ExponentialBackoff, Jitter, RetrySchedule


@pytest.mark.parametrize(
    ("backoff", "pauses_s"),
    [
        (ExponentialBackoff(0.5, 3.0), [0.5, 1.0, 2.0, 3.0, 3.0]),
        (ExponentialBackoff(1.0, 30.0, immediate=1), [0.0, 1.0, 2.0, 4.0, 8.0]),
    ],
)
def test_pause_doubles_up_to_its_limit(backoff: ExponentialBackoff, pauses_s: list[float]) -> None:
    assert [backoff.pause_s(failures) for failures in range(1, 6)] == pauses_s


def test_pause_stays_at_its_limit_after_thousands_of_failures() -> None:
    assert ExponentialBackoff(0.1, 2.0).pause_s(100_000) == 2.0


def test_jitter_stays_between_its_bounds() -> None:
    backoff = ExponentialBackoff(1.0, 60.0, jitter=Jitter(0.5, 1.0))
    pauses = {backoff.pause_s(3) for _ in range(100)}
    assert len(pauses) > 1
    assert all(2.0 <= pause <= 4.0 for pause in pauses)


def test_schedule_ends_after_its_last_pause() -> None:
    schedule = RetrySchedule((5.0, 300.0))
    assert [schedule.pause_s(failures) for failures in (1, 2, 3)] == [5.0, 300.0, None]
