"""What a job waits for, as a reason for programs and a sentence for people."""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from maskq.contract.options import Tenant
from maskq.contract.statuses import JobStatus


class WaitReason(StrEnum):
    """Why a job does not run now. If there are several reasons, the first of this list is given."""

    ENDED = "ended"
    """It has ended, so it waits for nothing."""
    RUNNING = "running"
    """A worker runs it."""
    NOT_BEFORE = "not_before"
    """It was submitted to run later: `countdown` or `eta` of a Celery caller."""
    BACK_OFF = "back_off"
    """Its last attempt failed for a reason that may pass, and the next one comes after a pause."""
    NO_WORKER = "no_worker"
    """No worker serves its model now."""
    STORE_AWAY = "store_away"
    """All workers of its model claim nothing, because their object store is unavailable."""
    RUNS_ALONE = "runs_alone"
    """A worker died while it ran: a worker first finishes its other jobs, then runs it alone."""
    TENANT_CAP = "tenant_cap"
    """Its tenant runs as many jobs as it may (`maskq tenants set --max-running`)."""
    TURN = "turn"
    """Other jobs start before it, or it is the next to start."""


class Waiting(BaseModel):
    """What a job waits for now."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    job_id: str
    status: JobStatus
    reason: WaitReason
    text: str  # one sentence
    model: str
    tenant: Tenant | None = None
    position: int | None = None  # jobs that start before it; None: it may not start yet
    position_in_tenant: int | None = None  # those of its own tenant among them
    eta_s: tuple[float, float] | None = (
        None  # it starts between these seconds from now; None: unknown
    )
    delay_s: float | None = None  # until it may start: back-off, or submitted to run later
    workers: int | None = None  # live ones of its model
    max_running: int | None = None  # its tenant's cap
