"""renew: one call for all a process holds; it learns which jobs to stop."""

from __future__ import annotations

from support import ledger_harness
from support.ledger_harness import LedgerHarness

from maskq.contract import JobStatus

harness = ledger_harness.harness


def test_a_renewed_lease_ends_later(harness: LedgerHarness) -> None:
    job_id, token = harness.claimed_job()
    before = harness.now_ms()
    assert harness.renew({job_id: token}, lease_s=99) == frozenset()
    ends = harness.score(job_id, "leases")
    assert ends is not None
    assert before + 99_000 <= ends <= harness.now_ms() + 99_000


def test_a_renewal_changes_nothing_but_the_lease(harness: LedgerHarness) -> None:
    job_id, token = harness.claimed_job()
    record, events = harness.raw(job_id), harness.events()
    deadline = harness.score(job_id, "deadlines")
    harness.renew({job_id: token})
    assert (harness.raw(job_id), harness.events()) == (record, events)
    assert harness.score(job_id, "deadlines") == deadline


def test_a_late_renewal_of_a_lease_nobody_swept_succeeds(harness: LedgerHarness) -> None:
    # Given
    job_id, token = harness.claimed_job()
    harness.lease_runs_out(job_id)
    # When / Then
    assert harness.renew({job_id: token}) == frozenset()
    assert harness.sweep().reaped == 0
    assert harness.record(job_id).status is JobStatus.RUNNING
    assert harness.succeed(job_id, token)


def test_the_tokens_no_longer_held_come_back(harness: LedgerHarness) -> None:
    # Given one job each: held, swept, canceled, finished, released, timed out, deleted, never claimed
    held = {name: harness.claimed_job() for name in ("kept", "swept", "canceled", "finished")}
    held |= {name: harness.claimed_job() for name in ("released", "timed out", "deleted")}
    harness.lease_runs_out(held["swept"][0])
    harness.time_is_up(held["timed out"][0])
    swept = harness.sweep()
    assert (swept.reaped, swept.due) == (1, 1)
    harness.cancel(held["canceled"][0])
    harness.succeed(*held["finished"])
    harness.release(*held["released"])
    harness.redis.delete(harness.key("job", held["deleted"][0]))
    tokens = dict(held.values()) | {harness.submit(): "never"}
    kept_id, kept = held["kept"]
    before = harness.everything()
    # When
    lost = harness.renew(tokens)
    # Then
    assert lost == frozenset(tokens.values()) - {kept}
    after = harness.everything()
    leases = harness.key("leases")
    assert dict(after.pop(leases)).keys() == dict(before.pop(leases)).keys()
    assert after == before
    assert harness.record(kept_id).status is JobStatus.RUNNING


def test_another_worker_s_claim_takes_the_lease_for_good(harness: LedgerHarness) -> None:
    job_id, late = harness.claimed_job()
    harness.lease_runs_out(job_id)
    harness.sweep()
    now = harness.claim(job_id, exclusive=True)
    ends = harness.score(job_id, "leases")
    assert harness.renew({job_id: late}, lease_s=99) == {late}
    assert harness.score(job_id, "leases") == ends
    assert harness.renew({job_id: now}) == frozenset()


def test_nothing_held_is_nothing_lost(harness: LedgerHarness) -> None:
    assert harness.renew({}) == frozenset()


def test_two_thousand_leases_are_renewed_in_one_call(harness: LedgerHarness) -> None:
    job_id, token = harness.claimed_job()
    many = {f"never-{n}": f"token-{n}" for n in range(2000)}
    assert harness.renew({**many, job_id: token}) == frozenset(many.values())
