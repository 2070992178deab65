"""One child process: its command, its log, its ready check, its end. No child outlives its parent.

Three mechanisms ensure this, each where the others cannot:
- the parent-death signal (maskq.process.parent_death): the kernel sends the child SIGTERM when its
  parent dies. On Linux only, and only for children that the main thread starts: the kernel ties the
  signal to the life of the thread that started the process.
- the process group: the processes that the child started are ended with it.
- the guard, a shell that reads from a pipe of the parent: when the parent is killed (SIGKILL), the
  guard ends the child's whole process group, on every Unix.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

from maskq.process.parent_death import ends_with_parent
from maskq_worker.process.supervised import StartFailed, Stopped

POLL_S = 0.01
LOG_BYTES = 10 * 2**20  # a log larger than this at start is moved to NAME.log.1
FULL_BYTES = 2**20  # a disk with less than this free counts as full

# The guard reads one line. A line releases it: it exits. The end of the file means that the parent is
# dead. A child with a parent-death signal has had its SIGTERM by then; the guard sends it to any other.
GUARD = """
read -r released && exit 0
[ "$2" = signalled ] || kill -s TERM -- "-$1"
for tick in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do
    kill -s 0 -- "-$1" || exit 0
    sleep 0.2
done
kill -s KILL -- "-$1"
"""


class ChildError(StartFailed):
    """Raised when a child cannot start, or ends before it is ready. The text is one line."""


def never() -> bool:
    """The default for `cancelled` and `hurry`."""
    return False


class Child:
    """One process in a session of its own, so that a terminal's Ctrl-C reaches only its parent."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        stdin: bytes = b"",
        keep_open: Sequence[int] = (),
    ) -> None:
        """env: the whole environment; None: this process's own.
        stdin: written once and closed; for secrets, which a command line would show in `ps`.
        keep_open: descriptors, such as a lock's, that the guard holds while a process of the child may
        live."""
        self.name = name
        self.command = [str(part) for part in command]
        self.log = log
        self._env = None if env is None else dict(env)
        self._stdin = stdin
        self._keep_open = tuple(keep_open)
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._log_start = 0  # bytes of the log that earlier runs wrote

    @property
    def pid(self) -> int:
        """Process id, and process group id. Raises ChildError before the first start."""
        if self._process is None:
            raise ChildError(f"{self.name} was never started")
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self.returncode is None

    @property
    def returncode(self) -> int | None:
        """As in subprocess (negative: the signal); None while it runs or before a start."""
        if self._process is None or self._process.poll() is None:
            return None
        if self._guard is not None:
            # It ended by itself; the processes that it started must end, too. The group's id belongs to
            # no other group yet: its members hold it, and a group without members gets no signal.
            self._signal_group(signal.SIGKILL)
            self._release_guard()
        return self._process.returncode

    def start(self) -> None:
        """Spawn it; returns at once. Raises ChildError: the command or its log cannot be opened."""
        executable = shutil.which(self.command[0])
        if executable is None:
            raise ChildError(
                f"{self.name} could not start: {self.command[0]} is not a program here"
            )
        try:
            with self._open_log() as log:
                self._spawn(executable, log)
        except OSError as error:
            self.kill()
            raise ChildError(f"{self.name} could not start: {explain(error, self.log)}") from None

    def wait_ready(
        self,
        ready: Callable[[], bool],
        timeout_s: float,
        cancelled: Callable[[], bool] = never,
    ) -> None:
        """Poll `ready` until it is true.

        Raises ChildError when the child ends or the time does, Stopped when `cancelled` turns
        true. The child is left as it is; the caller decides.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            if self.returncode is not None:
                raise ChildError(f"{self.name} could not start: {self.ending()}")
            if ready():
                return
            if cancelled():
                raise Stopped(self.name)
            if time.monotonic() > deadline:
                raise ChildError(
                    f"{self.name} was not ready after {timeout_s:g} s{self._last_line()}"
                )
            time.sleep(POLL_S)

    def terminate(self) -> None:
        """SIGTERM to the child alone, which ends the processes that it started."""
        if self.alive:
            os.kill(self.pid, signal.SIGTERM)

    def stop(self, grace_s: float = 10.0, hurry: Callable[[], bool] = never) -> None:
        """SIGTERM, then SIGKILL to the group after `grace_s` or once `hurry` is true. Idempotent."""
        self.terminate()
        self.wait_ended(grace_s, hurry)

    def wait_ended(self, grace_s: float, hurry: Callable[[], bool] = never) -> None:
        """`stop` without the SIGTERM, for a child that has had one: some programs stop at once at a
        second one."""
        deadline = time.monotonic() + grace_s
        while self.alive and time.monotonic() < deadline and not hurry():
            time.sleep(POLL_S)
        self.kill()

    def kill(self) -> None:
        """SIGKILL to the child and its process group, now. Idempotent."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._signal_group(signal.SIGKILL)
            self._process.wait()
        _ = self.returncode  # ends the rest of the group, and the guard

    def ending(self) -> str:
        """How it ended, for a line of text: 'exited with code 1: <the last line of its log>'."""
        code = self.returncode
        if code is None:
            return "is still running"
        if code < 0:  # its log does not know why
            return f"was ended by {signal.Signals(-code).name} (log: {self.log})"
        return f"exited with code {code}{self._last_line()}"

    def log_tail(self) -> str:
        """What this run wrote, at most the last 4 KiB."""
        try:
            with self.log.open("rb") as log:
                end = log.seek(0, os.SEEK_END)
                log.seek(max(self._log_start, end - 4096))
                return log.read().decode(errors="replace")
        except OSError:
            return ""

    def _spawn(self, executable: str, log: IO[bytes]) -> None:
        command = [executable, *self.command[1:]]
        signalled = _gets_parent_death_signal()
        self._process = subprocess.Popen(
            ends_with_parent(command) if signalled else command,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=self._env,
            start_new_session=True,
        )
        self._start_guard(self._process.pid, "signalled" if signalled else "bare")
        assert self._process.stdin is not None  # noqa: S101 -- for the type checker
        with contextlib.suppress(BrokenPipeError), self._process.stdin as pipe:
            pipe.write(self._stdin)

    def _start_guard(self, group: int, how: str) -> None:
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", GUARD, "maskq-guard", str(group), how],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=self._keep_open,
            start_new_session=True,
        )

    def _release_guard(self) -> None:
        guard, self._guard = self._guard, None
        if guard is None:
            return
        assert guard.stdin is not None  # noqa: S101 -- for the type checker
        with contextlib.suppress(BrokenPipeError), guard.stdin as pipe:
            pipe.write(b"released\n")
        guard.wait()

    def _signal_group(self, number: signal.Signals) -> None:
        # macOS raises PermissionError for a group of which only a zombie is left.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def _open_log(self) -> IO[bytes]:
        self.log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self.log.exists() and self.log.stat().st_size > LOG_BYTES:
            self.log.replace(self.log.with_name(self.log.name + ".1"))
        log = self.log.open("ab")
        self._log_start = log.tell()
        return log

    def _last_line(self) -> str:
        lines = [line.strip() for line in self.log_tail().splitlines() if line.strip()]
        if lines:
            return f": {lines[-1]} (log: {self.log})"
        with contextlib.suppress(OSError):  # a full disk takes no log either
            if shutil.disk_usage(self.log.parent).free < FULL_BYTES:
                return f": no space left on the disk that holds {self.log.parent}"
        return ", without a word in its log"


def _gets_parent_death_signal() -> bool:
    on_linux = sys.platform.startswith("linux")
    return on_linux and threading.current_thread() is threading.main_thread()


def explain(error: OSError, about: Path | None = None) -> str:
    """One line: the file (`about` if the error names none), and the system's message."""
    said = error.strerror or str(error)
    path = error.filename or about
    return f"{path}: {said}" if path else said
