"""Which model a request without one goes to, who serves what, and how a model is forgotten."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.ledger_harness import MODEL, LedgerHarness, harness

from maskq.contract import JobStatus
from maskq.contract.models import ModelChoice, ServedModel, ServingWorker
from maskq.ledger.calls import Limits, SubmitOutcome, Submitted, models
from maskq.ledger.calls.models import LIVE_S

__all__ = ["harness"]

OTHER = "other"


def present(owner: str = "host:1", model: str = MODEL, revision: str = "1") -> ServingWorker:
    return ServingWorker(owner=owner, model=model, revision=revision, labels=3, since_ms=1)


def come(harness: LedgerHarness, *presences: ServingWorker) -> list[ServingWorker]:
    """Register each; what the last one was told of others."""
    return [harness.ledger.run(models.register(one)) for one in presences][-1]


def dies(harness: LedgerHarness, presence: ServingWorker) -> None:
    """So long ago that it counts as gone."""
    name = harness.key("workers", presence.model)
    harness.redis.zadd(name, {presence.model_dump_json(): harness.now_ms() - 1}, xx=True)


def chosen(harness: LedgerHarness, limits: Limits | None = None) -> str:
    return harness.record(harness.submit(limits=limits)).model


def refused(harness: LedgerHarness, limits: Limits | None = None, **request: str) -> Submitted:
    answer = harness.try_submit(limits=limits, **request)
    assert answer.outcome is SubmitOutcome.UNKNOWN_MODEL
    return answer


# --- which model --------------------------------------------------------------------------------------


def test_the_order_of_who_says_which_model(harness: LedgerHarness) -> None:
    # Given four models that are alive, and all who may choose, each choosing another one
    names = ["asked", "stored", "setting", "caller"]
    for name in names:
        come(harness, present(f"host:{name}", name))
    harness.ledger.run(models.set_default("stored"))
    limits = Limits(default_model="setting", caller_model="caller")
    # Then the request comes first, and each gives way to the next
    assert harness.record(harness.submit(model="asked", limits=limits)).model == "asked"
    assert chosen(harness, limits) == "stored"
    harness.ledger.run(models.set_default(None))
    assert chosen(harness, limits) == "setting"
    assert chosen(harness, replace(limits, default_model=None)) == "caller"
    # And where nobody says, there is a choice
    answer = refused(harness)
    assert (answer.choice, answer.model) == (ModelChoice.NOBODY, None)
    assert answer.known == tuple(sorted([MODEL, *names]))


def test_the_only_live_model_is_taken_though_others_are_known(harness: LedgerHarness) -> None:
    harness.serve(OTHER)
    live = present()
    come(harness, live)
    assert chosen(harness) == MODEL
    # When it has gone, neither is alive, and the caller must choose
    dies(harness, live)
    assert refused(harness).choice is ModelChoice.NOBODY


def test_the_only_model_that_is_known_is_taken_while_nobody_is_alive(
    harness: LedgerHarness,
) -> None:
    assert chosen(harness) == MODEL


def test_a_caller_s_own_model_that_nobody_serves_gives_way(harness: LedgerHarness) -> None:
    assert chosen(harness, Limits(caller_model="/a/place/on/a/worker")) == MODEL


@pytest.mark.parametrize("stored", [True, False])
def test_a_deployment_s_default_that_nobody_serves_is_refused_and_named(
    harness: LedgerHarness, stored: bool
) -> None:
    """Another model in its place would give other classes, silently."""
    come(harness, present())
    if stored:
        harness.redis.set(harness.key("default-model"), "nobody-s")
    answer = refused(harness, None if stored else Limits(default_model="nobody-s"))
    assert answer.model == "nobody-s"
    assert answer.choice is (ModelChoice.STORED if stored else ModelChoice.SETTING)
    text = models.unknown_model(answer)
    assert "'nobody-s'" in text
    assert ("maskq models default" if stored else "MASKQ_DEFAULT_MODEL") in text
    assert MODEL in text


def test_the_refusal_says_what_to_do(harness: LedgerHarness) -> None:
    harness.serve(OTHER)
    text = models.unknown_model(refused(harness))
    assert f"{MODEL}, {OTHER}" in text
    assert "None" not in text
    for way in ("model=", "maskq models default NAME", "MASKQ_DEFAULT_MODEL"):
        assert way in text
    text = models.unknown_model(refused(harness, model="otter"))
    assert "'otter'" in text
    assert "did you mean 'other'?" in text


def test_a_default_must_be_known(harness: LedgerHarness) -> None:
    assert harness.ledger.run(models.set_default("nobody-s")) == (MODEL,)
    assert harness.redis.get(harness.key("default-model")) is None
    assert harness.ledger.run(models.set_default(MODEL)) is None


# --- who serves what ----------------------------------------------------------------------------------


def listed(harness: LedgerHarness) -> dict[str, ServedModel]:
    return {one.name: one for one in harness.ledger.run(models.known(Limits())).each}


def test_who_serves_what_since_when_and_what_waits(harness: LedgerHarness) -> None:
    harness.serve(OTHER)
    first, second = present("host:1"), present("host:2")
    come(harness, first, second)
    harness.submit(model=MODEL)
    found = listed(harness)
    assert {one.owner for one in found[MODEL].workers} == {"host:1", "host:2"}
    assert found[MODEL].workers[0] == first
    assert (found[MODEL].queued, found[OTHER].queued) == (1, 0)
    assert found[OTHER].workers == ()
    assert [name for name, one in found.items() if one.default] == [MODEL]


def test_a_worker_that_says_nothing_more_is_forgotten(harness: LedgerHarness) -> None:
    dead, alive = present("host:1"), present("host:2")
    come(harness, dead)
    assert harness.redis.pttl(harness.key("workers", MODEL)) <= LIVE_S * 1000
    dies(harness, dead)
    assert listed(harness)[MODEL].workers == ()
    # And nothing of it stays once another one says that it is there
    come(harness, alive)
    assert harness.redis.zcard(harness.key("workers", MODEL)) == 1


def test_a_worker_that_registers_again_is_the_same_worker(harness: LedgerHarness) -> None:
    come(harness, present(), present())
    assert len(listed(harness)[MODEL].workers) == 1


def test_a_worker_that_leaves_is_gone_at_once(harness: LedgerHarness) -> None:
    come(harness, present())
    harness.ledger.run(models.leave(present()))
    assert listed(harness)[MODEL].workers == ()
    assert MODEL in listed(harness)  # the model stays known: scaled to zero, its jobs wait


def test_workers_of_one_revision_do_not_read_each_other(harness: LedgerHarness) -> None:
    workers = [present(f"host:{number}") for number in range(3)]
    come(harness, *workers)
    # An entry without the revision would be named if it were read.
    harness.redis.zadd(harness.key(f"workers:{MODEL}"), {"{}": 2**52})
    register = models.register(workers[0])
    assert register.script is not None
    found = harness.redis.evalsha(register.script.sha, 0, harness.prefix, *register.args)
    assert found == []
    # One that starts reads all.
    newcomer = models.register(present("host:9"))
    assert harness.redis.evalsha(register.script.sha, 0, harness.prefix, *newcomer.args) == ["{}"]


def test_a_worker_is_told_of_others_that_serve_another_revision(harness: LedgerHarness) -> None:
    old, new = present("host:1", revision="1"), present("host:2", revision="2")
    assert come(harness, old, present("host:3", revision="1")) == []
    assert come(harness, new) == [old, present("host:3", revision="1")]
    assert come(harness, old) == [new]
    assert sorted(listed(harness)[MODEL].revisions) == ["1", "2"]
    dies(harness, old)
    dies(harness, present("host:3", revision="1"))
    assert come(harness, new) == []


# --- retired ------------------------------------------------------------------------------------------


def test_a_retired_model_is_unknown(harness: LedgerHarness) -> None:
    harness.serve(OTHER)
    harness.ledger.run(models.set_default(MODEL))
    assert harness.ledger.run(models.retire(OTHER)).retired
    assert refused(harness, model=OTHER).known == (MODEL,)
    left = {name for name in harness.everything() if OTHER in name}
    assert left == set()


def test_a_model_in_use_is_not_retired(harness: LedgerHarness) -> None:
    come(harness, present(model=OTHER))
    harness.submit(model=OTHER)
    running = harness.submit(model=OTHER)
    harness.claim(running)
    harness.ledger.run(models.set_default(OTHER))
    before = harness.everything()
    answer = harness.ledger.run(models.retire(OTHER))
    assert not answer.retired
    assert (answer.workers, answer.queued, answer.running, answer.is_default) == (1, 1, 1, True)
    assert harness.everything() == before


def test_a_model_that_is_not_known_cannot_be_retired(harness: LedgerHarness) -> None:
    assert harness.ledger.run(models.retire("nobody-s")).known == (MODEL,)


def test_jobs_of_a_model_that_is_retired_by_force_are_canceled(harness: LedgerHarness) -> None:
    # Given jobs of several levels and tenants, one that backs off, one that runs, and another model's
    harness.serve(OTHER)
    mine = [
        harness.submit(model=OTHER, priority=level, **extra)
        for level in ("high", "low")
        for extra in ({}, {"tenant": "a"})
    ]
    backs_off, runs = harness.submit(model=OTHER), harness.submit(model=OTHER)
    token = harness.claim(backs_off)
    harness.release(backs_off, token, delay_s=60)
    harness.claim(runs)
    not_mine = harness.submit(model=MODEL)
    # When
    assert harness.ledger.run(models.retire(OTHER, force=True)).retired
    canceled, offset, rounds = 0, 0, 0
    while offset is not None and rounds < 20:
        rounds += 1
        done, offset = harness.ledger.run(models.cancel_queued(OTHER, offset=offset, cap=2))
        canceled += done
    # Then
    assert canceled == 5
    assert {harness.record(job).status for job in [*mine, backs_off]} == {JobStatus.CANCELED}
    assert "retired" in harness.record(mine[0]).error.message
    assert harness.record(runs).status is JobStatus.RUNNING
    assert harness.record(not_mine).status is JobStatus.QUEUED
    assert harness.queued(OTHER) == {"": 0}
