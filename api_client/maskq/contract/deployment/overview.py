"""A deployment at a glance: what waits and runs, and the settings of the process that was asked."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict

from maskq.contract.models import DefaultModel
from maskq.contract.options import Priority


class Queue(BaseModel):
    """What one model has to do."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    model: str
    revision: str | None = None  # of the latest worker to register
    default: bool = False  # whether it is the default model
    queued: int  # with those that may not start yet
    ready: Mapping[Priority, int]  # jobs that may start now
    oldest_s: float | None = None  # since the oldest ready job was submitted; None: none is ready
    running: int
    workers: int  # alive


class Totals(BaseModel):
    """Numbers of the whole deployment."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    running: int
    delayed: int  # queued jobs that back off, or were submitted to run later
    records: int  # jobs that are kept, ended ones too
    tenants: int  # with a share or limit of their own
    webhooks_due: int  # deliveries that wait for a try
    webhooks_overdue: int  # their time has come, and nobody tried them yet
    sweeper_age_s: float | None = None  # since the last sweep; None: no worker has swept


class Stores(BaseModel):
    """Where Redis and the object store are, as the process that was asked reaches them."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    redis: str  # without user and password
    redis_version: str = ""  # empty if Redis does not tell
    key_prefix: str
    s3_endpoint: str  # without user and password; empty: AWS
    s3_bucket: str
    output_prefix: str


class DeploymentLimits(BaseModel):
    """Limits and retention, as the process that was asked has them."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    max_queued: int
    max_queued_per_tenant: int
    max_attempts: int
    queue_ttl_s: float
    run_timeout_s: float
    retention_s: float
    output_retention_s: float


class Overview(BaseModel):
    """A deployment at a glance."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    now_ms: int  # by Redis' clock
    version: str  # of the process that was asked: this client, or the gateway
    queues: tuple[Queue, ...]  # by model
    default: DefaultModel
    totals: Totals
    stores: Stores
    limits: DeploymentLimits
