"""Who is served next when more wait than can be served."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from chaos.conftest import IMAGE, fleet_of

from maskq import JobRecord

CONCURRENCY, BATCH = 4, 2


def test_a_high_job_behind_1000_low_ones_waits_at_most_two_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fleet_of(
        tmp_path, monkeypatch, workers=1, concurrency=CONCURRENCY, max_batch_size=BATCH
    ) as fleet:
        place = fleet.client.submit(IMAGE).refresh().request.image_uri
        low = [fleet.client.submit(place, priority="low").id for _ in range(1000)]
        behind = []
        for _ in range(5):
            job = fleet.client.submit(place, priority="high")
            job.wait(60)
            record = job.refresh()
            assert record.started_ms is not None
            behind.append(
                sum(
                    one.started_ms is not None
                    and record.created_ms < one.started_ms < record.started_ms
                    for one in fleet.records()
                    if one.id in low
                )
            )
        print(f"\nlow jobs started between a high one's submission and its start: {behind}")
        assert max(behind) <= 2 * BATCH
        assert any(not one.ended for one in fleet.records())  # the backlog was still there


def test_one_tenant_s_backlog_delays_another_by_its_share_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fleet_of(tmp_path, monkeypatch, workers=1, concurrency=CONCURRENCY) as fleet:
        place = fleet.stored_image()
        for _ in range(1000):
            fleet.client.submit(place, tenant="large")
        small = [fleet.client.submit(place, tenant="small") for _ in range(40)]
        for job in small:
            job.wait(120)
        first = min(job.record.created_ms for job in small if job.record)
        last = max(job.record.started_ms or 0 for job in small if job.record)
        records = fleet.records()
        others = [r for r in records if r.tenant == "large" and r.started_ms]
        between = sum(first < (r.started_ms or 0) <= last for r in others)
        print(
            f"\n40 jobs of one tenant behind 1000 of another: {between} of those started meanwhile"
        )
        assert between <= len(small) + CONCURRENCY + 2
        assert any(not r.ended for r in records)  # the backlog was still there


def test_low_gets_a_tenth_under_endless_high_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fleet_of(tmp_path, monkeypatch, workers=1) as fleet:
        place = fleet.client.submit(IMAGE).refresh().request.image_uri
        fleet.client.submit_many([place] * 3000, priority="low")  # more than it can get to
        end = time.monotonic() + 30
        while time.monotonic() < end:  # never fewer than some dozens of urgent ones wait
            for _ in range(20):
                fleet.client.submit(place, priority="high")
                fleet.client.submit(place, priority="normal")
            time.sleep(0.1)
        queued = Counter(one.priority for one in fleet.records() if not one.ended)
        done = Counter(one.priority for one in fleet.records() if one.ended)
        print(f"\nended {dict(done)}, still queued {dict(queued)}")
        assert min(queued["high"], queued["normal"], queued["low"]) > 0  # all wanted to run
        assert done["low"] >= 0.1 * done.total() - 3


def test_five_tenants_have_their_shares_of_500_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = {"ada": 1, "bob": 2, "cleo": 3, "dora": 4, "eve": 5}
    starts, total = 500, sum(weights.values())
    with fleet_of(tmp_path, monkeypatch, workers=1, concurrency=CONCURRENCY) as fleet:
        for tenant, weight in weights.items():
            fleet.client.set_tenant(tenant, weight=weight)
        place = fleet.stored_image()
        for tenant in weights:  # nothing starts before all wait
            fleet.client.set_tenant(tenant, max_running=0)
        for tenant, weight in weights.items():
            fleet.client.submit_many([place] * (starts * weight // total + 10), tenant=tenant)
        for tenant in weights:
            fleet.client.set_tenant(tenant, max_running=None)
        deadline = time.monotonic() + 120
        while len(order := started(fleet.records())) < starts and time.monotonic() < deadline:
            time.sleep(0.2)
        assert any(not one.ended for one in fleet.records())  # the backlog was still there
    done, furthest = Counter[str](), 0.0
    for number, tenant in enumerate(order[:starts], 1):
        done[tenant] += 1
        for name, weight in weights.items():
            furthest = max(furthest, abs(done[name] - number * weight / total))
    print(f"\n{starts} starts of five tenants: at most {furthest:.2f} jobs from the ideal")
    assert furthest <= 2


def started(records: Sequence[JobRecord]) -> list[str]:
    """The tenants of the jobs that were started, in order."""
    found = [record for record in records if record.started_ms]
    return [record.tenant or "" for record in sorted(found, key=lambda one: one.started_ms or 0)]
