"""Sending submissions to the ledger; back-off for a full queue, tolerance for outages."""

from __future__ import annotations

import time
from collections.abc import Sequence

from maskq.backoff import QUEUE_FULL
from maskq.client.operations.flow import Flow, Pipeline, Sleep
from maskq.contract import FailureCode
from maskq.errors import StoreUnavailable
from maskq.ledger import calls
from maskq.ledger.calls import Call, SubmitOutcome, Submitted

NO_ROOM = (SubmitOutcome.FULL, SubmitOutcome.TENANT_FULL)
_FSYNC_S = 4.0  # below the socket's timeout
OUTAGE_S = 60.0  # that a store may be unavailable after it has answered once


def sent(submissions: Sequence[Call[Submitted]], durable: bool) -> Flow[list[Submitted]]:
    """The answers, in order. `durable`: wait until Redis has written the jobs to disk."""
    if not durable:
        return list((yield Pipeline(submissions)))
    yield calls.fsync(0.001)  # raises before anything is submitted if Redis cannot do it
    answers: list[Submitted] = list((yield Pipeline(submissions)))
    if all(answer.outcome in NO_ROOM for answer in answers):
        return answers
    *_, safe = yield Pipeline([calls.touch(), calls.fsync(_FSYNC_S)])
    if not safe:
        raise StoreUnavailable(
            f"Redis did not confirm within {_FSYNC_S:g} s that the job is on disk; it may "
            f"still run: submit again with the same idempotency_key"
        )
    return answers


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
