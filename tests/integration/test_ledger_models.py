"""Which model a request without one goes to, who serves what, and how a model is forgotten."""

from __future__ import annotations

from dataclasses import replace

import pytest
from integration.ledger_desk import MODEL, Desk, desk

from maskq.contract import JobStatus
from maskq.contract.models import ModelChoice, ServedModel, ServingWorker
from maskq.ledger.calls import Limits, SubmitOutcome, Submitted, models
from maskq.ledger.calls.models import LIVE_S

__all__ = ["desk"]

OTHER = "other"


def present(owner: str = "host:1", model: str = MODEL, revision: str = "1") -> ServingWorker:
    return ServingWorker(owner=owner, model=model, revision=revision, labels=3, since_ms=1)


def come(desk: Desk, *presences: ServingWorker) -> list[ServingWorker]:
    """Register each; what the last one was told of others."""
    return [desk.ledger.run(models.register(desk.prefix, one)) for one in presences][-1]


def dies(desk: Desk, presence: ServingWorker) -> None:
    """So long ago that it counts as gone."""
    name = desk.key("workers", presence.model)
    desk.redis.zadd(name, {presence.model_dump_json(): desk.now_ms() - 1}, xx=True)


def chosen(desk: Desk, limits: Limits | None = None) -> str:
    return desk.record(desk.submit(limits=limits)).model


def refused(desk: Desk, limits: Limits | None = None, **request: str) -> Submitted:
    answer = desk.try_submit(limits=limits, **request)
    assert answer.outcome is SubmitOutcome.UNKNOWN_MODEL
    return answer


# --- which model --------------------------------------------------------------------------------------


def test_the_order_of_who_says_which_model(desk: Desk) -> None:
    # Given four models that are alive, and all who may choose, each choosing another one
    names = ["asked", "stored", "setting", "caller"]
    for name in names:
        come(desk, present(f"host:{name}", name))
    desk.ledger.run(models.set_default(desk.prefix, "stored"))
    limits = Limits(default_model="setting", caller_model="caller")
    # Then the request comes first, and each gives way to the next
    assert desk.record(desk.submit(model="asked", limits=limits)).model == "asked"
    assert chosen(desk, limits) == "stored"
    desk.ledger.run(models.set_default(desk.prefix, None))
    assert chosen(desk, limits) == "setting"
    assert chosen(desk, replace(limits, default_model=None)) == "caller"
    # And where nobody says, there is a choice
    answer = refused(desk)
    assert (answer.choice, answer.model) == (ModelChoice.NOBODY, None)
    assert answer.known == tuple(sorted([MODEL, *names]))


def test_the_only_live_model_is_taken_though_others_are_known(desk: Desk) -> None:
    desk.serve(OTHER)
    live = present()
    come(desk, live)
    assert chosen(desk) == MODEL
    # When it has gone, neither is alive, and the caller must choose
    dies(desk, live)
    assert refused(desk).choice is ModelChoice.NOBODY


def test_the_only_model_that_is_known_is_taken_while_nobody_is_alive(desk: Desk) -> None:
    assert chosen(desk) == MODEL


def test_a_caller_s_own_model_that_nobody_serves_gives_way(desk: Desk) -> None:
    assert chosen(desk, Limits(caller_model="/a/place/on/a/worker")) == MODEL


@pytest.mark.parametrize("stored", [True, False])
def test_a_deployment_s_default_that_nobody_serves_is_refused_and_named(
    desk: Desk, stored: bool
) -> None:
    """Another model in its place would give other classes, silently."""
    come(desk, present())
    if stored:
        desk.redis.set(desk.key("default-model"), "nobody-s")
    answer = refused(desk, None if stored else Limits(default_model="nobody-s"))
    assert answer.model == "nobody-s"
    assert answer.choice is (ModelChoice.STORED if stored else ModelChoice.SETTING)
    text = models.unknown_model(answer)
    assert "'nobody-s'" in text
    assert ("maskq models default" if stored else "MASKQ_DEFAULT_MODEL") in text
    assert MODEL in text


def test_the_refusal_says_what_to_do(desk: Desk) -> None:
    desk.serve(OTHER)
    text = models.unknown_model(refused(desk))
    assert f"{MODEL}, {OTHER}" in text
    assert "None" not in text
    for way in ("model=", "maskq models default NAME", "MASKQ_DEFAULT_MODEL"):
        assert way in text
    text = models.unknown_model(refused(desk, model="otter"))
    assert "'otter'" in text
    assert "did you mean 'other'?" in text


def test_a_default_must_be_known(desk: Desk) -> None:
    assert desk.ledger.run(models.set_default(desk.prefix, "nobody-s")) == (MODEL,)
    assert desk.redis.get(desk.key("default-model")) is None
    assert desk.ledger.run(models.set_default(desk.prefix, MODEL)) is None


# --- who serves what ----------------------------------------------------------------------------------


