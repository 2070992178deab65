"""The call that asks what a job waits for."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from maskq.contract.queueing.waiting import Waiting, WaitReason
from maskq.contract.statuses import JobStatus
from maskq.ledger.calls.base import Call, scripted, to_ms
from maskq.ledger.calls.queueing.position import QueuePlace, parse_place
from maskq.ledger.records import pairs

STORE_AWAY_EVERY_S: Final = 2.0  # a worker repeats `note_store_away`
_NOTED_S: Final = 10.0


def why(job_id: str) -> Call[Waiting | None]:
    """What a job waits for; None if it is unknown. `job_id`: or an alias."""

    def parse(answer: Sequence[Any]) -> Waiting | None:
        return waiting_of(job_id, pairs(answer[0]), parse_place(answer[1])) if answer else None

    return scripted("why", parse, given=job_id)


def note_store_away(model: str, owner: str) -> Call[None]:
    """Note that a worker claims nothing because its object store is away; it repeats that."""
    return scripted("store_away", lambda _: None, model=model, owner=owner, live_ms=to_ms(_NOTED_S))


def waiting_of(job_id: str, facts: Mapping[str, str], place: QueuePlace | None) -> Waiting:
    """facts: those of lua/why.lua. place: of a queued job that may start now."""
    reason, said = _reason(facts, place)
    delay_ms = int(facts.get("delay_ms", 0))
    return Waiting(
        job_id=job_id,
        status=JobStatus(facts["status"]),
        reason=reason,
        text=f"job {job_id} {said}",
        model=facts["model"],
        tenant=facts["tenant"] or None,
        position=place.position if place else None,
        position_in_tenant=place.of_tenant if place else None,
        eta_s=place.eta_s if place else None,
        delay_s=delay_ms / 1000 if delay_ms > 0 else None,
        workers=int(facts["workers"]) if "workers" in facts else None,
        max_running=int(facts["max_running"]) if "max_running" in facts else None,
    )


def _reason(facts: Mapping[str, str], place: QueuePlace | None) -> tuple[WaitReason, str]:
    for reason, applies, text in _REASONS:
        if applies(facts):
            return reason, text(facts)
    return WaitReason.TURN, _turn(facts, place)


def _number(facts: Mapping[str, str], name: str) -> int:
    return int(facts.get(name, 0))


def _is_delayed(facts: Mapping[str, str]) -> bool:
    return _number(facts, "delay_ms") > 0


def _back_off(facts: Mapping[str, str]) -> str:
    pause = f"runs again in {_number(facts, 'delay_ms') / 1000:.0f} s"
    if "error" not in facts:
        return f"{pause}: attempt {facts['attempt']} did not succeed"
    error = json.loads(facts["error"])
    return f"{pause}: attempt {facts['attempt']} ended with {error['code']}: {error['message']}"


def _cap(facts: Mapping[str, str]) -> str:
    most = _number(facts, "max_running")
    if most == 0:
        return f"waits because tenant {facts['tenant']} is paused (its max_running is 0)"
    return (
        f"waits because tenant {facts['tenant']} runs {most} jobs, as many as it may "
        f"(its max_running)"
    )


def _turn(facts: Mapping[str, str], place: QueuePlace | None) -> str:
    if place is None:
        return "starts with the next look of the sweeper, within seconds"
    if place.position == 0:
        return "is the next to start, as soon as a worker is free"
    others = place.position - place.of_tenant
    parts = f"{_jobs(place.of_tenant)} of its own tenant and {_jobs(others)} of other tenants"
    said = f"waits for its turn: {_jobs(place.position)} before it"
    said += f" ({parts})" if others else ""
    if place.eta_s is None:
        return said
    low, high = place.eta_s
    return f"{said}; it starts in about {low:.0f} to {high:.0f} s"


def _jobs(count: int) -> str:
    return f"{count} job" if count == 1 else f"{count} jobs"


_Facts = Mapping[str, str]
# The first that applies is given.
_REASONS: Final[Sequence[tuple[WaitReason, Callable[[_Facts], bool], Callable[[_Facts], str]]]] = (
    (
        WaitReason.RUNNING,
        lambda f: f["status"] == JobStatus.RUNNING,
        lambda f: f"runs on worker {f.get('owner', '')}, attempt {f['attempt']}",
    ),
    (
        WaitReason.ENDED,
        lambda f: f["status"] != JobStatus.QUEUED,
        lambda f: (
            f"waits for nothing: it has {f['status']}"
            if f["status"] in (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.EXPIRED)
            else f"waits for nothing: it was {f['status']}"
        ),
    ),
    (
        WaitReason.NOT_BEFORE,
        lambda f: _is_delayed(f) and f["attempt"] == "0",
        lambda f: f"was submitted to start in {_number(f, 'delay_ms') / 1000:.0f} s or later",
    ),
    (WaitReason.BACK_OFF, _is_delayed, _back_off),
    (
        WaitReason.NO_WORKER,
        lambda f: not _number(f, "workers"),
        lambda f: f"waits for a worker: none serves model {f['model']} now",
    ),
    (
        WaitReason.STORE_AWAY,
        lambda f: _number(f, "away") >= _number(f, "workers"),
        lambda f: f"waits because the object store of {_workers(f)} of model {f['model']} is away",
    ),
    (
        WaitReason.RUNS_ALONE,
        lambda f: f.get("alone") == "1" and "is_waiting" in f,
        lambda f: (
            "waits until a worker has finished its other jobs: it runs alone, because a worker "
            "died while it ran"
        ),
    ),
    (WaitReason.TENANT_CAP, lambda f: "free" in f and _number(f, "free") <= 0, _cap),
)


def _workers(facts: Mapping[str, str]) -> str:
    count = _number(facts, "workers")
    return "the only worker" if count == 1 else f"all {count} workers"
