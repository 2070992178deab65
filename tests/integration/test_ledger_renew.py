"""renew: one call for all a process holds; it learns which jobs to stop."""

from __future__ import annotations

from maskq.contract import JobStatus

from . import ledger_desk
from .ledger_desk import Desk

desk = ledger_desk.desk


def test_a_renewed_lease_ends_later(desk: Desk) -> None:
    job_id, token = desk.claimed_job()
    before = desk.now_ms()
    assert desk.renew({job_id: token}, lease_s=99) == frozenset()
    ends = desk.score(job_id, "leases")
    assert ends is not None
    assert before + 99_000 <= ends <= desk.now_ms() + 99_000


def test_a_renewal_changes_nothing_but_the_lease(desk: Desk) -> None:
    job_id, token = desk.claimed_job()
    record, events = desk.raw(job_id), desk.events()
    deadline = desk.score(job_id, "deadlines")
    desk.renew({job_id: token})
    assert (desk.raw(job_id), desk.events()) == (record, events)
    assert desk.score(job_id, "deadlines") == deadline


def test_a_late_renewal_of_a_lease_nobody_swept_succeeds(desk: Desk) -> None:
    # Given
    job_id, token = desk.claimed_job()
    desk.lease_runs_out(job_id)
    # When / Then
    assert desk.renew({job_id: token}) == frozenset()
    assert desk.sweep().reaped == 0
    assert desk.record(job_id).status is JobStatus.RUNNING
    assert desk.succeed(job_id, token)


def test_the_tokens_no_longer_held_come_back(desk: Desk) -> None:
    # Given one job each: held, swept, canceled, finished, released, timed out, deleted, never claimed
    held = {name: desk.claimed_job() for name in ("kept", "swept", "canceled", "finished")}
    held |= {name: desk.claimed_job() for name in ("released", "timed out", "deleted")}
    desk.lease_runs_out(held["swept"][0])
    desk.time_is_up(held["timed out"][0])
    swept = desk.sweep()
    assert (swept.reaped, swept.due) == (1, 1)
    desk.cancel(held["canceled"][0])
    desk.succeed(*held["finished"])
    desk.release(*held["released"])
    desk.redis.delete(desk.key("job", held["deleted"][0]))
    tokens = dict(held.values()) | {desk.submit(): "never"}
    kept_id, kept = held["kept"]
    before = desk.everything()
    # When
    lost = desk.renew(tokens)
    # Then
    assert lost == frozenset(tokens.values()) - {kept}
    after = desk.everything()
    leases = desk.key("leases")
    assert dict(after.pop(leases)).keys() == dict(before.pop(leases)).keys()
    assert after == before
    assert desk.record(kept_id).status is JobStatus.RUNNING


def test_another_worker_s_claim_takes_the_lease_for_good(desk: Desk) -> None:
    job_id, late = desk.claimed_job()
    desk.lease_runs_out(job_id)
    desk.sweep()
    now = desk.claim(job_id, exclusive=True)
    ends = desk.score(job_id, "leases")
    assert desk.renew({job_id: late}, lease_s=99) == {late}
    assert desk.score(job_id, "leases") == ends
    assert desk.renew({job_id: now}) == frozenset()


def test_nothing_held_is_nothing_lost(desk: Desk) -> None:
    assert desk.renew({}) == frozenset()


def test_two_thousand_leases_are_renewed_in_one_call(desk: Desk) -> None:
    job_id, token = desk.claimed_job()
    many = {f"never-{n}": f"token-{n}" for n in range(2000)}
    assert desk.renew({**many, job_id: token}) == frozenset(many.values())
