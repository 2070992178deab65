"""Sending submissions to the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from maskq.client.operations.flow import Flow, Pipeline
from maskq.errors import StoreUnavailable
from maskq.ledger import calls
from maskq.ledger.calls import Call, SubmitOutcome, Submitted

NO_ROOM: Final = (
    SubmitOutcome.FULL,
    SubmitOutcome.TENANT_FULL,
    SubmitOutcome.RATE_EXCEEDED,
)
_FSYNC_S: Final = 4.0  # below the socket's timeout


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
