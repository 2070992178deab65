"""Calls of the sweeper, of the retention and of uploads: what is due, and what was removed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from maskq.contract.storage_layout import JobStorage
from maskq.ledger import keys
from maskq.ledger.calls.base import Argument, Call, scripted, to_ms

# An upload that is being submitted when its time ends still becomes a job.
_UPLOAD_GRACE_S: Final = 600.0
SWEEP_GAP_MS: Final = 400  # between two sweeps, at least


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
        "min_gap_ms": SWEEP_GAP_MS,
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


def sweep_turn() -> Call[bool]:
    """Ask for the next sweep. False: another sweeper has it, or has just done it.

    A thousand workers ask every second. This costs Redis a tenth of a call of the script.
    """
    args = ("SET", keys.sweep_turn(), 1, "NX", "PX", SWEEP_GAP_MS)
    return Call(None, args, lambda answer: answer is not None)


def due_outputs(cap: int = 100) -> Call[list[Objects]]:
    """Ended jobs whose objects are past their retention."""
    return scripted("outputs", _objects, set=keys.outputs(), cap=cap)


def due_orphans(cap: int = 100) -> Call[list[Objects]]:
    """Jobs with an attempt that was cut off some minutes ago, and may have left objects."""
    return scripted("outputs", _objects, set=keys.orphans(), cap=cap)


def due_error_files(cap: int = 100) -> Call[list[Objects]]:
    """Ended jobs whose error file is not written yet."""
    return scripted("outputs", _objects, set=keys.error_files(), cap=cap)


def _objects(answer: Sequence[str]) -> list[Objects]:
    return [Objects.of(member) for member in answer]


def outputs_removed(which: Objects) -> Call[None]:
    """Note that its objects are removed."""
    return Call(None, ("ZREM", keys.outputs(), which.member), lambda _: None)


def orphans_removed(which: Objects) -> Call[None]:
    """Note that the objects of its cut-off attempts are removed."""
    return Call(None, ("ZREM", keys.orphans(), which.member), lambda _: None)


def error_file_written(job_id: str) -> Call[None]:
    """Note that the job's error file is written, or cannot be."""
    return Call(None, ("ZREM", keys.error_files(), job_id), lambda _: None)


def leave_orphans(
    job_id: str, *, tenant: str | None = None, output_prefix: str | None = None
) -> Call[None]:
    """Have the job's objects that no manifest names removed some minutes later.

    tenant, output_prefix: of a job that may have been deleted meanwhile.
    """
    member = " ".join(filter(None, (job_id, tenant, output_prefix)))
    return scripted("orphans", lambda _: None, id=job_id, member=member)


def begin_upload(job: JobStorage, lasts_s: float) -> Call[None]:
    """Note that a caller may upload the image of a future job, and submit it within `lasts_s` seconds.

    If it is not submitted, the retention removes the object ten minutes later.
    """
    kept_ms = to_ms(lasts_s + _UPLOAD_GRACE_S)
    return scripted("upload_begin", lambda _: None, member=_upload(job), kept_ms=kept_ms)


def find_upload(job: JobStorage) -> Call[float | None]:
    """Seconds in which the upload can be submitted (0 or less: too late); None if it is unknown."""

    def parse(answer: str) -> float | None:
        return int(answer) / 1000 - _UPLOAD_GRACE_S if answer else None

    return scripted("upload_find", parse, member=_upload(job))


def due_uploads(cap: int = 100) -> Call[list[Objects]]:
    """Uploads that were not submitted in time."""
    return scripted("outputs", _objects, set=keys.uploads(), cap=cap)


def upload_removed(which: Objects) -> Call[None]:
    """Note that the object of an upload is removed."""
    return Call(None, ("ZREM", keys.uploads(), which.member), lambda _: None)


def upload_submitted(job: JobStorage) -> Call[None]:
    """Note that the upload belongs to a job, which keeps it from now on."""
    return Call(None, ("ZREM", keys.uploads(), _upload(job)), lambda _: None)


def _upload(job: JobStorage) -> str:
    return " ".join(filter(None, (job.job_id, job.tenant)))
