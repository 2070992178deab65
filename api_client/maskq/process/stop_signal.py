"""SIGTERM and Ctrl-C as a request to stop that a main loop can wait for."""

from __future__ import annotations

import queue
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Final

STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class StopSignal:
    """Counts requests to stop: the first asks to stop, the second to stop at once.

    A handler only counts. An exception raised by a handler could fall between the start of a process
    and the line that records it.
    """

    def __init__(self) -> None:
        self._requests = 0
        # Not an Event: a handler that interrupts `Event.wait` may wait for a lock that `wait` holds.
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()

    def request(self) -> None:
        """Ask to stop; a second call asks to stop at once. Safe in a signal handler."""
        self._requests += 1
        self._wake.put(None)

    def requested(self) -> bool:
        """Whether somebody asked to stop."""
        return self._requests > 0

    def at_once(self) -> bool:
        """Whether somebody asked a second time."""
        return self._requests > 1

    def wait(self, seconds: float) -> bool:
        """Sleep, but no longer than until somebody asks to stop. Returns whether somebody did."""
        if not self.requested():
            with suppress(queue.Empty):
                self._wake.get(timeout=seconds)
                self._wake.put(None)  # for other threads that wait
        return self.requested()

    @contextmanager
    def listening(self, signals: Sequence[signal.Signals] = STOP_SIGNALS) -> Iterator[None]:
        """Take these signals as requests within the block. Main thread only.

        An ignored SIGHUP stays ignored: nohup set it.
        """
        before = {number: signal.getsignal(number) for number in signals}
        if before.get(signal.SIGHUP) is signal.SIG_IGN:
            del before[signal.SIGHUP]
        for number in before:
            signal.signal(number, self._on_signal)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.request()
