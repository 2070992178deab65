"""At Redis' memory limit new jobs are refused; what runs ends, and what ended is seen."""

from __future__ import annotations

import pytest

from maskq.contract import JobStatus
from maskq.contract.ids import new_id
from maskq.errors import QueueFull
from maskq.ledger import calls
from maskq.ledger.calls import ReleaseOutcome
from maskq.ledger.scripts import script

from . import ledger_desk
from .ledger_desk import MODEL, Desk, asked

own_desk = ledger_desk.own_desk


def fill(desk: Desk) -> None:
    assert desk.redis.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    desk.redis.config_set("maxmemory", 1)


def test_only_submit_is_refused_at_the_memory_limit(own_desk: Desk) -> None:
    desk = own_desk
    # Given jobs in every state; the server has not been given most of the scripts yet
    jobs = {n: desk.claimed_job() for n in ("succeeds", "fails", "released", "delayed", "kept")}
    queued, unwanted = desk.submit(tenant="ada"), desk.submit()
    jobs |= {name: desk.claimed_job() for name in ("swept", "timed out")}
    desk.lease_runs_out(jobs["swept"][0])
    desk.time_is_up(jobs["timed out"][0])
    desk.redis.hset(desk.key("sweeper"), "swept_ms", desk.now_ms() - 1000)
    desk.redis.script_load(script("sweep").text)  # this server has swept before
    before = {name for name in desk.key_names() if ":job:" in name}
    # When
    fill(desk)
    # Then
    refused = new_id()
    with pytest.raises(QueueFull, match="memory limit"):
        desk.submit(refused)
    with pytest.raises(QueueFull, match="memory limit"):
        desk.ledger.run_many([_submit_call(desk), _submit_call(desk)])
    assert {name for name in desk.key_names() if ":job:" in name} == before
    # And everything else goes on
    assert desk.succeed(*jobs["succeeds"])
    assert desk.fail(*jobs["fails"])
    assert desk.release(*jobs["released"]) is ReleaseOutcome.QUEUED
    assert desk.release(*jobs["delayed"], delay_s=60) is ReleaseOutcome.QUEUED
    assert desk.renew(dict([jobs["kept"]])) == frozenset()
    assert desk.cancel(unwanted) is JobStatus.CANCELED
    assert set(desk.take_many(2)) == {queued, jobs["released"][0]}
    desk.ledger.run(calls.send_ticket(desk.prefix, MODEL))
    swept = desk.sweep(after_ms=None)
    assert (swept.swept, swept.reaped, swept.due) == (1, 1, 1)
    assert desk.succeed(queued, desk.raw(queued)["token"])
    assert desk.record(jobs["timed out"][0]).status is JobStatus.FAILED
    assert len(desk.jobs().records) == 9
    assert desk.delete(unwanted) == "deleted"
    assert desk.ledger.run(calls.stream_ends(desk.prefix)).last != "0-0"
    assert desk.ledger.run(calls.batch_progress(desk.prefix, "none")) is None


def _submit_call(desk: Desk) -> calls.Call[calls.Submitted]:
    return calls.submit(desk.prefix, new_id(), asked(), calls.Limits())


def test_submissions_are_accepted_again_once_there_is_memory(own_desk: Desk) -> None:
    fill(own_desk)
    with pytest.raises(QueueFull):
        own_desk.submit()
    own_desk.redis.config_set("maxmemory", 0)
    assert own_desk.submit()
