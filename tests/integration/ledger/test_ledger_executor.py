"""The executors: blocking and async, the same answers and the same errors."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from support import ledger_harness
from support.ledger_harness import LedgerHarness

from maskq.contract import JobStatus
from maskq.contract.ids import new_id
from maskq.errors import StoreUnavailable
from maskq.ledger import AsyncLedger, Ledger, calls

harness = ledger_harness.harness


def in_a_loop(
    url: str, work: Callable[[AsyncLedger], Awaitable[Any]], prefix: str = "maskq"
) -> Any:
    async def main() -> Any:
        ledger = AsyncLedger(url, prefix)
        try:
            return await work(ledger)
        finally:
            await ledger.close()

    return asyncio.run(main())


def test_a_server_that_forgot_its_scripts_is_taught_again(
    harness: LedgerHarness, redis_url: str
) -> None:
    """As after a restart or a failover."""
    first, second = harness.submit(), harness.submit()
    both = [calls.cancel(first), calls.cancel(second)]
    for ask in (
        lambda: [harness.ledger.run(call) for call in both],
        lambda: harness.ledger.run_many(both),
        lambda: in_a_loop(redis_url, lambda ledger: ledger.run_many(both), harness.prefix),
    ):
        harness.redis.script_flush()
        assert ask() == [JobStatus.CANCELED] * 2
    harness.redis.script_flush()
    assert (
        in_a_loop(redis_url, lambda ledger: ledger.run(both[0]), harness.prefix)
        is JobStatus.CANCELED
    )


def test_answers_of_many_calls_come_in_order(harness: LedgerHarness, redis_url: str) -> None:
    known, unknown = harness.submit(), new_id()
    asked = [calls.get(one) for one in (known, unknown, known)]
    records = harness.ledger.run_many(asked)
    assert [record and record.id for record in records] == [known, None, known]
    assert in_a_loop(redis_url, lambda ledger: ledger.run_many(asked), harness.prefix) == records
    assert harness.ledger.run_many([]) == []


def test_a_call_that_is_refused_leaves_the_answers_of_others(
    harness: LedgerHarness, redis_url: str
) -> None:
    known = harness.submit()
    harness.redis.set(harness.key("job", "odd"), "not a hash")
    for names in ([known, "odd", "none"], ["odd"], [known]):
        asked = [calls.get(name) for name in names]
        for answers in (
            harness.ledger.run_each(asked),
            in_a_loop(
                redis_url, lambda ledger, asked=asked: ledger.run_each(asked), harness.prefix
            ),
        ):
            told = dict(zip(names, answers, strict=True))
            assert told.get(known) == (harness.record(known) if known in names else None)
            assert isinstance(told.get("odd"), StoreUnavailable) is ("odd" in names)
            assert told.get("none") is None


@pytest.mark.parametrize("wrong", ["password", "port"])
def test_an_unusable_url_is_named_without_its_password(redis_url: str, wrong: str) -> None:
    # Given
    secret = "swordfish"
    place = redis_url.rpartition("@")[2] if wrong == "password" else "127.0.0.1:1/0"
    url = f"redis://:{secret}@{place}"
    call = calls.get("1")
    # When
    ledger = Ledger(url, "maskq")
    with pytest.raises(StoreUnavailable) as blocking:
        ledger.run(call)
    ledger.close()
    with pytest.raises(StoreUnavailable) as awaited:
        in_a_loop(url, lambda ledger: ledger.run(call))
    # Then
    for raised in (blocking, awaited):
        assert place in str(raised.value)
        assert re.search("redis_url|MASKQ_REDIS_URL", str(raised.value))
        assert secret not in str(raised.value)


def test_a_key_of_another_kind_is_an_error_with_redis_own_words(harness: LedgerHarness) -> None:
    harness.redis.set(harness.key("job", "odd"), "not a hash")
    with pytest.raises(StoreUnavailable, match="WRONGTYPE"):
        harness.ledger.run(calls.get("odd"))
    with pytest.raises(StoreUnavailable, match="WRONGTYPE"):
        harness.try_claim(job_id="odd")
