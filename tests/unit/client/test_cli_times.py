"""Times as they are typed for `maskq list --ended-since`."""

from __future__ import annotations

import time

import pytest

from maskq.cli.durations import moment
from maskq.errors import InvalidRequest


def test_a_duration_is_so_long_ago() -> None:
    assert moment("2h") == pytest.approx(time.time() - 7200, abs=5)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-02T00:00:00Z", 86_400),
        ("1970-01-02T01:00:00+01:00", 86_400),
        ("1970-01-02", 86_400 + time.timezone),
    ],
)
def test_a_time_is_read_with_its_offset(text: str, seconds: float) -> None:
    assert moment(text) == seconds


@pytest.mark.parametrize("text", ["", "yesterday", "2", "-2h", "1970-13-01"])
def test_another_text_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InvalidRequest, match="write 90s, 15m, 12h or 30d"):
        moment(text)
