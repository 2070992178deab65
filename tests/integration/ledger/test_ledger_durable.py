"""touch and fsync: a caller may wait until what it wrote is on disk, and is told if it is not."""

from __future__ import annotations

import pytest
from support import ledger_harness
from support.ledger_harness import LedgerHarness, asked

from maskq.errors import StoreUnavailable
from maskq.ledger import calls

harness = ledger_harness.harness
own_harness = ledger_harness.own_harness


def test_what_was_written_is_on_disk_within_the_second(harness: LedgerHarness) -> None:
    submission = calls.submit("a", asked(), calls.Limits())
    _, safe = harness.ledger.run_many([submission, calls.fsync(4.0)])
    assert safe is True


def test_a_touch_gives_a_submission_sent_twice_something_to_wait_for(
    harness: LedgerHarness,
) -> None:
    before = harness.everything()
    for _ in range(2):
        *_, safe = harness.ledger.run_many([calls.touch(), calls.fsync(4.0)])
        assert safe is True
    # It is one key, however often
    assert set(harness.everything()) - set(before) == {harness.key("durable")}


def test_a_disk_that_does_not_answer_in_time_is_told(own_harness: LedgerHarness) -> None:
    own_harness.redis.config_set("appendfsync", "no")
    *_, safe = own_harness.ledger.run_many([calls.touch(), calls.fsync(0.05)])
    assert safe is False


def test_a_redis_without_a_file_cannot_promise(own_harness: LedgerHarness) -> None:
    own_harness.redis.config_set("appendonly", "no")
    with pytest.raises(StoreUnavailable, match="appendonly"):
        own_harness.ledger.run(calls.fsync(0.001))
