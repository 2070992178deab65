"""The ledger's rules once more, in Python and without a clock: what a job must be after every call.

It follows contract/statuses.py and the scripts' documentation, not their text. Time is a set of flags:
that a lease, a deadline or a back-off is over, the test decides and then writes into Redis.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from maskq.contract import TERMINAL, JobStatus
from maskq.ledger.calls import ClaimOutcome, ReleaseOutcome

QUEUED, RUNNING = JobStatus.QUEUED, JobStatus.RUNNING
STRIDE: Final = 7_207_200  # of virtual time, at the weight 1
WEIGHTS: Final = {"high": 6, "normal": 3, "low": 1}  # a tie goes to the most urgent


@dataclass
class ModelJob:
    job_id: str
    level: str
    tenant: str
    created_ms: int
    max_attempts: int
    batch: str | None = None
    status: JobStatus = QUEUED
    attempt: int = 0
    charges: int = 0
    token: str = ""  # of the holder, or of who finished it
    exclusive: bool = False  # as claimed last
    alone: bool = False  # lost a worker once: runs only alone from then on
    ready: bool = True  # while queued: to be had by a ticket, else it waits
    too_early: bool = False  # its back-off is not over
    wait_over: bool = False  # the sweeper may offer it
    lease_over: bool = False
    ttl_over: bool = False
    run_over: bool = False
    deleted: bool = False
    offers: int = 1  # how often it became ready: each time with a ticket
    released: tuple[str, ReleaseOutcome] = ("", ReleaseOutcome.LOST)
    history: list[str] = field(default_factory=lambda: ["queued:0"])  # ids of its events

    @property
    def ended(self) -> bool:
        return self.status in TERMINAL

    @property
    def to_be_had(self) -> bool:
        return self.status is QUEUED and self.ready

    @property
    def indexes(self) -> set[str]:
        """The sorted sets that must list the job."""
        if self.deleted:
            return set()
        if self.ended:
            return {"ended", "created"}
        if self.status is RUNNING:
            return {"leases", "deadlines", "created"}
        return {"ready" if self.ready else "waiting", "deadlines", "created"}

    def claim(self, token: str, *, exclusive: bool) -> ClaimOutcome:
        """By its name; or by a ticket, when it is the next one."""
        if self.status is QUEUED and self.ttl_over:
            self._end(JobStatus.EXPIRED)
        if self.status is not QUEUED or self.too_early:
            return ClaimOutcome.NONE
        if self.alone and not exclusive:
            self.ready = self.wait_over = False
            return ClaimOutcome.ALONE
        self.status, self.token, self.exclusive = RUNNING, token, exclusive
        self.attempt += 1
        self.lease_over = self.run_over = False
        self.history.append(f"running:{self.attempt}")
        return ClaimOutcome.CLAIMED

    def claim_again(self, token: str, *, exclusive: bool) -> ClaimOutcome:
        """The call that once got this job, sent twice."""
        if self.status is RUNNING and token == self.token:
            return ClaimOutcome.CLAIMED
        if self.status is QUEUED and self.alone and not exclusive:
            return ClaimOutcome.ALONE
        return ClaimOutcome.NONE

    def renew(self, token: str) -> bool:
        """Whether the token holds the job."""
        if self.status is not RUNNING or token != self.token:
            return False
        self.lease_over = False
        return True

    def finish(self, token: str, state: JobStatus) -> bool:
        if self.deleted or not token or token != self.token:
            return False
        if self.status is RUNNING:
            self._end(state, token)
            return True
        return self.status is state

    def release(self, token: str, *, charged: bool, delayed: bool) -> ReleaseOutcome:
        if self.deleted:
            return ReleaseOutcome.LOST
        if token == self.released[0]:
            return self.released[1]
        if self.status is not RUNNING or token != self.token:
            return ReleaseOutcome.LOST
        outcome = self._give_back(charged=charged, delayed=delayed)
        self.released = (token, outcome)
        return outcome

    def cancel(self) -> JobStatus | None:
        if self.deleted:
            return None
        if not self.ended:
            self._end(JobStatus.CANCELED)
        return self.status

    def delete(self) -> str:
        if self.deleted:
            return "unknown"
        if not self.ended:
            return self.status.value
        self.deleted = True
        return "deleted"

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

    def end_wait(self) -> bool:
        if self.status is not QUEUED or self.ready or not self.wait_over:
            return False
        self._offer()
        return True

    def _give_back(self, *, charged: bool, delayed: bool) -> ReleaseOutcome:
        self.charges += charged
        if self.charges >= self.max_attempts:
            self._end(JobStatus.FAILED)
            return ReleaseOutcome.FAILED
        self.status, self.token = QUEUED, ""
        if delayed:
            self.ready, self.too_early, self.wait_over = False, True, False
        else:
            self._offer()
        self.history.append(f"queued:{self.attempt}")
        return ReleaseOutcome.QUEUED

    def _offer(self) -> None:
        self.ready, self.too_early = True, False
        self.offers += 1

    def _end(self, status: JobStatus, token: str = "") -> None:
        self.status, self.token = status, token
        self.history.append(status.value)


class Levels:
    """Start-time fair queueing between a tenant's levels: ties go to the more urgent."""

    def __init__(self) -> None:
        self.time = 0  # when the last claim started, counted in strides
        self.due: dict[str, int] = {}  # level → when it may start next

    def next(self, present: set[str]) -> str:
        return min((level for level in WEIGHTS if level in present), key=self._start)

    def use(self, level: str) -> None:
        self.time = self._start(level)
        self.due[level] = self.time + 30 // WEIGHTS[level]

    def _start(self, level: str) -> int:
        return max(self.due.get(level, 0), self.time)


