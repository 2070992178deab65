"""Served models, their workers and the default model."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

ModelName = Annotated[str, Field(min_length=1, max_length=200)]  # as served, and as asked for


class ModelChoice(StrEnum):
    """Where the choice of a job's model comes from."""

    REQUEST = "request"  # the request names it
    STORED = "stored"  # `maskq models default NAME`
    SETTING = "setting"  # MASKQ_DEFAULT_MODEL
    CALLER = "caller"  # MASKQ_MODEL_NAME or MASKQ_MODEL of the caller, if a worker serves it
    ONLY = "only"  # the only model with workers, or the only known one if none has workers
    NOBODY = "nobody"  # no choice: there are several models, or none


class ServingWorker(BaseModel):
    """A worker process that serves a model, as it registered itself."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    owner: str  # host:pid, as in the records of its jobs
    model: str
    revision: str  # commit of the hub, else `sha256:…` of the weights
    labels: int  # how many classes
    labels_digest: str = ""  # of the class names in order: equal digests mean equal classes and ids
    backend: str = ""
    device: str = ""
    dtype: str = ""
    precision: str | None = None  # exact | fast | certified; None: another, or an older worker
    since_ms: int  # when it became ready, by its own clock
    plain_http: bool | None = None  # whether it calls http URLs of any host; None: an older worker
    version: str = ""  # of maskq
    max_batch_size: int | None = None  # images in one forward
    concurrency: int | None = None  # jobs that it works on at a time


class ServedModel(BaseModel):
    """A model that jobs can name. Its jobs wait while it has no workers."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    revision: str | None = None  # of the latest worker to register
    workers: tuple[ServingWorker, ...] = ()  # live ones, the oldest first
    queued: int = 0  # jobs
    default: bool = False  # whether it is the default model
    labels: tuple[
        str, ...
    ] = ()  # name of each class, by class id; () until a worker registers them
    palette: tuple[str, ...] = ()  # colour of each class, `#rrggbb`, of the first 256 classes

    @property
    def revisions(self) -> tuple[str, ...]:
        """The revisions of its live workers: several during a rolling upgrade, or by mistake."""
        return tuple(dict.fromkeys(worker.revision for worker in self.workers))


class DefaultModel(BaseModel):
    """The model of requests that name none, and the source of that choice."""

    model_config = ConfigDict(frozen=True)

    name: str | None  # None: such requests are refused
    choice: ModelChoice
    known: bool  # whether a worker has served it; if not, such requests are refused
