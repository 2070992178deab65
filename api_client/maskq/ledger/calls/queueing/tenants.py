"""Calls about tenants: set their shares and limits, and list them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from maskq.contract.queueing.tenants import TenantSettings, TenantState
from maskq.ledger.calls.base import Call, scripted
from maskq.ledger.records import pairs

_KEEP: Final = ""  # the setting as it is
_UNSET: Final = "-"
_NAMES: Final = tuple(TenantSettings.model_fields)


def change(tenant: str, changes: Mapping[str, int | None]) -> Call[TenantState]:
    """Store settings of a tenant; None: its default again. Settings that are not named are kept.

    Takes effect with the next claim and the next submission.
    """
    values: dict[str, str | int] = {}
    for name in _NAMES:
        value = changes.get(name)
        values[name] = value if value is not None else _UNSET if name in changes else _KEEP
    return scripted("tenant_set", _state, tenant=tenant, **values)


def look(tenant: str) -> Call[TenantState]:
    """A tenant's settings, all defaults if none are stored, and its jobs."""
    return scripted("tenants", lambda answer: _state(answer[0]), wanted=tenant)


def each() -> Call[list[TenantState]]:
    """Every tenant with stored settings, by name."""
    return scripted("tenants", lambda answer: [*map(_state, answer)], wanted="")


def _state(answer: Sequence[str]) -> TenantState:
    name, queued, running, *flat = answer
    stored = {key: int(value) for key, value in pairs(flat).items() if key in _NAMES}
    return TenantState(
        name=name,
        settings=TenantSettings.model_validate(stored),
        queued=int(queued),
        running=int(running),
    )
