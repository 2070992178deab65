"""Ids sort by time and cannot be guessed."""

from __future__ import annotations

import re
import time
import uuid

import pytest

from maskq.contract.ids import new_id, new_token

RANDOM_A, RANDOM_B = 12, 62  # random bits beside version and variant


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


def test_two_ids_of_one_millisecond_differ_in_every_random_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Given many ids of the same millisecond
    monkeypatch.setattr(time, "time_ns", lambda: 1_700_000_000_000_000_000)
    values = [uuid.UUID(new_id()).int for _ in range(200)]
    # Then each random bit was 0 in some and 1 in others, and no other bit ever changed
    seen_one = seen_zero = 0
    for value in values:
        seen_one |= value
        seen_zero |= ~value & (2**128 - 1)
    free = ((2**RANDOM_A - 1) << 64) | (2**RANDOM_B - 1)
    assert seen_one & seen_zero == free


def test_ten_thousand_ids_and_tokens_are_all_different() -> None:
    assert len({new_id() for _ in range(10_000)}) == 10_000
    assert len({new_token() for _ in range(10_000)}) == 10_000


def test_a_token_is_long_enough_and_never_empty() -> None:
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{16}", new_token()) for _ in range(100))
