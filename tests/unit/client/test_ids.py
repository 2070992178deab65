"""Ids sort in the order of their making and cannot be guessed."""

from __future__ import annotations

import itertools
import re
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from maskq.contract import ids as ids_module
from maskq.contract.ids import new_id, new_token

RANDOM_BITS = 62  # beside time, version and variant


@pytest.fixture(autouse=True)
def _no_id_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests set the clock back."""
    monkeypatch.setattr(ids_module._last, "tick", 0)


def test_an_id_is_a_uuid_version_7_of_the_rfc_variant() -> None:
    text = new_id()
    parsed = uuid.UUID(text)
    assert str(parsed) == text
    assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)


def test_an_id_begins_with_the_milliseconds_of_its_making() -> None:
    before = time.time_ns() // 1_000_000
    made = uuid.UUID(new_id()).int >> 80
    assert before <= made <= time.time_ns() // 1_000_000


def test_ids_sort_by_time_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = []
    for milliseconds in (1, 2, 255, 256, 1_700_000_000_000, 1_700_000_000_001, 2**48 - 1):
        monkeypatch.setattr(time, "time_ns", lambda value=milliseconds: value * 1_000_000 + 999_999)
        ids.append(new_id())
    assert sorted(ids) == ids


@pytest.mark.parametrize("step_ns", [0, 1, 250, -1_000_000_000])
def test_a_thread_s_ids_ascend_whatever_its_clock_does(
    monkeypatch: pytest.MonkeyPatch, step_ns: int
) -> None:
    # Given a clock that stands, is too coarse, or is set back before every id
    clock = itertools.count(1_700_000_000_000_000_000, step_ns)
    monkeypatch.setattr(time, "time_ns", lambda: next(clock))
    ids = [new_id() for _ in range(10_000)]
    assert all(before < after for before, after in itertools.pairwise(ids))


def test_ids_of_other_threads_and_of_a_copied_process_stay_different(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 1_700_000_000_000_000_000)
    with ThreadPoolExecutor(4) as pool:
        of_threads = list(pool.map(lambda _: new_id(), range(1000)))
    monkeypatch.setattr(ids_module._last, "tick", 0)
    first = new_id()
    monkeypatch.setattr(ids_module._last, "tick", 0)  # as a fork would find it
    assert len({*of_threads, first, new_id()}) == 1002


def test_two_ids_of_one_moment_differ_in_every_random_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Given many ids of the same moment
    monkeypatch.setattr(time, "time_ns", lambda: 1_700_000_000_000_000_000)
    values = []
    for _ in range(200):
        monkeypatch.setattr(ids_module._last, "tick", 0)
        values.append(uuid.UUID(new_id()).int)
    # Then each random bit was 0 in some and 1 in others, and no other bit ever changed
    seen_one = seen_zero = 0
    for value in values:
        seen_one |= value
        seen_zero |= ~value & (2**128 - 1)
    assert seen_one & seen_zero == 2**RANDOM_BITS - 1


def test_ten_thousand_ids_and_tokens_are_all_different() -> None:
    assert len({new_id() for _ in range(10_000)}) == 10_000
    assert len({new_token() for _ in range(10_000)}) == 10_000


def test_a_token_is_long_enough_and_never_empty() -> None:
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{16}", new_token()) for _ in range(100))
