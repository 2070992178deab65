"""One worker process per GPU (or several): started, watched, started again with the same GPU."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType

from maskq import environment
from maskq.inert import print_error
from maskq.process import EX_CONFIG

_BACKOFF_S = (0.5, 30.0)  # before the first and at most before a later restart
_STEADY_S = 60.0  # who lived so long starts again without a penalty
_GRACE_S = 75.0  # for a drain; then SIGKILL


@dataclass(slots=True)
class Slot:
    """One place for a process: its name, and the environment every process in it gets."""

    name: str
    environment: Mapping[str, str]
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    deaths: int = 0
    due: float = field(default=0.0)  # when to start (again), monotonic seconds

    def start(self, command: Sequence[str]) -> None:
        self.process = subprocess.Popen(
            [*command, "--parent", str(os.getpid())],
            env=environment.laid_over(os.environ, self.environment),
        )
        self.started = time.monotonic()


class Supervisor:
    """Keeps every slot filled until told to stop; a configuration error of one stops all."""

    def __init__(
        self,
        slots: Sequence[Slot],
        *,
        command: Sequence[str] = (sys.executable, "-m", "maskq_worker"),
    ) -> None:
        self._slots = slots
        self._command = command
        self._stop = threading.Event()
        self._kill = False

    def run(self) -> int:
        """Until SIGTERM or Ctrl-C; a second one ends the processes at once. Returns the exit code."""
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)
        code = 0
        while not self._stop.is_set():
            code = self._look()
            if code:
                break
            self._stop.wait(0.1)
        self._end()
        return code

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._kill = self._stop.is_set()
        self._stop.set()

    def _look(self) -> int:
        """Start what is due, note what died; the exit code of a child that cannot be helped."""
        for slot in self._slots:
            if slot.process is None:
                if time.monotonic() >= slot.due:
                    slot.start(self._command)
            elif (code := slot.process.poll()) is not None:
                if code == EX_CONFIG:
                    slot.process = None
                    return code
                self._died(slot, code)
        return 0

    def _died(self, slot: Slot, code: int) -> None:
        steady = time.monotonic() - slot.started > _STEADY_S
        slot.deaths = 0 if steady else slot.deaths + 1
        first, longest = _BACKOFF_S
        pause_s = min(longest, first * 2 ** max(0, slot.deaths - 1))
        slot.process, slot.due = None, time.monotonic() + pause_s
        reason = f"signal {-code}" if code < 0 else f"exit code {code}"
        print_error(
            f"maskq worker: {slot.name} ended with {reason}; starting it again in {pause_s:g} s"
        )

    def _end(self) -> None:
        """Let every process drain, within limits."""
        processes = [slot.process for slot in self._slots if slot.process]
        for process in processes:
            process.terminate()
        end = time.monotonic() + _GRACE_S
        while any(process.poll() is None for process in processes):
            if self._kill or time.monotonic() > end:
                for process in processes:
                    process.kill()
            time.sleep(0.05)
