"""A store that fails holds up its own jobs; the deployment's own bucket holds up claiming."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from types import SimpleNamespace

import pytest
from support.threads import StartedThreads
from support.waiting import until

from maskq.backoff import ExponentialBackoff, Jitter
from maskq.contract import FailureCode
from maskq.s3.errors import Meaning, StoreError
from maskq_worker.storage.circuit_breaker import CircuitOpen, StoreCircuitBreaker, outage

WAIT_S = 10.0
HOME = "maskq"
THREADS = ("maskq-outage", "maskq-stores")
REFUSED = StoreError(FailureCode.ACCESS_DENIED, "ExpiredToken", Meaning.CREDENTIALS)


class Stores:
    """What a probe finds."""

    def __init__(self) -> None:
        self.down: dict[str, StoreError] = {}
        self.probed: list[str] = []

    def probe(self, name: str) -> StoreError | None:
        self.probed.append(name)
        return self.down.get(name)


@pytest.fixture(autouse=True)
def _own_log(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Another test of the process may have changed the levels of the loggers above."""
    own = logging.Logger("circuit_breaker")
    own.addHandler(caplog.handler)
    monkeypatch.setattr("maskq_worker.storage.circuit_breaker.logger", own)


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maskq_worker.storage.circuit_breaker._PROBE_EVERY_S", 0.01)
    monkeypatch.setattr("maskq_worker.storage.circuit_breaker._RENEW_EVERY_S", 0.01)
    monkeypatch.setattr(
        "maskq_worker.storage.circuit_breaker.STORE_CIRCUIT",
        ExponentialBackoff(0.02, 0.1, Jitter(0.8, 1.0)),
    )
    monkeypatch.setattr("maskq_worker.storage.circuit_breaker._WAIT_S", 0.05)


@pytest.fixture
def stores() -> Stores:
    return Stores()


@pytest.fixture
def threads() -> StartedThreads:
    return StartedThreads()


@pytest.fixture
def breaker(stores: Stores, threads: StartedThreads) -> Iterator[StoreCircuitBreaker]:
    made = StoreCircuitBreaker(HOME, 8, stores.probe)
    yield made
    made.close()
    until(lambda: not threads.named(*THREADS))  # the next test does not see what they log


def fail(breaker: StoreCircuitBreaker, name: str, *, probed: bool = True) -> None:
    with pytest.raises(StoreError), breaker.using(name, probed=probed):
        raise outage(f"{name} does not answer")


def works(breaker: StoreCircuitBreaker, name: str, *, probed: bool = True) -> bool:
    try:
        with breaker.using(name, probed=probed):
            return True
    except CircuitOpen:
        return False


def test_while_all_answer_nobody_waits_and_nothing_is_probed(
    breaker: StoreCircuitBreaker, stores: Stores
) -> None:
    assert all(works(breaker, name) for name in (HOME, "a", "b"))
    assert breaker.may_claim
    assert breaker.wait_to_claim()
    time.sleep(0.05)
    assert stores.probed == []


# --- the deployment's own bucket -------------------------------------------------------------------


def test_while_home_is_away_all_wait_until_it_answers(
    breaker: StoreCircuitBreaker, stores: Stores, threads: StartedThreads
) -> None:
    stores.down[HOME] = outage("away")
    fail(breaker, HOME)
    fail(breaker, HOME)  # the second to notice
    assert not breaker.may_claim
    with ThreadPoolExecutor(3) as pool:
        waits = [pool.submit(breaker.wait_to_claim) for _ in range(3)]
        until(lambda: len(stores.probed) > 2)
        assert not any(wait.done() for wait in waits)
        stores.down.clear()
        assert [wait.result(WAIT_S) for wait in waits] == [True] * 3
    until(lambda: not threads.named(*THREADS))


def test_it_can_happen_again(breaker: StoreCircuitBreaker) -> None:
    for _ in range(2):
        fail(breaker, HOME)
        assert breaker.wait_to_claim()


def test_a_worker_that_stops_lets_all_go_without_a_claim(
    breaker: StoreCircuitBreaker, stores: Stores
) -> None:
    stores.down[HOME] = outage("away")
    fail(breaker, HOME)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(breaker.wait_to_claim)
        breaker.close()
        assert waiting.result(WAIT_S) is False
    assert breaker.wait_to_claim() is False


def test_a_worker_that_stops_does_not_say_that_the_store_answers(
    breaker: StoreCircuitBreaker,
    stores: Stores,
    threads: StartedThreads,
    caplog: pytest.LogCaptureFixture,
) -> None:
    stores.down[HOME] = outage("away")
    fail(breaker, HOME)
    until(lambda: stores.probed)  # after the first warning
    breaker.close()
    until(lambda: not threads.named(*THREADS))
    assert "no job is claimed until the store answers" in caplog.text
    assert "the object store answers after" not in caplog.text


