"""Shares and limits of tenants; needs access to Redis."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING, Final, Literal

from pydantic import TypeAdapter, ValidationError

from maskq.client.operations.flow import Flow, operation
from maskq.contract.options import Tenant
from maskq.contract.queueing.tenants import TenantSettings, TenantState
from maskq.errors import InvalidRequest
from maskq.ledger.calls.queueing import tenants
from maskq.validation import sentence

if TYPE_CHECKING:
    from maskq.client.session import Session


class Unchanged(Enum):
    """The type of KEEP."""

    KEEP = "keep"


KEEP: Final = Unchanged.KEEP
Keep = Literal[Unchanged.KEEP]
_NAME: Final[TypeAdapter[str]] = TypeAdapter(Tenant)


class TenantOperations:
    """Mixed into both clients."""

    session: Session

    @operation
    def set_tenant(
        self,
        name: str,
        *,
        weight: int | Keep | None = KEEP,
        max_running: int | Keep | None = KEEP,
        submit_rate: int | Keep | None = KEEP,
        max_queued: int | Keep | None = KEEP,
    ) -> Flow[TenantState]:
        """Set a tenant's share and limits; None: the default. What is not given stays as it is.

        Takes effect with the next claim and the next submission, for all clients and workers.

        Args:
            weight: share of each model's starts, 1 to 100, relative to other tenants; default: 1.
            max_running: jobs that run at a time, over all models; 0: none; default: no limit.
            submit_rate: jobs that it may submit in a minute; default: no limit.
            max_queued: jobs of one model that may wait; 0: no limit; default:
                MASKQ_MAX_QUEUED_PER_TENANT.

        Raises InvalidRequest.
        """
        given = {
            "weight": weight,
            "max_running": max_running,
            "submit_rate": submit_rate,
            "max_queued": max_queued,
        }
        changes = {key: value for key, value in given.items() if not isinstance(value, Unchanged)}
        _check(name, {key: value for key, value in changes.items() if value is not None})
        state: TenantState = yield tenants.change(name, changes)
        return state

    @operation
    def unset_tenant(self, name: str) -> Flow[TenantState]:
        """Give a tenant the defaults again. Raises InvalidRequest for an invalid name."""
        _check(name, {})
        changes = dict.fromkeys(TenantSettings.model_fields)
        state: TenantState = yield tenants.change(name, changes)
        return state

    @operation
    def tenant(self, name: str) -> Flow[TenantState]:
        """A tenant's share and limits, and its jobs that have not ended. Raises InvalidRequest."""
        _check(name, {})
        state: TenantState = yield tenants.look(name)
        return state

    @operation
    def tenants(self) -> Flow[Sequence[TenantState]]:
        """The tenants with a share or limit of their own, by name."""
        found: Sequence[TenantState] = yield tenants.each()
        return found


def _check(name: str, settings: dict[str, int]) -> None:
    try:
        _NAME.validate_python(name)
    except ValidationError:
        raise InvalidRequest(
            f"{name!r:.120} is not a valid name of a tenant: letters, digits and . _ @ + -, "
            f"1 to 100 characters"
        ) from None
    try:
        TenantSettings.model_validate(settings)
    except ValidationError as error:
        raise InvalidRequest(sentence(error)) from None
