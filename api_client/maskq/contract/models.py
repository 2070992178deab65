"""Models as callers and operators see them: who serves what, and which one is the default."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

ModelName = Annotated[str, Field(min_length=1, max_length=200)]  # as served, and as asked for


class ModelChoice(StrEnum):
    """Who said which model a job is for."""

    REQUEST = "request"  # the request names it
    STORED = "stored"  # `maskq models default NAME`
    SETTING = "setting"  # MASKQ_DEFAULT_MODEL
    CALLER = "caller"  # MASKQ_MODEL_NAME or MASKQ_MODEL of the caller, which is served so
    ONLY = "only"  # the only live model, or the only one known while none is alive
    NOBODY = "nobody"  # there are several, or none


class ServingWorker(BaseModel):
    """A worker process that serves a model, as it says of itself."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    owner: str  # host:pid, as in the records of its jobs
    model: str
    revision: str  # commit of the hub, else `sha256:…` of the weights
    labels: int  # how many classes
    labels_digest: str = ""  # of their names in order: the same classes under the same ids
    backend: str = ""
    device: str = ""
    dtype: str = ""
    since_ms: int  # when it became ready, by its own clock


class ServedModel(BaseModel):
    """A model that jobs can ask for by name. Without workers, its jobs wait."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    revision: str | None = None  # of the worker that registered last
    workers: tuple[ServingWorker, ...] = ()  # those alive, the oldest first
    queued: int = 0  # jobs
    default: bool = False  # whether a request that names no model goes to it

    @property
    def revisions(self) -> tuple[str, ...]:
        """What its live workers serve: more than one during a rolling upgrade, or by mistake."""
        return tuple(dict.fromkeys(worker.revision for worker in self.workers))


class DefaultModel(BaseModel):
    """The model of requests that name none, and where that choice comes from."""

    model_config = ConfigDict(frozen=True)

    name: str | None  # None: it is refused
    choice: ModelChoice
    known: bool  # whether a worker has served it; if not, the request is refused, too