def test_refused_credentials_are_said_as_an_error_once_and_then_every_minute(
    breaker: StoreCircuitBreaker,
    stores: Stores,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stores.down[HOME] = REFUSED
    breaker.home_failed(REFUSED)
    until(lambda: len(stores.probed) > 5)
    assert [one.levelno for one in caplog.records] == [logging.ERROR]
    monkeypatch.setattr("maskq_worker.storage.circuit_breaker._LOG_EVERY_S", 0.0)
    until(lambda: len(caplog.records) > 1)
    stores.down.clear()
    assert breaker.wait_to_claim()


def test_a_fault_in_asking_does_not_stop_claiming_for_ever(
    breaker: StoreCircuitBreaker, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = [1, 2, 3]

    def broken(_: str) -> None:
        if left:
            raise ZeroDivisionError(left.pop())

    monkeypatch.setattr(breaker, "_probe", broken)
    fail(breaker, HOME)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(breaker.wait_to_claim).result(WAIT_S)


# --- any other store -------------------------------------------------------------------------------


def test_a_store_that_fails_is_left_alone_and_no_other_is(
    breaker: StoreCircuitBreaker, stores: Stores
) -> None:
    stores.down["bad"] = outage("bad is away")
    fail(breaker, "bad")
    until(lambda: breaker.may_claim)  # home was asked, and answered
    assert not works(breaker, "bad")
    with pytest.raises(CircuitOpen, match="bad"):
        breaker.check("bad")
    assert works(breaker, "good")
    assert works(breaker, HOME)
    breaker.check("good")


def test_if_home_does_not_answer_either_nothing_is_claimed(
    breaker: StoreCircuitBreaker, stores: Stores
) -> None:
    stores.down = {"bad": outage("away"), HOME: outage("away")}
    fail(breaker, "bad")
    until(lambda: stores.probed.count(HOME) > 2)
    assert not breaker.may_claim


def test_one_job_tries_a_store_that_answers_a_probe_and_the_others_follow(
    breaker: StoreCircuitBreaker, stores: Stores
) -> None:
    fail(breaker, "bad")
    until(lambda: "bad" in stores.probed)
    with ExitStack() as trial:
        until(lambda: enter(trial, breaker, "bad"))
        assert not works(breaker, "bad")  # one at a time
    assert works(breaker, "bad")


def enter(stack: ExitStack, breaker: StoreCircuitBreaker, name: str) -> bool:
    try:
        stack.enter_context(breaker.using(name))
    except CircuitOpen:
        return False
    return True


def test_each_trial_that_fails_is_followed_by_a_longer_pause(
    breaker: StoreCircuitBreaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "maskq_worker.storage.circuit_breaker.STORE_CIRCUIT",
        ExponentialBackoff(60.0, 6000.0, Jitter(0.8, 1.0)),
    )
    pauses = []
    for _ in range(4):
        fail(breaker, "bad")
        with pytest.raises(CircuitOpen) as caught, breaker.using("bad"):
            raise AssertionError
        pauses.append(caught.value.retry_s)
        breaker._stores["bad"].half_open = True  # as after a probe
    assert pauses == sorted(pauses)
    assert pauses[-1] > 4 * pauses[0]


def test_requests_that_fail_together_count_as_one_failure(breaker: StoreCircuitBreaker) -> None:
    both = threading.Barrier(2)

    def failing() -> None:
        with breaker.using("bad"):
            both.wait(WAIT_S)
            raise outage("away")

    with breaker.using("bad") as use:
        use.answered()  # so that two are let in
    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(failing) for _ in range(2)]:
            assert isinstance(future.exception(WAIT_S), StoreError)
    assert breaker._stores["bad"].failures == 1


def test_an_answer_that_is_no_use_is_still_an_answer(
    breaker: StoreCircuitBreaker, stores: Stores
) -> None:
    fail(breaker, "bad")
    until(lambda: breaker._stores["bad"].half_open)
    with suppress(ZeroDivisionError), breaker.using("bad") as use:
        use.answered()
        raise ZeroDivisionError
    assert works(breaker, "bad")
    refusal = StoreError(FailureCode.STORE_REFUSED, "no")
    for _ in range(9):
        with pytest.raises(StoreError), breaker.using("strict"):
            raise refusal
    assert works(breaker, "strict")


def test_a_host_is_tried_again_after_its_pause_without_a_probe(
    breaker: StoreCircuitBreaker, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "maskq_worker.storage.circuit_breaker.STORE_CIRCUIT", ExponentialBackoff(60.0, 60.0)
    )
    fail(breaker, "host:443", probed=False)
    assert not works(breaker, "host:443", probed=False)
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + 60.0)
    monkeypatch.setattr("maskq_worker.storage.circuit_breaker.time", clock)
    assert works(breaker, "host:443", probed=False)
    assert "host:443" not in stores.probed


