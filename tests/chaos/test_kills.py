"""Workers die all the time, and every job succeeds."""

from __future__ import annotations

import random
import time
from collections import Counter
from pathlib import Path

import pytest
from chaos.conftest import IMAGE, LEASE_S, Fleet, distribution, fleet_of

from maskq import Event, JobStatus

JOBS = 2000
WORKERS = 6
KILL_EVERY_S = 3.0


def test_2000_jobs_with_a_worker_killed_every_3_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(3)
    with fleet_of(tmp_path, monkeypatch, workers=WORKERS) as fleet:
        # Given 2000 jobs of all priorities and four tenants
        options = [
            {"priority": p, "tenant": t}
            for p in ("high", "normal", "low")
            for t in ("acme", "beta", "ceres", None)
        ]
        fleet.client.submit(IMAGE)
        place = fleet.stored_image()
        ids = [fleet.client.submit(place, **chance.choice(options)).id for _ in range(JOBS - 1)]  # type: ignore[arg-type]

        # When a worker is killed every 3 s until all have ended
        began = time.monotonic()
        lost: list[tuple[str, int, float]] = []  # job, attempt, when its worker was killed
        kills = 0
        while any(not record.ended for record in fleet.records()):
            assert time.monotonic() - began < 900, Counter(r.status for r in fleet.records())
            ready = [worker for worker in fleet.stack.workers if worker.is_ready()]
            if ready:
                victim = chance.choice(ready)
                held = fleet.held_by(victim)
                fleet.kill_and_replace(victim)
                lost += [(record.id, record.attempt, time.time()) for record in held]
                kills += 1
            time.sleep(KILL_EVERY_S)

        # Then all have succeeded, with one terminal event each
        records = fleet.records()
        assert Counter(one.status for one in records) == {JobStatus.SUCCEEDED: JOBS}
        fleet.one_terminal_event_each([one.id for one in records])
        assert {*ids} < {one.id for one in records}

        took = time.monotonic() - began
        waits = recovery_s(fleet.events(), lost)
        print(f"\n{JOBS} jobs, {kills} kills in {took:.0f} s; lease {LEASE_S:g} s")
        print(distribution("killed worker to next attempt", waits))
        print(f"attempts: {dict(sorted(Counter(r.attempt for r in records).items()))}")
        print(f"charges: {dict(sorted(Counter(r.charges for r in records).items()))}")


def recovery_s(events: list[Event], lost: list[tuple[str, int, float]]) -> list[float]:
    """Seconds from the death of a job's worker to the start of its next attempt, where it had one."""
    started = {
        (event.subject, event.data["attempt"]): event.time.timestamp()
        for event in events
        if event.type == "maskq.job.running"
    }
    return [
        started[job_id, attempt + 1] - killed
        for job_id, attempt, killed in lost
        if (job_id, attempt + 1) in started
    ]


def test_a_rolling_restart_under_load_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fleet_of(tmp_path, monkeypatch, workers=3) as fleet:
        place = fleet.client.submit(IMAGE).refresh().request.image_uri
        ids = []
        began = time.monotonic()
        for worker in list(fleet.stack.workers):
            ids += keep_loaded(fleet, place, 200)
            assert fleet.replace(worker) == 0
        fleet.wait_until(lambda: all(one.ended for one in fleet.records()), 120)
        records = fleet.records()
        assert [one.error for one in records if one.error] == []
        assert Counter(one.status for one in records) == {JobStatus.SUCCEEDED: len(ids) + 1}
        assert Counter(one.charges for one in records) == {0: len(records)}
        fleet.one_terminal_event_each([one.id for one in records])
        attempts = dict(Counter(one.attempt for one in records))
        print(f"\n3 restarts, {len(records)} jobs in {time.monotonic() - began:.0f} s: {attempts=}")


def keep_loaded(fleet: Fleet, place: str, count: int) -> list[str]:
    return [fleet.client.submit(place).id for _ in range(count)]
