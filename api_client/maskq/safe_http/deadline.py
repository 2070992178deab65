"""One deadline for a whole network call, however slowly its bytes arrive.

A socket's own timeout restarts with every byte. A peer that sends one byte of a header, a chunk size or
a `100 Continue` now and then would block its caller forever.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import suppress


class Deadline:
    """Shuts a connection down at a fixed time; its reads and writes then raise an error."""

    def __init__(self, total_s: float) -> None:
        """total_s: seconds from now."""
        self._total_s = total_s
        self.end = time.monotonic() + total_s
        self._duplicate: socket.socket | None = None

    def left_s(self) -> float:
        """Seconds until the deadline; 0 after it."""
        return max(0.0, self.end - time.monotonic())

    def extend(self, seconds: float) -> None:
        """Move the deadline, unless it has passed."""
        if self.left_s():
            self.end += seconds
            self._total_s += seconds

    def cut(self, connection: socket.socket) -> None:
        """Shut `connection` down at the deadline, unless `cancel` is called before."""
        # A duplicate, because TLS takes over the socket itself.
        self._duplicate = socket.socket(fileno=os.dup(connection.fileno()))
        _watchdog.watch(self)

    def cancel(self) -> None:
        """The call has ended."""
        _watchdog.forget(self)
        if self._duplicate:
            self._duplicate.close()
            self._duplicate = None

    def shut_down(self) -> None:
        """End the connection now."""
        if self._duplicate:
            with suppress(OSError):  # the peer has just closed it
                self._duplicate.shutdown(socket.SHUT_RDWR)
            self._duplicate.close()
            self._duplicate = None

    @property
    def reason(self) -> str:
        """The error of a call that the deadline ended; '' before the deadline."""
        return "" if self.left_s() else f"it did not answer completely within {self._total_s:g} s"

    def check(self) -> None:
        """Raise TimeoutError if the deadline has passed."""
        if self.reason:
            raise TimeoutError(self.reason)


class _Watchdog:
    """One thread for every deadline of a process. It starts with the first."""

    def __init__(self) -> None:
        self._watched: set[Deadline] = set()
        self._changed = threading.Condition()
        self._wakes_at = float("inf")
        self._is_running = False

    def watch(self, deadline: Deadline) -> None:
        with self._changed:
            self._watched.add(deadline)
            if not self._is_running:
                self._is_running = True
                threading.Thread(target=self._run, name="maskq-deadlines", daemon=True).start()
            elif deadline.end < self._wakes_at:
                self._changed.notify()

    def forget(self, deadline: Deadline) -> None:
        with self._changed:
            self._watched.discard(deadline)

    def pass_all(self) -> None:
        with self._changed:
            for deadline in self._watched:
                deadline.end = time.monotonic()
            self._changed.notify()

    def _run(self) -> None:
        with self._changed:
            while True:
                for deadline in [one for one in self._watched if not one.left_s()]:
                    self._watched.discard(deadline)
                    deadline.shut_down()
                self._wakes_at = min((one.end for one in self._watched), default=float("inf"))
                if self._wakes_at == float("inf"):
                    self._changed.wait()
                else:
                    self._changed.wait(max(0.0, self._wakes_at - time.monotonic()))


_watchdog = _Watchdog()


def shut_down_all() -> None:
    """Shut down every connection that has a deadline."""
    _watchdog.pass_all()


def _forget_after_fork() -> None:
    """The child has no copy of the parent's thread, and its copy of the lock may be locked forever."""
    global _watchdog
    _watchdog = _Watchdog()


os.register_at_fork(after_in_child=_forget_after_fork)
