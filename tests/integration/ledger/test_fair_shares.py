"""Tenants share a model's starts by their weights, whatever else changes meanwhile."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence

import pytest
from support import ledger_harness
from support.ledger_harness import LEASE_S, MODEL, LedgerHarness, asked

from maskq.contract.ids import new_token
from maskq.ledger import calls
from maskq.ledger.calls import Limits
from maskq.ledger.calls.queueing import tenants

harness = ledger_harness.harness


def set_weights(harness: LedgerHarness, weights: Mapping[str, int]) -> None:
    harness.ledger.run_many([tenants.change(name, {"weight": w}) for name, w in weights.items()])


def submit(harness: LedgerHarness, counts: Mapping[str, int], **options: str) -> None:
    """As many jobs of each tenant."""
    requests = {name: asked(tenant=name, **options) for name in counts}
    wanted = [requests[name] for name, count in counts.items() for _ in range(count)]
    for at in range(0, len(wanted), 500):
        harness.ledger.run_many(
            [calls.submit(f"{name_of(harness)}", one, Limits()) for one in wanted[at : at + 500]]
        )


def name_of(harness: LedgerHarness) -> str:
    return f"{harness.prefix}-{new_token()}"


def started(harness: LedgerHarness, count: int) -> list[str]:
    """The tenants of the next jobs, in the order of their starts."""
    found: list[str] = []
    while len(found) < count:
        claims = [
            calls.claim(MODEL, new_token(), owner="worker-1", lease_s=LEASE_S)
            for _ in range(min(500, count - len(found)))
        ]
        records = [claimed.record for claimed in harness.ledger.run_many(claims)]
        assert all(records)
        found += [record.tenant or "" for record in records if record]
    return found


def furthest(starts: Sequence[str], weights: Mapping[str, int]) -> float:
    """The most jobs that any tenant was ever away from its ideal share."""
    total, done, most = sum(weights.values()), Counter[str](), 0.0
    for number, name in enumerate(starts):
        behind = number * weights[name] / total - done[name]  # just before its start
        done[name] += 1
        ahead = done[name] - (number + 1) * weights[name] / total
        most = max(most, behind, ahead)
    return max([most, *(len(starts) * w / total - done[name] for name, w in weights.items())])


@pytest.mark.slow
def test_ten_tenants_have_their_shares_of_ten_thousand_starts(harness: LedgerHarness) -> None:
    weights = {f"tenant-{weight}": weight for weight in range(1, 11)}
    set_weights(harness, weights)
    submit(harness, {name: 10_000 * weight // 55 + 2 for name, weight in weights.items()})
    starts = started(harness, 10_000)
    for name, weight in weights.items():
        assert starts.count(name) == pytest.approx(10_000 * weight / 55, rel=0.01)
    assert furthest(starts, weights) <= 1


def test_ten_tenants_have_their_shares_of_each_hundred_starts(harness: LedgerHarness) -> None:
    weights = {f"tenant-{weight}": weight for weight in range(1, 11)}
    set_weights(harness, weights)
    submit(harness, {name: 10 * weight + 2 for name, weight in weights.items()})
    assert furthest(started(harness, 500), weights) <= 1


@pytest.mark.slow
@pytest.mark.parametrize("largest", [1, 10, 100])
def test_none_of_a_thousand_tenants_is_ever_two_jobs_from_its_ideal(
    harness: LedgerHarness, largest: int
) -> None:
    chance = random.Random(largest)
    weights = {f"tenant-{number:03}": chance.randint(1, largest) for number in range(1000)}
    if largest == 100:
        weights["tenant-000"] = 100  # among many light ones
    set_weights(harness, weights)
    total = sum(weights.values())
    submit(harness, {name: 3000 * weight // total + 3 for name, weight in weights.items()})
    assert furthest(started(harness, 3000), weights) <= 2


def test_one_heavy_tenant_among_hundred_light_ones_is_served_evenly(
    harness: LedgerHarness,
) -> None:
    """By the earliest start alone it would wait a hundred starts, by the deadline alone run ahead."""
    weights = {"heavy": 100} | {f"light-{number:03}": 1 for number in range(100)}
    set_weights(harness, weights)
    submit(harness, {name: 3 + (200 if name == "heavy" else 0) for name in weights})
    assert furthest(started(harness, 300), weights) <= 1


def test_shares_hold_whatever_priorities_tenants_use(harness: LedgerHarness) -> None:
    weights = {"ada": 1, "bob": 2, "cleo": 3}
    set_weights(harness, weights)
    submit(harness, {"ada": 200}, priority="high")
    submit(harness, {"bob": 200}, priority="low")
    submit(harness, {"cleo": 100}, priority="low")
    submit(harness, {"cleo": 100}, priority="high")
    assert furthest(started(harness, 180), weights) <= 1


def test_a_tenant_with_one_job_at_a_time_gains_nothing(harness: LedgerHarness) -> None:
    """Whatever its weight: when it comes back, it goes on where it left."""
    set_weights(harness, {"ada": 10})
    submit(harness, {"bob": 100, "cleo": 100})
    submit(harness, {"ada": 1})
    starts: list[str] = []
    for _ in range(120):
        (name,) = started(harness, 1)
        starts.append(name)
        if name == "ada":
            submit(harness, {"ada": 1})
    assert furthest(starts, {"ada": 10, "bob": 1, "cleo": 1}) <= 1.5


def test_a_tenant_that_was_away_does_not_catch_up(harness: LedgerHarness) -> None:
    submit(harness, {"ada": 100, "bob": 100})
    started(harness, 60)
    submit(harness, {"cleo": 60})
    assert furthest(started(harness, 90), {"ada": 1, "bob": 1, "cleo": 1}) <= 1


def test_a_new_weight_holds_from_the_next_start(harness: LedgerHarness) -> None:
    submit(harness, {"ada": 200, "bob": 200})
    started(harness, 51)
    set_weights(harness, {"ada": 5})
    assert furthest(started(harness, 120), {"ada": 5, "bob": 1}) <= 2
    set_weights(harness, {"ada": 1, "bob": 3})
    assert furthest(started(harness, 80), {"ada": 1, "bob": 3}) <= 2


def test_tenants_come_and_go_at_random(harness: LedgerHarness) -> None:
    """The totals that tell the virtual time stay those of the tenants that wait."""
    chance = random.Random(7)
    weights = {f"tenant-{number}": number for number in range(1, 8)}
    set_weights(harness, weights)
    for _ in range(40):
        submit(harness, {chance.choice(list(weights)): chance.randint(1, 9)})
        taken = harness.take_many(chance.randint(1, 8))
        for job_id in taken[::3]:
            harness.release(job_id, harness.raw(job_id)["token"])
        if chance.random() < 0.2:
            name = chance.choice(list(weights))
            weights[name] = chance.randint(1, 9)
            set_weights(harness, {name: weights[name]})
        expected = {"share_sum": 0, "share_weight": 0}
        for name, weight in weights.items():
            start = harness.redis.zscore(harness.key("shares", MODEL, str(weight)), name)
            expected["share_sum"] += round(weight * (start or 0))
            expected["share_weight"] += weight if start is not None else 0
        kept = harness.redis.hmget(harness.key("queue", MODEL), "share_sum", "share_weight")
        assert [int(one or 0) for one in kept] == [*expected.values()]
    while harness.take_many(100):
        pass
    names = list(harness.key_names())
    assert not [name for name in names if ":share" in name or ":levels:" in name]
