"""Calls are repeated while Redis is unavailable, and given up after the limit."""

from __future__ import annotations

from typing import Any

import pytest

from maskq.errors import StoreUnavailable
from maskq.ledger.calls import Call
from maskq_worker.jobs import retrying_ledger
from maskq_worker.jobs.retrying_ledger import RetryingLedger

CALL: Call[int] = Call(None, ("PING",), int)


class Unreliable:
    """A ledger that is unavailable for the first calls."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.calls = 0

    def run(self, call: Call[Any]) -> int:
        self.calls += 1
        if self.calls <= self.failures:
            raise StoreUnavailable("Redis is unavailable")
        return self.calls

    def run_both(self, first: Call[Any], second: Call[Any]) -> tuple[int, int]:
        return self.run(first), self.calls


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrying_ledger, "_RETRY_EVERY_S", 0.0)


def ledger_with(failures: int) -> RetryingLedger:
    unreliable: Any = Unreliable(failures)
    return RetryingLedger(unreliable)


def test_run_repeats_a_call_when_redis_is_unavailable() -> None:
    assert ledger_with(2).run(CALL) == 3


def test_run_both_repeats_the_calls_when_redis_is_unavailable() -> None:
    assert ledger_with(2).run_both(CALL, CALL) == (3, 3)


@pytest.mark.parametrize("method", ["run", "run_both"])
def test_a_call_is_given_up_when_the_outage_is_too_long(
    monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr(retrying_ledger, "_GIVE_UP_S", -1.0)
    arguments = [CALL] if method == "run" else [CALL, CALL]
    with pytest.raises(StoreUnavailable):
        getattr(ledger_with(1), method)(*arguments)
