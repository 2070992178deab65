"""The ledger's rules once more, in Python and without a clock: what a job must be after every call.

It follows contract/jobs.py and the scripts' documentation, not their text. Time is a set of flags: that
a lease, a deadline or a back-off is over, the test decides and then writes into Redis.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from maskq.contract import TERMINAL, JobStatus
from maskq.ledger.calls import ClaimOutcome, ReleaseOutcome

QUEUED, RUNNING = JobStatus.QUEUED, JobStatus.RUNNING


@dataclass
class ModelJob:
    queue: str
    max_attempts: int
    batch: str | None = None
    status: JobStatus = QUEUED
    attempt: int = 0
    charges: int = 0
    token: str = ""  # of the holder, or of who finished it
    exclusive: bool = False  # as claimed last
    alone: bool = False  # lost a worker once: runs only alone from then on
    has_message: bool = True  # while queued: `sent`, else `waiting`
    too_early: bool = False  # its back-off is not over
    wait_over: bool = False  # the sweeper may send it
    lease_over: bool = False
    ttl_over: bool = False
    run_over: bool = False
    released: tuple[str, ReleaseOutcome] = ("", ReleaseOutcome.LOST)
    history: list[str] = field(default_factory=lambda: ["queued:0"])  # ids of its events

    @property
    def ended(self) -> bool:
        return self.status in TERMINAL

    @property
    def places(self) -> set[str]:
        """The sorted sets that must list the job."""
        if self.ended:
            return {"ended"}
        if self.status is RUNNING:
            return {"leases", "deadlines"}
        return {"sent" if self.has_message else "waiting", "deadlines"}

    def claim(self, token: str, *, exclusive: bool) -> ClaimOutcome:
        if self.ended:
            return ClaimOutcome.ENDED
        if self.status is RUNNING:
            return ClaimOutcome.CLAIMED if token == self.token else ClaimOutcome.HELD
        if self.ttl_over:
            self._end(JobStatus.EXPIRED)
            return ClaimOutcome.EXPIRED
        if self.too_early:
            return ClaimOutcome.EARLY
        if self.alone and not exclusive:
            self.has_message = self.wait_over = False
            return ClaimOutcome.ALONE
        self.status, self.token, self.exclusive = RUNNING, token, exclusive
        self.attempt += 1
        self.lease_over = self.run_over = False
        self.history.append(f"running:{self.attempt}")
        return ClaimOutcome.CLAIMED

    def renew(self, token: str) -> bool:
        """Whether the token holds the job."""
        if self.status is not RUNNING or token != self.token:
            return False
        self.lease_over = False
        return True

    def finish(self, token: str, state: JobStatus) -> bool:
        if not token or token != self.token:
            return False
        if self.status is RUNNING:
            self._end(state, token)
            return True
        return self.status is state

    def release(self, token: str, *, charged: bool, delayed: bool) -> ReleaseOutcome:
        if token == self.released[0]:
            return self.released[1]
        if self.status is not RUNNING or token != self.token:
            return ReleaseOutcome.LOST
        outcome = self._give_back(charged=charged, delayed=delayed)
        self.released = (token, outcome)
        return outcome

    def cancel(self) -> JobStatus:
        if not self.ended:
            self._end(JobStatus.CANCELED)
        return self.status

    def reap(self) -> bool:
        if self.status is not RUNNING or not self.lease_over:
            return False
        self.alone = True
        self._give_back(charged=self.exclusive, delayed=False)
        return True

    def come_due(self) -> bool:
        if self.status is QUEUED and self.ttl_over:
            self._end(JobStatus.EXPIRED)
        elif self.status is RUNNING and self.run_over:
            self._end(JobStatus.FAILED)
        else:
            return False
        return True

    def send_after_wait(self) -> bool:
        if self.status is not QUEUED or self.has_message or not self.wait_over:
            return False
        self.has_message, self.too_early = True, False
        return True

    def _give_back(self, *, charged: bool, delayed: bool) -> ReleaseOutcome:
        self.charges += charged
        if self.charges >= self.max_attempts:
            self._end(JobStatus.FAILED)
            return ReleaseOutcome.FAILED
        self.status, self.token = QUEUED, ""
        self.has_message, self.too_early, self.wait_over = not delayed, delayed, False
        self.history.append(f"queued:{self.attempt}")
        return ReleaseOutcome.QUEUED

    def _end(self, status: JobStatus, token: str = "") -> None:
        self.status, self.token = status, token
        self.history.append(status.value)
