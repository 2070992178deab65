"""Calls of the sweeper and of the retention: what is due, and what was removed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from maskq.ledger import keys
from maskq.ledger.calls.base import Argument, Call, scripted, to_ms


@dataclass(frozen=True, slots=True)
class Swept:
    swept: int  # 0: another sweeper has just done the work
    reaped: int  # leases that ran out
    due: int  # deadlines that passed
    sent: int  # back-offs that passed
    sent_again: int  # tickets that were lost
    answered_again: int  # Celery callers reminded


def sweep(
    *,
    lease_s: float,
    event_retention_s: float = 7 * 86_400.0,
    cap: int = 200,
) -> Call[Swept]:
    """Handle leases, deadlines and back-offs that passed, and lost tickets.

    cap: jobs of each kind, so that Redis never blocks for long.
    """

    def parse(answer: Sequence[str]) -> Swept:
        return Swept(*map(int, answer))

    arguments: dict[str, Argument] = {
        "lease_ms": to_ms(lease_s),
        "cap": cap,
        "event_retention_ms": to_ms(event_retention_s),
    }
    known = scripted("sweep", parse, **arguments, is_new=0)
    return replace(known, args_when_new=scripted("sweep", parse, **arguments, is_new=1).args)


@dataclass(frozen=True, slots=True)
class Objects:
    """Whose objects in the store to remove: what a JobStorage is made of (ending.lua writes it)."""

    job_id: str
    tenant: str | None
    output_prefix: str | None
    member: str  # of the set in Redis

    @classmethod
    def of(cls, member: str) -> Objects:
        """From 'id', 'id tenant', 'id output_prefix' or 'id tenant output_prefix'."""
        job_id, _, rest = member.partition(" ")
        tenant, _, chosen = rest.partition(" ")
        if "/" in tenant:  # tenants' names have no slash
            tenant, chosen = "", rest
        return cls(job_id, tenant or None, chosen or None, member)


def due_outputs(cap: int = 100) -> Call[list[Objects]]:
    """Ended jobs whose objects are past their retention."""
    return scripted("outputs", _objects, set=keys.outputs(), cap=cap)


def due_orphans(cap: int = 100) -> Call[list[Objects]]:
    """Jobs with an attempt that was cut off some minutes ago, and may have left objects."""
    return scripted("outputs", _objects, set=keys.orphans(), cap=cap)


def _objects(answer: Sequence[str]) -> list[Objects]:
    return [Objects.of(member) for member in answer]


def outputs_removed(which: Objects) -> Call[None]:
    """Note that its objects are removed."""
    return Call(None, ("ZREM", keys.outputs(), which.member), lambda _: None)


def orphans_removed(which: Objects) -> Call[None]:
    """Note that the objects of its cut-off attempts are removed."""
    return Call(None, ("ZREM", keys.orphans(), which.member), lambda _: None)


def leave_orphans(
    job_id: str, *, tenant: str | None = None, output_prefix: str | None = None
) -> Call[None]:
    """Have the job's objects that no manifest names removed some minutes later.

    tenant, output_prefix: of a job that may have been deleted meanwhile.
    """
    member = " ".join(filter(None, (job_id, tenant, output_prefix)))
    return scripted("orphans", lambda _: None, id=job_id, member=member)
