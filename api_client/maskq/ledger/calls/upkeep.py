"""Calls of the sweeper and of the retention: what is due, and what was removed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from maskq.ledger import keys
from maskq.ledger.calls.base import Argument, Call, to_ms
from maskq.ledger.scripts import script


@dataclass(frozen=True, slots=True)
class Swept:
    swept: int  # 0: another sweeper did the work a moment ago
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
    """What nobody else will do; at most `cap` jobs of each kind, so that Redis is never held long."""

    def args(is_new: int) -> tuple[Argument, ...]:
        return (to_ms(lease_s), cap, is_new, to_ms(event_retention_s))

    def parse(answer: Sequence[str]) -> Swept:
        return Swept(*map(int, answer))

    return Call(script("sweep"), args(0), parse, args_when_new=args(1))


@dataclass(frozen=True, slots=True)
class Objects:
    """Whose objects are to be looked after: what a JobStorage is made of (common.lua writes it)."""

    job_id: str
    tenant: str | None
    output_prefix: str | None
    member: str  # of the set in Redis

    @classmethod
    def of(cls, member: str) -> Objects:
        """From 'id', 'id tenant', 'id output_prefix' or 'id tenant output_prefix'."""
        job_id, _, rest = member.partition(" ")
        tenant, _, chosen = rest.partition(" ")
        if "/" in tenant:  # which no tenant's name has
            tenant, chosen = "", rest
        return cls(job_id, tenant or None, chosen or None, member)


def due_outputs(cap: int = 100) -> Call[list[Objects]]:
    """Ended jobs whose objects are past their retention."""
    return Call(script("outputs"), (cap, "outputs"), _objects)


def due_orphans(cap: int = 100) -> Call[list[Objects]]:
    """Jobs of which an attempt was cut off some minutes ago: it may have left objects."""
    return Call(script("outputs"), (cap, "orphans"), _objects)


def _objects(answer: Sequence[str]) -> list[Objects]:
    return [Objects.of(member) for member in answer]


def outputs_removed(which: Objects) -> Call[None]:
    """Nothing of it is left in the store."""
    return Call(None, ("ZREM", keys.outputs(), which.member), lambda _: None)


def orphans_removed(which: Objects) -> Call[None]:
    """What cut-off attempts left is gone."""
    return Call(None, ("ZREM", keys.orphans(), which.member), lambda _: None)


def leave_orphans(
    job_id: str, *, tenant: str | None = None, output_prefix: str | None = None
) -> Call[None]:
    """Have objects of this job that no manifest names removed some minutes later.

    tenant, output_prefix: of a job that may have been deleted meanwhile.
    """
    member = " ".join(filter(None, (job_id, tenant, output_prefix)))
    return Call(script("orphans"), (job_id, member), lambda _: None)
