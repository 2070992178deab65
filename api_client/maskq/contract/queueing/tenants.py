"""What `maskq tenants set` stores about a tenant, and what a tenant has in the queue now."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from maskq.contract.options import Tenant

LARGEST_WEIGHT: Final = 100
LARGEST_COUNT: Final = 1_000_000


class TenantSettings(BaseModel):
    """A tenant's share and limits. They hold for jobs from every client and every transport."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weight: Annotated[int, Field(ge=1, le=LARGEST_WEIGHT)] = 1
    """Its share of a model's starts, relative to the weights of the other tenants with waiting jobs."""
    max_running: Annotated[int, Field(ge=0, le=LARGEST_COUNT)] | None = None
    """Its jobs that run at a time, over all models. 0: none start. Default: no limit."""
    submit_rate: Annotated[int, Field(ge=1, le=LARGEST_COUNT)] | None = None
    """Jobs that it may submit in a minute; a minute's jobs may come at once. Default: no limit."""
    max_queued: Annotated[int, Field(ge=0, le=LARGEST_COUNT)] | None = None
    """Its jobs of one model that may wait. 0: no limit. Default: MASKQ_MAX_QUEUED_PER_TENANT."""


class TenantState(BaseModel):
    """A tenant's settings, and its jobs that have not ended."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: Tenant
    settings: TenantSettings = TenantSettings()
    queued: int = 0
    running: int = 0
