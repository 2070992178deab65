"""Calls to the ledger that are repeated while Redis is unavailable."""

from __future__ import annotations

import logging
import time
from typing import TypeVar

from maskq.errors import StoreUnavailable
from maskq.ledger import Ledger
from maskq.ledger.calls import Call, T

logger = logging.getLogger(__name__)

U = TypeVar("U")

_GIVE_UP_S = 120.0  # an outcome is kept this long for a Redis that is unavailable
_RETRY_EVERY_S = 0.5


class RetryingLedger:
    """Runs calls, and repeats them during an outage of Redis. Every call may be sent twice."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def run(self, call: Call[T]) -> T:
        """Run a call. Raises StoreUnavailable after an outage of two minutes."""
        outage = _RetryDeadline()
        while True:
            try:
                return self._ledger.run(call)
            except StoreUnavailable as error:
                outage.wait(error)

    def run_both(self, first: Call[T], second: Call[U]) -> tuple[T, U]:
        """Run two calls in one round trip. Raises as `run` does."""
        outage = _RetryDeadline()
        while True:
            try:
                return self._ledger.run_both(first, second)
            except StoreUnavailable as error:
                outage.wait(error)


class _RetryDeadline:
    """Counts the time since a call was first sent."""

    def __init__(self) -> None:
        self._ends_at = time.monotonic() + _GIVE_UP_S

    def wait(self, error: StoreUnavailable) -> None:
        """Wait before the next attempt. Raises `error` once the time is over."""
        if time.monotonic() > self._ends_at:
            raise error
        logger.warning("%s; trying again", error)
        time.sleep(_RETRY_EVERY_S)