def listed(desk: Desk) -> dict[str, ServedModel]:
    return {one.name: one for one in desk.ledger.run(models.known(desk.prefix, Limits())).each}


def test_who_serves_what_since_when_and_what_waits(desk: Desk) -> None:
    desk.serve(OTHER)
    first, second = present("host:1"), present("host:2")
    come(desk, first, second)
    desk.submit(model=MODEL)
    found = listed(desk)
    assert {one.owner for one in found[MODEL].workers} == {"host:1", "host:2"}
    assert found[MODEL].workers[0] == first
    assert (found[MODEL].queued, found[OTHER].queued) == (1, 0)
    assert found[OTHER].workers == ()
    assert [name for name, one in found.items() if one.default] == [MODEL]


def test_a_worker_that_says_nothing_more_is_forgotten(desk: Desk) -> None:
    dead, alive = present("host:1"), present("host:2")
    come(desk, dead)
    assert desk.redis.pttl(desk.key("workers", MODEL)) <= LIVE_S * 1000
    dies(desk, dead)
    assert listed(desk)[MODEL].workers == ()
    # And nothing of it stays once another one says that it is there
    come(desk, alive)
    assert desk.redis.zcard(desk.key("workers", MODEL)) == 1


def test_a_worker_that_registers_again_is_the_same_worker(desk: Desk) -> None:
    come(desk, present(), present())
    assert len(listed(desk)[MODEL].workers) == 1


def test_a_worker_that_leaves_is_gone_at_once(desk: Desk) -> None:
    come(desk, present())
    desk.ledger.run(models.leave(desk.prefix, present()))
    assert listed(desk)[MODEL].workers == ()
    assert MODEL in listed(desk)  # the model stays known: scaled to zero, its jobs wait


def test_a_worker_is_told_of_others_that_serve_another_revision(desk: Desk) -> None:
    old, new = present("host:1", revision="1"), present("host:2", revision="2")
    assert come(desk, old, present("host:3", revision="1")) == []
    assert come(desk, new) == [old, present("host:3", revision="1")]
    assert come(desk, old) == [new]
    assert sorted(listed(desk)[MODEL].revisions) == ["1", "2"]
    dies(desk, old)
    dies(desk, present("host:3", revision="1"))
    assert come(desk, new) == []


# --- retired ------------------------------------------------------------------------------------------


def test_a_retired_model_is_unknown(desk: Desk) -> None:
    desk.serve(OTHER)
    desk.ledger.run(models.set_default(desk.prefix, MODEL))
    assert desk.ledger.run(models.retire(desk.prefix, OTHER)).retired
    assert refused(desk, model=OTHER).known == (MODEL,)
    left = {name for name in desk.everything() if OTHER in name}
    assert left == set()


def test_a_model_in_use_is_not_retired(desk: Desk) -> None:
    come(desk, present(model=OTHER))
    desk.submit(model=OTHER)
    running = desk.submit(model=OTHER)
    desk.claim(running)
    desk.ledger.run(models.set_default(desk.prefix, OTHER))
    before = desk.everything()
    answer = desk.ledger.run(models.retire(desk.prefix, OTHER))
    assert not answer.retired
    assert (answer.workers, answer.queued, answer.running, answer.is_default) == (1, 1, 1, True)
    assert desk.everything() == before


def test_a_model_that_is_not_known_cannot_be_retired(desk: Desk) -> None:
    assert desk.ledger.run(models.retire(desk.prefix, "nobody-s")).known == (MODEL,)


def test_jobs_of_a_model_that_is_retired_by_force_are_canceled(desk: Desk) -> None:
    # Given jobs of several levels and tenants, one that backs off, one that runs, and another model's
    desk.serve(OTHER)
    mine = [
        desk.submit(model=OTHER, priority=level, **extra)
        for level in ("high", "low")
        for extra in ({}, {"tenant": "a"})
    ]
    backs_off, runs = desk.submit(model=OTHER), desk.submit(model=OTHER)
    token = desk.claim(backs_off)
    desk.release(backs_off, token, delay_s=60)
    desk.claim(runs)
    not_mine = desk.submit(model=MODEL)
    # When
    assert desk.ledger.run(models.retire(desk.prefix, OTHER, force=True)).retired
    canceled, offset, rounds = 0, 0, 0
    while offset is not None and rounds < 20:
        rounds += 1
        done, offset = desk.ledger.run(
            models.cancel_queued(desk.prefix, OTHER, offset=offset, cap=2)
        )
        canceled += done
    # Then
    assert canceled == 5
    assert {desk.record(job).status for job in [*mine, backs_off]} == {JobStatus.CANCELED}
    assert "retired" in desk.record(mine[0]).error.message
    assert desk.record(runs).status is JobStatus.RUNNING
    assert desk.record(not_mine).status is JobStatus.QUEUED
    assert desk.queued(OTHER) == {"": 0}
