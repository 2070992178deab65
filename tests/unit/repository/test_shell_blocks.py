"""A shell block of a page leaves no process behind, however it ends."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from support.pages import shell
from support.process_tree import alive
from support.waiting import until

BEHIND = "sleep 300 & echo $! > behind; "


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def left() -> set[int]:
    return alive([int(Path("behind").read_text())])


def test_a_shell_that_takes_too_long_is_ended_with_its_jobs() -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        shell(BEHIND + "sleep 300", within_s=1.0)
    until(lambda: not left(), within_s=20)


def test_a_shell_that_fails_is_told_and_its_jobs_are_ended() -> None:
    with pytest.raises(AssertionError, match="false"):
        shell("exec >&- 2>&-; " + BEHIND + "false")
    until(lambda: not left(), within_s=20)


def test_a_shell_prints_what_its_commands_print() -> None:
    assert shell("echo $WHAT", WHAT="hello") == "hello\n"
