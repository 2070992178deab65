"""Child processes of the one-machine stack: they end with what they started."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import pytest
from support.process_tree import alive, descendants
from support.waiting import stays, until

from maskq_standalone.children.child import Child, ChildError


class TestChild:
    def test_ends_with_what_it_started(self, tmp_path: Path) -> None:
        child = Child("shell", ["sh", "-c", "sleep 600 & sleep 600"], log=tmp_path / "log")
        child.start()
        try:
            until(lambda: len(descendants(child.pid)) == 2)
            pids = {child.pid, *descendants(child.pid)}
        finally:
            child.stop(grace_s=1.0)
        until(lambda: not alive(pids))
        child.stop()  # a second time is no error

    def test_outlives_the_thread_that_started_it(self, tmp_path: Path) -> None:
        child = Child("sleep", ["sleep", "600"], log=tmp_path / "log")
        thread = threading.Thread(target=child.start)
        thread.start()
        thread.join()
        stays(lambda: child.alive, for_s=0.2)
        child.kill()

    def test_that_ignores_sigterm_is_killed(self, tmp_path: Path) -> None:
        command = ["sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.05; done"]
        child = Child("deaf", command, log=tmp_path / "log")
        child.start()
        child.wait_ready(lambda: "up" in child.log_tail(), timeout_s=5)
        child.stop(grace_s=0.2)
        assert child.returncode == -signal.SIGKILL

    @pytest.mark.parametrize(
        ("command", "said"),
        [
            (["no-such-program"], "no-such-program is not a program here"),
            (["sh", "-c", "echo first; echo last >&2; exit 3"], "exited with code 3: last"),
            (["sh", "-c", "kill -9 $$"], "was ended by SIGKILL"),
            (["sleep", "600"], "was not ready after 0.5 s"),
        ],
    )
    def test_that_cannot_start_says_why(
        self, tmp_path: Path, command: list[str], said: str
    ) -> None:
        child = Child("it", command, log=tmp_path / "log")
        try:
            with pytest.raises(ChildError) as raised:
                start_and_wait(child)
        finally:
            child.kill()
        assert said in str(raised.value)
        assert "\n" not in str(raised.value)

    def test_on_a_full_disk_says_so(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("maskq_standalone.children.child.FULL_BYTES", float("inf"))
        child = Child("it", ["false"], log=tmp_path / "log")
        with pytest.raises(ChildError, match="no space left on the disk"):
            start_and_wait(child)


def start_and_wait(child: Child) -> None:
    child.start()
    timeout_s = 0.5 if child.command[0] == "sleep" else 30  # all others end by themselves
    child.wait_ready(lambda: False, timeout_s)
