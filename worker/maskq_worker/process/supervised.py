"""A process that a supervisor starts again when it dies, and when it does so."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import Final

from maskq.backoff import ExponentialBackoff
from maskq.errors import MaskqError
from maskq.process.stop_signal import StopSignal
from maskq.process.stop_times import StopTimes

_STEADY_S: Final = 60.0  # after a run that is longer than this the back-off begins anew


class StartFailed(MaskqError):
    """Raised when a process cannot start. The text is one line."""


class Stopped(Exception):
    """Raised by a wait that gave up because somebody asked to stop."""


class Restarts:
    """When one process is started again: a back-off over the failures in a row."""

    def __init__(self, backoff: ExponentialBackoff) -> None:
        self._backoff = backoff
        self._failures = 0
        self._started_at = time.monotonic()
        self._due_at: float | None = None
        self.given_up = False  # whether it is not started again at all

    @property
    def scheduled(self) -> bool:
        """Whether the end of the latest run is known."""
        return self._due_at is not None

    @property
    def due(self) -> bool:
        """Whether the process is to be started now."""
        return self._due_at is not None and time.monotonic() >= self._due_at

    def started(self) -> None:
        """Record a start."""
        self._started_at = time.monotonic()
        self._due_at = None

    def ended(self) -> float:
        """Record an end, or a start that failed. Returns the seconds until the next start."""
        if time.monotonic() - self._started_at > _STEADY_S:
            self._failures = 0
        self._failures += 1
        pause_s = self._backoff.pause_s(self._failures)
        self._due_at = time.monotonic() + pause_s
        return pause_s

    def give_up(self) -> None:
        """Do not start it again."""
        self.given_up = True


class Supervised(ABC):
    """One process: how it starts, what it says of itself, how it ends."""

    def __init__(self, name: str, backoff: ExponentialBackoff) -> None:
        self.name = name
        self.restarts = Restarts(backoff)
        self._announced = False  # whether this run was announced as ready
        self._was_ready = False  # whether any run was
        self._started_at = 0.0

    @property
    @abstractmethod
    def running(self) -> bool:
        """Whether it was started and has not ended."""

    @property
    @abstractmethod
    def returncode(self) -> int | None:
        """As in subprocess (negative: the signal); None while it runs or before its first start."""

    @abstractmethod
    def restart(self, stop: StopSignal) -> None:
        """Start it after its end; a server is also waited for.

        Raises StartFailed; Stopped if somebody asks to stop while it waits.
        """

    @abstractmethod
    def terminate(self) -> None:
        """Send SIGTERM, if it runs."""

    @abstractmethod
    def kill(self) -> None:
        """Send SIGKILL, if it runs, and wait for its end. Idempotent."""

    @abstractmethod
    def ending(self) -> str:
        """How it ended: a verb phrase after its name, as in 'exited with code 1'."""

    @property
    def kill_after_s(self) -> float:
        """Seconds that it may take to stop after SIGTERM."""
        return StopTimes().kill_after_s

    def newly_ready(self) -> str | None:
        """One line, once for each run that became ready."""
        if self._announced or not self.is_up():
            return None
        again = " again" if self._was_ready else ""
        self._announced = self._was_ready = True
        took_s = time.monotonic() - self._started_at
        return f"{self.name} ready{again} {self.describe_run()}, {took_s:.2f} s"

    def is_up(self) -> bool:
        """Whether this run is ready; always False for a process that announces itself."""
        return False

    def describe_run(self) -> str:
        """What the line of `newly_ready` says of this run."""
        return ""

    def note_start(self) -> None:
        """To be called by every start."""
        self._announced = False
        self._started_at = time.monotonic()
        self.restarts.started()
