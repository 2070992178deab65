"""The statuses of a job: what each means, and whether it ends the job.

            submit                claim                 finish
    (none) ────────► queued ────────────────► running ────────► succeeded | failed
                      │  ▲                     │  │
                      │  └── release, lost ────┘  │
                      ├──► expired                └──► canceled, failed (timeout, worker_lost)
                      └──► canceled

Terminal states never change: a retry by the caller is a new job.

Event types, the counts of a batch, the names in Lua and the pages derive from this file. A new
terminal state is declared here, in `STATUS` of the gateway's `page/static/format.js`, and where it is
decided: `maskq_worker/jobs/runner.py` or a script of the ledger.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class JobStatus(StrEnum):
    QUEUED = "queued"
    """The job waits for a worker, or for its back-off to pass."""
    RUNNING = "running"
    """A worker holds the job's lease."""
    SUCCEEDED = "succeeded"
    """The result is in the store, and the record names it."""
    FAILED = "failed"
    """The job ended with an error, which the record holds."""
    CANCELED = "canceled"
    """The caller canceled the job before its commit."""
    EXPIRED = "expired"
    """The job did not start within its queue_ttl_s."""


@dataclass(frozen=True, slots=True)
class State:
    """What the rest of the contract says about a status."""

    event: str
    """Summary of the event of a job that enters it."""
    count: str = ""
    """Which jobs a batch counts under it; empty for a state that does not end a job."""
    has_result: bool = False
    """Whether the job left a result; otherwise a terminal state has an error."""

    @property
    def is_terminal(self) -> bool:
        """Whether it ends a job."""
        return bool(self.count)

    @property
    def may_retry(self) -> bool:
        """Whether the caller may retry a job that ended so."""
        return self.is_terminal and not self.has_result


STATES: Final[Mapping[JobStatus, State]] = MappingProxyType(
    {
        JobStatus.QUEUED: State("A job waits for a worker, for the first time or again."),
        JobStatus.RUNNING: State("A worker took a job."),
        JobStatus.SUCCEEDED: State(
            "A job has succeeded; its result is in the object store.",
            count="Jobs that left a result.",
            has_result=True,
        ),
        JobStatus.FAILED: State(
            "A job has ended without a result; `error` says why.",
            count="Jobs that ended with an error.",
        ),
        JobStatus.CANCELED: State(
            "The caller canceled a job.", count="Jobs that the caller canceled."
        ),
        JobStatus.EXPIRED: State(
            "A job was not started within its queue_ttl_s.",
            count="Jobs not started within their queue_ttl_s.",
        ),
    }
)

# In the order of JobStatus, which is that of the counts in a batch's event.
ENDED: Final = tuple(status for status in JobStatus if STATES[status].is_terminal)
TERMINAL: Final = frozenset(ENDED)
RETRYABLE: Final = tuple(status for status in JobStatus if STATES[status].may_retry)


def event_name(status: JobStatus) -> str:
    """The type of the event of a job that enters this status, without `maskq.`."""
    return f"job.{status.value}"


def either(statuses: tuple[JobStatus, ...]) -> str:
    """Statuses as part of a sentence: `failed, canceled or expired`."""
    *others, last = statuses
    return f"{', '.join(others)} or {last}" if others else last.value
