"""The processes of `maskq worker`: they write to its stderr and see one GPU each."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence

from maskq import environment
from maskq.backoff import WORKER_RESTART
from maskq.process.parent_death import ends_with_parent
from maskq.process.stop_signal import StopSignal
from maskq.process.stop_times import DRAIN_S, StopTimes
from maskq_worker.process.cores import staying_on
from maskq_worker.process.supervised import StartFailed, Supervised


class Slot(Supervised):
    """A place for one process at a time: each process in it gets the same name and environment."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        variables: Mapping[str, str],
        *,
        drain_s: float = DRAIN_S,
        cpus: frozenset[int] = frozenset(),
    ) -> None:
        """variables: laid over this process's environment. drain_s: how long the process drains.
        cpus: that it stays on; empty: those of this process.
        """
        super().__init__(name, WORKER_RESTART)
        self._command = command
        self._variables = variables
        self._cpus = cpus
        self._kill_after_s = StopTimes(drain_s).kill_after_s
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def returncode(self) -> int | None:
        return None if self._process is None else self._process.poll()

    @property
    def kill_after_s(self) -> float:
        return self._kill_after_s

    def restart(self, stop: StopSignal) -> None:
        self.note_start()
        try:
            with staying_on(self._cpus):
                self._process = subprocess.Popen(
                    ends_with_parent(self._command),
                    env=environment.laid_over(os.environ, self._variables),
                )
        except OSError as error:
            raise StartFailed(f"{self.name} could not start: {error}") from None

    def terminate(self) -> None:
        if self._process is not None:
            self._process.terminate()

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def ending(self) -> str:
        code = self.returncode or 0
        return f"ended with signal {-code}" if code < 0 else f"ended with exit code {code}"
