"""What a newer version writes, this version reads; what it cannot run, it leaves to a newer worker.

During a rolling upgrade both run side by side, and `tests/acceptance/test_former_releases.py` has the
other direction.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from support import ledger_harness
from support.ledger_harness import LedgerHarness

from maskq.contract import FailureCode, Output
from maskq.contract.api_keys import ApiKey, Scope
from maskq.ledger import calls, keys
from maskq.ledger.calls import ClaimOutcome, api_keys, groups, models
from maskq.ledger.calls.queueing import tenants

harness = ledger_harness.harness


def rewritten(harness: LedgerHarness, job_id: str, field: str, **more: Any) -> None:
    """Add fields to the JSON in a field of a record, as a newer version would."""
    document = json.loads(harness.raw(job_id)[field]) | more
    harness.redis.hset(keys.record(job_id).within(harness.prefix), field, json.dumps(document))


@pytest.mark.parametrize(
    "newer",
    [
        {"focus": "sky"},
        {"outputs": ["mask", "depth"]},
        {"mode": "hexagons"},
        {"priority": "urgent"},
    ],
)
def test_a_request_of_a_newer_client_is_shown_and_left_to_a_newer_worker(
    harness: LedgerHarness, newer: dict[str, Any]
) -> None:
    job_id = harness.submit()
    rewritten(harness, job_id, "request", **newer)
    assert harness.record(job_id).request.image_uri == "s3://photos/a.png"
    assert [one.id for one in harness.jobs().records] == [job_id]
    claimed = harness.try_claim()
    assert (claimed.outcome, claimed.record) == (ClaimOutcome.CLAIMED, None)
    assert claimed.newer == next(iter(newer))


def test_fields_of_a_newer_record_are_ignored(harness: LedgerHarness) -> None:
    job_id, token = harness.claimed_job()
    name = keys.record(job_id).within(harness.prefix)
    harness.redis.hset(name, mapping={"tracedepth": "3", "shadow_of": "another"})
    assert harness.succeed(job_id, token)
    rewritten(harness, job_id, "result", confidence_mean=0.5)
    record = harness.record(job_id)
    assert record.result is not None
    assert Output.MASK in record.result.outputs
    assert harness.redis.hget(name, "tracedepth") == "3"


def test_an_output_of_a_newer_worker_is_named_and_its_job_is_listed(harness: LedgerHarness) -> None:
    job_id, token = harness.claimed_job()
    assert harness.succeed(job_id, token)
    known = harness.record(job_id).result
    assert known is not None
    place = known.outputs[Output.MASK].replace("mask.png", "depth.png")
    rewritten(
        harness,
        job_id,
        "result",
        outputs={**known.outputs, "depth": place},
        output_sha256={"depth": "0" * 64},
    )
    (listed,) = harness.jobs().records
    assert listed.result is not None
    assert listed.result.outputs == {**known.outputs, "depth": place}
    assert all(isinstance(one, Output) for one in known.outputs)
    assert listed.public()["result"]["output_sha256"] == {"depth": "0" * 64}


def test_an_error_code_of_a_newer_worker_is_named(harness: LedgerHarness) -> None:
    job_id, token = harness.claimed_job()
    harness.fail(job_id, token)
    rewritten(harness, job_id, "error", code="image_too_dark")
    error = harness.record(job_id).error
    assert error is not None
    assert error.code is FailureCode.INTERNAL
    assert "'image_too_dark'" in error.message
    # Who passes the record on does not say it twice
    again = type(error).model_validate_json(error.model_dump_json())
    assert again == error


def test_settings_of_a_newer_tenant_are_kept(harness: LedgerHarness) -> None:
    name = harness.key("tenant", "acme")
    harness.ledger.run(tenants.change("acme", {"weight": 2}))
    harness.redis.hset(name, "max_pixels", "1000")
    assert harness.ledger.run(tenants.change("acme", {"weight": 3})).settings.weight == 3
    assert harness.redis.hget(name, "max_pixels") == "1000"


def test_workers_of_a_newer_version_are_listed(harness: LedgerHarness) -> None:
    worker = {
        "owner": "b:1",
        "model": "demo",
        "revision": "2",
        "labels": 3,
        "since_ms": 1,
        "rate": 4,
    }
    harness.redis.zadd(
        harness.key("workers", "demo"), {json.dumps(worker): harness.now_ms() + 9999}
    )
    known = harness.ledger.run(models.known(calls.Limits())).each[0]
    assert [one.owner for one in known.workers] == ["b:1"]


def test_events_of_a_newer_version_are_read(harness: LedgerHarness) -> None:
    job_id = harness.submit()
    event = harness.events(job_id)[0] | {"tracedepth": "3", "type": "maskq.job.paused"}
    harness.redis.xadd(harness.key("events"), {"event": json.dumps(event), "more": "1"})
    events = harness.ledger.run(calls.read_events("0", block_ms=1))
    assert [one.type for one in events] == ["maskq.job.queued", "maskq.job.paused"]
    member = groups.Member("billing", "one")
    harness.ledger.run(groups.join(member, "0"))


def test_a_key_with_a_scope_of_a_newer_version_allows_what_is_known(harness: LedgerHarness) -> None:
    key = ApiKey(id="0123456789", scopes=frozenset({Scope.READ}))
    harness.ledger.run(api_keys.create(key, "digest", None))
    name = harness.key("api-key", key.id)
    about = json.loads(harness.redis.hget(name, "about")) | {"scopes": ["read", "audit"]}
    harness.redis.hset(name, "about", json.dumps(about))
    (listed,) = harness.ledger.run(api_keys.each())
    assert listed.allows(Scope.READ)
    assert not listed.allows(Scope.SUBMIT)