def held(
    pool: ThreadPoolExecutor, breaker: StoreCircuitBreaker, name: str, end: threading.Event
) -> Future[bool]:
    def hold() -> bool:
        try:
            with breaker.using(name):
                return end.wait(WAIT_S)
        except CircuitOpen:
            return False

    return pool.submit(hold)


def test_a_store_counts_as_open_until_a_job_may_try_it(
    breaker: StoreCircuitBreaker, stores: Stores
) -> None:
    # A bucket until a probe finds that it answers
    stores.down["bucket"] = outage("away")
    fail(breaker, "bucket")
    until(lambda: stores.probed.count("bucket") > 2)
    assert breaker.open_count == 1
    stores.down.clear()
    until(lambda: breaker.open_count == 0)
    # A host until its pause is over, also if no further job asks for it
    fail(breaker, "host", probed=False)
    until(lambda: breaker.open_count == 0)
    assert works(breaker, "host", probed=False)


@pytest.mark.parametrize(("known", "kept"), [(False, 2), (True, 6)])
def test_a_store_that_hangs_keeps_some_of_eight_jobs_and_never_all(
    breaker: StoreCircuitBreaker, known: bool, kept: int
) -> None:
    if known:
        assert works(breaker, "hung")
    end = threading.Event()
    with ThreadPoolExecutor(9) as pool:
        jobs = [held(pool, breaker, "hung", end) for _ in range(8)]
        until(lambda: sum(job.done() for job in jobs) == 8 - kept)
        assert works(breaker, "good")
        end.set()
        assert sum(job.result(WAIT_S) for job in jobs) == kept


def test_a_store_nobody_knew_serves_all_once_it_has_answered(
    breaker: StoreCircuitBreaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And who waited for that is not sent away."""
    monkeypatch.setattr("maskq_worker.storage.circuit_breaker._WAIT_S", WAIT_S)
    answer = threading.Event()
    with ThreadPoolExecutor(8) as pool:
        # Given the two jobs that may try an unknown store, and six that wait for its answer
        first = [held(pool, breaker, "new", answer) for _ in range(2)]
        until(lambda: breaker._stores and len(breaker._stores["new"].uses) == 2)
        waiting = [pool.submit(works, breaker, "new") for _ in range(6)]
        until(lambda: len(breaker._changed._waiters) == 6)  # type: ignore[attr-defined]
        # When it answers
        answer.set()
        assert all(job.result(WAIT_S) for job in [*first, *waiting])


def test_a_long_transfer_is_not_a_store_that_hangs(
    breaker: StoreCircuitBreaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maskq_worker.storage.circuit_breaker._SLOW_S", 0.02)
    with breaker.using("slow") as first, breaker.using("big", size=2**30):
        time.sleep(0.05)
        assert not works(breaker, "slow") or first.is_answered is False
        first.answered()
        assert all(works(breaker, name) for name in ("slow", "big"))


def test_no_more_than_a_thousand_stores_are_remembered(breaker: StoreCircuitBreaker) -> None:
    for number in range(3000):
        assert works(breaker, f"bucket-{number}")
    assert len(breaker._stores) <= 1000


# --- threads that wait for a silent store need no slot ------------------------------------------------


def test_a_request_counts_as_stalled_until_its_store_answers(
    breaker: StoreCircuitBreaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maskq_worker.storage.circuit_breaker._STALLED_S", 0.0)
    with breaker.using("silent") as use:
        until(lambda: breaker.stalled() == 1)
        use.answered()
        assert breaker.stalled() == 0
    assert breaker.stalled() == 0


def test_a_request_of_a_moment_ago_and_one_that_carries_much_are_not_stalled(
    breaker: StoreCircuitBreaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    with breaker.using("a"):
        assert breaker.stalled() == 0
    monkeypatch.setattr("maskq_worker.storage.circuit_breaker._STALLED_S", 0.0)
    with breaker.using("a", size=2**30):
        assert breaker.stalled() == 0


def test_the_own_bucket_never_counts_as_stalled(
    breaker: StoreCircuitBreaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maskq_worker.storage.circuit_breaker._STALLED_S", -1.0)
    with breaker.using(HOME), breaker.using("silent"):
        assert breaker.stalled() == 1
