"""Progress of commands: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import io
import re

import pytest

from maskq.cli.reporting import progress
from maskq.cli.reporting.tables import duration


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def plain(text: str) -> str:
    """The text without the terminal's control sequences."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "xterm-256color")


def test_a_terminal_shows_a_bar_and_takes_it_away() -> None:
    stream = Terminal()
    with progress.Progress(stream=stream) as shown:
        shown.show(6, "ended", of=12, failed=2, note="the queue is full [bold]")
        shown.say("a line")
    drawn, said = plain(stream.getvalue()).split("maskq: a line\n")
    assert "━━━━━━━━━━━━" in drawn
    assert re.search(r"6 of 12 ended, 2 failed, .*/s, the queue is full \[bold\]", drawn)
    assert "ended" not in said
    assert stream.getvalue().count("\x1b[?25l") == stream.getvalue().count(
        "\x1b[?25h"
    )  # the cursor


def test_text_of_others_cannot_control_the_terminal() -> None:
    stream = Terminal()
    with progress.Progress(stream=stream) as shown:
        shown.show(1, "ended", note="\x1b]0;title\x07 https://user:secret@host/")
    assert "\x1b]0;" not in stream.getvalue()
    assert "secret" not in stream.getvalue()


def test_an_error_removes_the_bar_and_shows_the_cursor() -> None:
    stream = Terminal()
    shown = progress.Progress(stream=stream)
    shown.show(1, "ended", of=2)
    with pytest.raises(KeyboardInterrupt), shown:
        raise KeyboardInterrupt
    assert stream.getvalue().rindex("\x1b[?25h") > stream.getvalue().rindex("1 of 2 ended")


def test_elsewhere_it_is_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    shown = progress.Progress(stream=stream)
    shown.show(1, "submitted")
    monkeypatch.setattr(progress, "_LINE_S", 0.0)
    shown.show(2, "submitted")
    assert stream.getvalue().startswith("maskq: 2 submitted, ")
    assert stream.getvalue().count("\n") == 1
    for silent in (
        progress.Progress(quiet=True, stream=stream),
        progress.Progress(bar_only=True, stream=stream),
    ):
        silent.show(3, "submitted")
    assert "3" not in stream.getvalue()
    progress.Progress(quiet=True, stream=stream).say("nothing")
    progress.Progress(quiet=True, stream=Terminal()).show(3, "submitted")
    assert "nothing" not in stream.getvalue()


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (-1, "0.00 s"), (420, "0.42 s"), (12_300, "12 s"), (59_400, "59 s"), (60_000, "1 m 0 s"),
        (200_000, "3 m 20 s"), (18_130_000, "5 h 2 m"),
    ],
)  # fmt: skip
def test_durations_are_short(milliseconds: int, text: str) -> None:
    assert duration(milliseconds) == text
