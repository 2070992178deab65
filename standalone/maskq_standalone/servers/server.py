"""What the two servers of the stack share: a port, a ready check, an end, a restart in place."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from maskq_standalone import ports
from maskq_standalone.children.child import Child, ChildError, never
from maskq_standalone.children.restarts import Restarts

READY_S = 30.0
STOP_S = 10.0
PORT_ATTEMPTS = 3


class Server(ABC):
    """A server on 127.0.0.1 as a child process. `start` = `spawn` + `wait_ready`."""

    name: str

    def __init__(
        self, *, log: Path, port: int | None = None, keep_open: Sequence[int] = ()
    ) -> None:
        """`port` None: a free one, kept over restarts. `keep_open`: see Child."""
        self.port = port or ports.free_port()
        self._may_move = port is None  # until it has been ready once, its port may change
        self._log = log
        self._keep_open = keep_open
        self._spawned_at = 0.0
        self.ready_after_s = 0.0  # how long the latest start took
        self.restarts = Restarts(first_s=0.0)  # everything waits for a server
        self.child = self._new_child()

    @abstractmethod
    def command(self) -> Sequence[str]: ...

    @abstractmethod
    def is_ready(self) -> bool:
        """Whether it does its work, not only listens. Called only once its port answers."""

    def child_environment(self) -> Mapping[str, str] | None:
        return None

    def child_stdin(self) -> bytes:
        return b""

    @property
    def address(self) -> str:
        return f"{ports.LOOPBACK}:{self.port}"

    def describe(self) -> str:
        """For the line that says it is ready."""
        return self.name

    def start(self, cancelled: Callable[[], bool] = never) -> None:
        """Raises ChildError with one line, Stopped when `cancelled` turns true."""
        self.spawn()
        self.wait_ready(cancelled)

    def spawn(self) -> None:
        """Start the process; returns at once. Raises ChildError."""
        if not ports.is_free(self.port):
            if not self._may_move:
                raise ChildError(f"{self.name} could not start: {self.address} is taken")
            self.port = ports.free_port()
        self._spawned_at = time.monotonic()
        self.restarts.started()
        self.child = self._new_child()
        self.child.start()

    def wait_ready(self, cancelled: Callable[[], bool] = never) -> None:
        """Wait until it serves; a port lost to somebody else in between is changed for another."""
        for attempt in range(1, PORT_ATTEMPTS + 1):
            try:
                self.child.wait_ready(self._serves, READY_S, cancelled)
                break
            except ChildError:
                lost = self._may_move and not self.child.alive and not ports.is_free(self.port)
                self.child.kill()
                if not lost or attempt == PORT_ATTEMPTS:
                    raise
                self.spawn()
        self._may_move = False
        self.ready_after_s = time.monotonic() - self._spawned_at

    def stop(self, grace_s: float = STOP_S, hurry: Callable[[], bool] = never) -> None:
        self.child.stop(grace_s, hurry)

    def kill(self) -> None:
        """SIGKILL, as a crash would."""
        self.child.kill()

    def restart(self, cancelled: Callable[[], bool] = never) -> None:
        """Start again on the same port and data. Raises ChildError."""
        self.child.kill()
        self.start(cancelled)

    def _serves(self) -> bool:
        return ports.listens(self.port) and self.is_ready()

    def _new_child(self) -> Child:
        return Child(
            self.name,
            self.command(),
            log=self._log,
            env=self.child_environment(),
            stdin=self.child_stdin(),
            keep_open=self._keep_open,
        )
