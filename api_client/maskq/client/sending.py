"""Submissions to the ledger: their answers, a queue without room, a store that is away for a moment."""

from __future__ import annotations

import time
from collections.abc import Sequence

from maskq.client.operations.flow import Flow, Pipeline, Sleep
from maskq.contract import FailureCode
from maskq.errors import StoreUnavailable
from maskq.ledger import calls
from maskq.ledger.calls import Call, SubmitOutcome, Submitted

NO_ROOM = (SubmitOutcome.FULL, SubmitOutcome.TENANT_FULL)
_ROOM_PAUSE_S = (0.1, 2.0)  # first and longest pause before a full queue is asked again
_FSYNC_S = 4.0  # below the socket's timeout
OUTAGE_S = 60.0  # that a store which answered before may stay away


def sent(submissions: Sequence[Call[Submitted]], durable: bool) -> Flow[list[Submitted]]:
    """The answers, in order. `durable`: once Redis has them on disk."""
    if not durable:
        return list((yield Pipeline(submissions)))
    yield calls.fsync(0.001)  # where it is not to be had, nothing must have been submitted
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
    """Waiting for room in a full queue: longer each time, `timeout_s` in all (None: without end)."""

    def __init__(self, timeout_s: float | None) -> None:
        self._timeout_s = timeout_s
        self._waited_s = 0.0
        self._pause_s = _ROOM_PAUSE_S[0]

    @property
    def time_is_up(self) -> bool:
        return self._timeout_s is not None and self._waited_s >= self._timeout_s

    def wait(self) -> Sleep:
        pause = Sleep(self._pause_s)
        self._waited_s += self._pause_s
        self._pause_s = min(2 * self._pause_s, _ROOM_PAUSE_S[1])
        return pause

    def found(self, *, for_all: bool = True) -> None:
        """There was some. A queue that is full again at once is not asked more often."""
        self._waited_s = 0.0
        if for_all:
            self._pause_s = _ROOM_PAUSE_S[0]


class OutageTolerance:
    """With a store that is away for a moment. One that never answered is not waited for."""

    def __init__(self, outage_s: float = OUTAGE_S) -> None:
        self._outage_s = outage_s
        self._until = float("-inf")

    def answered(self) -> None:
        self._until = time.monotonic() + self._outage_s

    def ends_with(self, error: StoreUnavailable) -> bool:
        """Whether another try is of no use."""
        passing = error.code is FailureCode.STORE_UNAVAILABLE
        return not passing or time.monotonic() > self._until
