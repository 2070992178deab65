"""At Redis' memory limit new jobs are refused; what runs ends, and what ended is seen."""

from __future__ import annotations

import pytest
from support import ledger_harness
from support.ledger_harness import MODEL, LedgerHarness, asked

from maskq.contract import JobStatus
from maskq.contract.ids import new_id
from maskq.errors import QueueFull
from maskq.ledger import calls
from maskq.ledger.calls import ReleaseOutcome
from maskq.ledger.scripts import script

own_harness = ledger_harness.own_harness


def fill(harness: LedgerHarness) -> None:
    assert harness.redis.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    harness.redis.config_set("maxmemory", 1)


def test_only_submit_is_refused_at_the_memory_limit(own_harness: LedgerHarness) -> None:
    harness = own_harness
    # Given jobs in every state; the server has not been given most of the scripts yet
    jobs = {n: harness.claimed_job() for n in ("succeeds", "fails", "released", "delayed", "kept")}
    queued, unwanted = harness.submit(tenant="ada"), harness.submit()
    jobs |= {name: harness.claimed_job() for name in ("swept", "timed out")}
    harness.lease_runs_out(jobs["swept"][0])
    harness.time_is_up(jobs["timed out"][0])
    harness.redis.hset(harness.key("sweeper"), "swept_ms", harness.now_ms() - 1000)
    harness.redis.script_load(script("sweep").text)  # this server has swept before
    before = {name for name in harness.key_names() if ":job:" in name}
    # When
    fill(harness)
    # Then
    refused = new_id()
    with pytest.raises(QueueFull, match="memory limit"):
        harness.submit(refused)
    with pytest.raises(QueueFull, match="memory limit"):
        harness.ledger.run_many([_submit_call(harness), _submit_call(harness)])
    assert {name for name in harness.key_names() if ":job:" in name} == before
    # And everything else goes on
    assert harness.succeed(*jobs["succeeds"])
    assert harness.fail(*jobs["fails"])
    assert harness.release(*jobs["released"]) is ReleaseOutcome.QUEUED
    assert harness.release(*jobs["delayed"], delay_s=60) is ReleaseOutcome.QUEUED
    assert harness.renew(dict([jobs["kept"]])) == frozenset()
    assert harness.cancel(unwanted) is JobStatus.CANCELED
    assert set(harness.take_many(2)) == {queued, jobs["released"][0]}
    harness.ledger.run(calls.send_ticket(MODEL))
    swept = harness.sweep(after_ms=None)
    assert (swept.swept, swept.reaped, swept.due) == (1, 1, 1)
    assert harness.succeed(queued, harness.raw(queued)["token"])
    assert harness.record(jobs["timed out"][0]).status is JobStatus.FAILED
    assert len(harness.jobs().records) == 9
    assert harness.delete(unwanted) == "deleted"
    assert harness.ledger.run(calls.stream_ends()).last != "0-0"
    assert harness.ledger.run(calls.batch_progress("none")) is None


def _submit_call(harness: LedgerHarness) -> calls.Call[calls.Submitted]:
    return calls.submit(new_id(), asked(), calls.Limits())


def test_submissions_are_accepted_again_once_there_is_memory(own_harness: LedgerHarness) -> None:
    fill(own_harness)
    with pytest.raises(QueueFull):
        own_harness.submit()
    own_harness.redis.config_set("maxmemory", 0)
    assert own_harness.submit()
