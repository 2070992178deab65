"""Keeps processes running: for `maskq worker`, and for `maskq up` in maskq_standalone."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from maskq.process import EX_CONFIG
from maskq.process.stop_signal import StopSignal
from maskq_worker.process.supervised import StartFailed, Stopped, Supervised

_CHECK_EVERY_S = 0.1
_POLL_S = 0.02


class Supervisor:
    """Starts processes again when they die, and stops them in time."""

    def __init__(self, stop: StopSignal, report: Callable[[str], None]) -> None:
        """report: takes one line for each process that became ready, died, or cannot start."""
        self._stop = stop
        self._report = report

    def run(self, processes: Sequence[Supervised]) -> int:
        """Start the processes and keep them running until SIGTERM or Ctrl-C; main thread only.

        A second signal kills them. Returns the exit code: EX_CONFIG if one of them ended with it, else
        0. Raises StartFailed if one cannot be started the first time.
        """
        with self._stop.listening():
            try:
                for process in processes:
                    process.restart(self._stop)
                while not self._stop.requested():
                    if any(process.returncode == EX_CONFIG for process in processes):
                        return EX_CONFIG
                    self.check(processes)
                    self._stop.wait(_CHECK_EVERY_S)
            finally:
                self.stop(processes)
        return 0

    def check(self, processes: Sequence[Supervised]) -> None:
        """Look after each process once: report its end, start it when that is due."""
        for process in processes:
            if process.running:
                self.announce(process)
            elif not process.restarts.given_up:
                self._look_after_ended(process)

    def announce(self, process: Supervised) -> None:
        """Report that it is ready, once for each run."""
        if line := process.newly_ready():
            self._report(line)

    def stop(self, processes: Sequence[Supervised]) -> None:
        """SIGTERM to all; SIGKILL to those that run after their time, or after a second request."""
        began = time.monotonic()
        for process in processes:
            process.terminate()
        for process in processes:
            deadline = began + process.kill_after_s
            while process.running and time.monotonic() < deadline and not self._stop.at_once():
                time.sleep(_POLL_S)
            process.kill()

    def _look_after_ended(self, process: Supervised) -> None:
        if process.returncode == EX_CONFIG:
            process.restarts.give_up()
            self._report(f"{process.name} {process.ending()}; it stays down")
        elif not process.restarts.scheduled:
            self._report_end(process)
        elif process.restarts.due:
            self._restart(process)

    def _report_end(self, process: Supervised) -> None:
        ending, pause_s = process.ending(), process.restarts.ended()
        when = f" in {pause_s:g} s" if pause_s else ""
        self._report(f"{process.name} {ending}; starting it again{when}")

    def _restart(self, process: Supervised) -> None:
        try:
            process.restart(self._stop)
        except StartFailed as error:
            self._report(f"{error}; again in {process.restarts.ended():g} s")
        except Stopped:
            pass
        else:
            self.announce(process)
