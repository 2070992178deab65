"""What the two servers of the stack share: a port, a ready check, a restart on the same port."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from maskq.backoff import SERVER_RESTART
from maskq.process.stop_signal import StopSignal
from maskq_standalone import ports
from maskq_standalone.children.child import Child, ChildError, never
from maskq_worker.process.supervised import Supervised

READY_S = 30.0
STOP_S = 10.0
PORT_ATTEMPTS = 3
# Every other process waits for a server, so the first restart is immediate.


class Server(Supervised):
    """A server on 127.0.0.1 as a child process. `start` = `spawn` + `wait_ready`."""

    name: str  # of the class: every server of it is called the same

    def __init__(
        self, *, log: Path, port: int | None = None, keep_open: Sequence[int] = ()
    ) -> None:
        """port: None: a free one, kept over restarts. keep_open: see Child."""
        super().__init__(self.name, SERVER_RESTART)
        self.port = port or ports.free_port()
        self._may_move = port is None  # until it has been ready once, its port may change
        self._log = log
        self._keep_open = keep_open
        self._ready = False
        self.child = self._new_child()

    @abstractmethod
    def command(self) -> Sequence[str]:
        """The command line."""

    @abstractmethod
    def is_ready(self) -> bool:
        """Whether it answers requests. Called only if its port accepts connections."""

    def child_environment(self) -> Mapping[str, str] | None:
        """The whole environment; None: this process's own."""
        return None

    def child_stdin(self) -> bytes:
        """What is written to its stdin."""
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
        self._ready = False
        self.note_start()
        self.child = self._new_child()
        self.child.start()

    def wait_ready(self, cancelled: Callable[[], bool] = never) -> None:
        """Wait until it answers. If another process took its port first, try another port."""
        for attempt in range(1, PORT_ATTEMPTS + 1):
            try:
                self.child.wait_ready(self._answers, READY_S, cancelled)
                break
            except ChildError:
                lost = self._may_move and not self.child.alive and not ports.is_free(self.port)
                self.child.kill()
                if not lost or attempt == PORT_ATTEMPTS:
                    raise
                self.spawn()
        self._may_move = False
        self._ready = True

    def restart(self, stop: StopSignal) -> None:
        """Start again on the same port and data."""
        self.child.kill()
        try:
            self.start(stop.requested)
        except ChildError:
            self.child.kill()  # it may run, if a step after its start failed: the next try repeats all
            raise

    @property
    def running(self) -> bool:
        return self.child.alive

    @property
    def returncode(self) -> int | None:
        return self.child.returncode

    def terminate(self) -> None:
        self.child.terminate()

    def stop(self, grace_s: float = STOP_S, hurry: Callable[[], bool] = never) -> None:
        """SIGTERM, then SIGKILL after `grace_s` or once `hurry` is true."""
        self.child.stop(grace_s, hurry)

    def kill(self) -> None:
        """SIGKILL, as a crash would."""
        self.child.kill()

    def ending(self) -> str:
        return self.child.ending()

    def is_up(self) -> bool:
        return self._ready

    def describe_run(self) -> str:
        return f"on {self.address} ({self.describe()})"

    def _answers(self) -> bool:
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