class ModelQueue:
    """All jobs of a model, and whose turn it is.

    Whoever changes a job by its own methods says so with `settle`: a tenant waits for its turn from its
    first job that is to be had, until it has none at its turn. All tenants have the weight 1.
    """

    def __init__(self) -> None:
        self.jobs: dict[str, ModelJob] = {}
        self.starts: dict[str, int] = {}  # of tenants that wait, in virtual time
        self.levels: dict[str, Levels] = {}
        self.answered: dict[str, ModelJob] = {}  # token → what its claim was answered with
        self.missing = 0  # jobs without a ticket at the sweeper's last look
        self.sent_again = 0

    def add(self, job: ModelJob) -> None:
        self.jobs[job.job_id] = job
        self.settle()

    def settle(self) -> None:
        present = {job.tenant for job in self.to_be_had}
        for tenant in sorted(present - self.starts.keys()):
            self.starts[tenant] = self._time

    @property
    def _time(self) -> int:
        return sum(self.starts.values()) // len(self.starts) if self.starts else 0

    @property
    def to_be_had(self) -> list[ModelJob]:
        return [job for job in self.jobs.values() if job.to_be_had]

    @property
    def queued(self) -> dict[str, int]:
        """How many jobs are queued, under ''; and of each named tenant that has some."""
        queued = [job for job in self.jobs.values() if job.status is QUEUED]
        return {**Counter(job.tenant for job in queued), "": len(queued)}

    @property
    def tickets(self) -> int:
        """How many were sent so far."""
        return self.sent_again + sum(job.offers for job in self.jobs.values())

    # --- claims ---------------------------------------------------------------------------------------

    def claim(self, token: str, *, exclusive: bool) -> tuple[ClaimOutcome, ModelJob | None]:
        """By a ticket: the next job that is not past its time."""
        if earlier := self.answered.get(token):
            return earlier.claim_again(token, exclusive=exclusive), earlier
        while job := self._next():
            outcome = job.claim(token, exclusive=exclusive)
            if outcome is ClaimOutcome.NONE:
                self.settle()
                continue
            self.levels.setdefault(job.tenant, Levels()).use(job.level)
            self.starts[job.tenant] += STRIDE if len(self.starts) > 1 else 0
            self.answered[token] = job
            return outcome, job
        return ClaimOutcome.NONE, None

    def claim_by_name(self, job: ModelJob, token: str, *, exclusive: bool) -> ClaimOutcome:
        if earlier := self.answered.get(token):
            return earlier.claim_again(token, exclusive=exclusive)
        outcome = job.claim(token, exclusive=exclusive)
        self.settle()
        if outcome is not ClaimOutcome.NONE:
            self.answered[token] = job
        return outcome

    def _next(self) -> ModelJob | None:
        """Of equal weights the earliest start is never ahead, and its deadline is the earliest."""
        while self.starts:
            tenant = min(self.starts, key=lambda name: (self.starts[name], name))
            able = [job for job in self.to_be_had if job.tenant == tenant]
            if able:
                level = self.levels.get(tenant, Levels()).next({job.level for job in able})
                of_level = [job for job in able if job.level == level]
                return min(of_level, key=lambda job: (job.created_ms, job.job_id))
            del self.starts[tenant]
            self.levels.pop(tenant, None)
        return None

    # --- the sweeper ----------------------------------------------------------------------------------

    def reap(self) -> int:
        return self._each(ModelJob.reap)

    def come_due(self) -> int:
        return self._each(ModelJob.come_due)

    def end_waits(self) -> int:
        return self._each(ModelJob.end_wait)

    def _each(self, step: Callable[[ModelJob], bool]) -> int:
        """How many jobs took the step."""
        count = sum(step(job) for job in self.jobs.values())
        self.settle()
        return count

    def lost_tickets(self, on_the_list: int, *, aged: bool) -> int:
        """How many are sent again: those missing now, and at the last look, a grace time ago."""
        if not aged:
            return 0
        missing = max(len(self.to_be_had) - on_the_list, 0)
        lost = min(missing, self.missing)
        self.missing = missing - lost
        self.sent_again += lost
        return lost
