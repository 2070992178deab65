"""Back-off for a full queue, and tolerance for outages."""

from __future__ import annotations

import time

from maskq.backoff import QUEUE_FULL
from maskq.client.operations.flow import Sleep
from maskq.contract import FailureCode
from maskq.errors import StoreUnavailable

OUTAGE_S = 60.0  # that a store may be unavailable after it has answered once


class QueueFullBackoff:
    """Exponential back-off while the queue is full, for `timeout_s` seconds (None: no limit)."""

    def __init__(self, timeout_s: float | None) -> None:
        self._timeout_s = timeout_s
        self._waited_s = 0.0
        self._pauses = 0

    @property
    def time_is_up(self) -> bool:
        return self._timeout_s is not None and self._waited_s >= self._timeout_s

    def wait(self) -> Sleep:
        self._pauses += 1
        pause_s = QUEUE_FULL.pause_s(self._pauses)
        self._waited_s += pause_s
        return Sleep(pause_s)

    def found(self, *, for_all: bool = True) -> None:
        """The queue took jobs: restart the time. for_all: it took all jobs, so reset the pause too."""
        self._waited_s = 0.0
        if for_all:
            self._pauses = 0


class OutageTolerance:
    """Decides how long an outage is tolerated: not at all before the store has answered once."""

    def __init__(self, outage_s: float = OUTAGE_S) -> None:
        self._outage_s = outage_s
        self._tolerated_until = float("-inf")

    def answered(self) -> None:
        self._tolerated_until = time.monotonic() + self._outage_s

    def ends_with(self, error: StoreUnavailable) -> bool:
        """Whether to stop retrying."""
        passing = error.code is FailureCode.STORE_UNAVAILABLE
        return not passing or time.monotonic() > self._tolerated_until
