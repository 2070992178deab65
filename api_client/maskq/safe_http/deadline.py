"""One deadline around a whole network call, however its bytes arrive.

A socket's own timeout starts again with every byte. A peer that sends one byte of a header, a chunk
size or a `100 Continue` now and then would hold its caller for ever.
"""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress


class Deadline:
    """Shuts a connection down at a fixed time; whoever reads or writes on it then gets an error."""

    def __init__(self, total_s: float) -> None:
        """total_s: seconds from now."""
        self._total_s = total_s
        self._end = time.monotonic() + total_s
        self._timer: threading.Timer | None = None
        self._duplicate: socket.socket | None = None

    def left_s(self) -> float:
        """Seconds until the deadline; 0 after it."""
        return max(0.0, self._end - time.monotonic())

    def cut(self, connection: socket.socket) -> None:
        """Shut `connection` down at the deadline, unless `cancel` is called before."""
        # Of the same connection, since TLS takes the socket itself over.
        self._duplicate = connection.dup()
        self._timer = threading.Timer(self.left_s(), _shut_down, (self._duplicate,))
        self._timer.daemon = True
        self._timer.start()

    def cancel(self) -> None:
        """The call has ended."""
        if self._timer and self._duplicate:
            self._timer.cancel()
            self._timer.join()
            self._duplicate.close()
            self._timer = self._duplicate = None

    @property
    def reason(self) -> str:
        """What to say of a call that the deadline ended; '' while it has not passed."""
        return "" if self.left_s() else f"it did not answer completely within {self._total_s:g} s"

    def check(self) -> None:
        """Raise TimeoutError if the deadline has passed."""
        if self.reason:
            raise TimeoutError(self.reason)


def _shut_down(connection: socket.socket) -> None:
    with suppress(OSError):  # the peer closed it a moment before
        connection.shutdown(socket.SHUT_RDWR)
