"""Workers as views show them: what serves a model, and how busy it is."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from maskq.contract.models import ServingWorker


class Heartbeat(BaseModel):
    """What a worker says of itself each time that it registers."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    in_hand: int = Field(ge=0)  # jobs whose leases it holds
    jobs_per_s: float = Field(ge=0)  # that it ended in the last minute
    draining: bool = False  # it claims nothing more and ends what it holds


class WorkerState(ServingWorker):
    """A live worker, and what it last said of itself. None: a worker of an older version."""

    last_beat_ms: int | None = None  # when it last registered, by Redis' clock
    beat_age_s: float | None = None  # since then
    in_hand: int | None = None
    jobs_per_s: float | None = None
    draining: bool | None = None
    store_away: bool = False  # it claims nothing, because its object store is unavailable

    @property
    def host(self) -> str:
        return self.owner.rpartition(":")[0]

    @property
    def pid(self) -> str:
        return self.owner.rpartition(":")[2]


class Workers(BaseModel):
    """The live workers of a deployment."""

    now_ms: int  # by Redis' clock
    workers: tuple[WorkerState, ...]  # by model, then the longest-serving first
