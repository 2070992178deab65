"""A worker as a child process of the stack: its environment, its health file."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from maskq.backoff import STACK_WORKER_RESTART
from maskq.process.health import HealthFile
from maskq.process.stop_signal import StopSignal
from maskq.process.stop_times import DRAIN_S, StopTimes
from maskq_standalone.children.child import Child, ChildError, explain, never
from maskq_worker.process import gpus
from maskq_worker.process.supervised import Supervised

COMMAND = (sys.executable, "-m", "maskq_worker")
WEBHOOKS_COMMAND = (sys.executable, "-m", "maskq_worker.webhooks")
READY_S = 600.0  # the first start of a model may fetch it
# A token or profile of the caller would take precedence over the generated credentials.
FOREIGN = (
    "AWS_SESSION_TOKEN",
    "AWS_SECURITY_TOKEN",
    "AWS_PROFILE",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
)


def is_foreign(name: str) -> bool:
    """Whether a worker must not inherit this variable: the stack sets its settings."""
    return name.startswith("MASKQ_") or name in FOREIGN


class Worker(Supervised):
    """One process that touches a health file: a worker, the gateway, or another role."""

    def __init__(
        self,
        name: str,
        directory: Path,
        environment: Mapping[str, str],
        *,
        command: Sequence[str] = COMMAND,
        keep_open: Sequence[int] = (),
    ) -> None:
        """environment: every setting, and other variables laid over this process's environment."""
        super().__init__(name, STACK_WORKER_RESTART)
        self._health_path = directory / "run" / f"{name}.health"
        self._health = HealthFile(self._health_path)
        env = {name: value for name, value in os.environ.items() if not is_foreign(name)}
        env |= environment
        env["MASKQ_HEALTH_FILE"] = str(self._health_path)
        self._kill_after_s = StopTimes(_drain_s(env)).kill_after_s
        self.child = Child(
            name,
            command,
            log=directory / "logs" / f"{name}.log",
            env=env,
            keep_open=keep_open,
        )

    @property
    def pid(self) -> int:
        return self.child.pid

    @property
    def running(self) -> bool:
        return self.child.alive

    @property
    def returncode(self) -> int | None:
        return self.child.returncode

    @property
    def kill_after_s(self) -> float:
        return self._kill_after_s

    def start(self) -> None:
        """Start the process; returns at once. Raises ChildError."""
        self.note_start()
        try:
            self._health_path.parent.mkdir(parents=True, exist_ok=True)
            self._health.remove()
        except OSError as error:
            raise ChildError(f"{self.name} could not start: {explain(error)}") from None
        self.child.start()

    def restart(self, stop: StopSignal) -> None:
        """Start it again. Nobody waits for it: loading a model takes long."""
        self.start()

    def wait_ready(self, timeout_s: float = READY_S, cancelled: Callable[[], bool] = never) -> None:
        """Raises ChildError with the worker's own last line, Stopped when `cancelled` is true."""
        self.child.wait_ready(self.is_ready, timeout_s, cancelled)

    def is_ready(self) -> bool:
        """Whether it takes jobs: its health file is fresh."""
        return self._health.is_fresh()

    def terminate(self) -> None:
        self.child.terminate()

    def kill(self) -> None:
        self.child.kill()

    def ending(self) -> str:
        return self.child.ending()

    def is_up(self) -> bool:
        return self.is_ready()

    def describe_run(self) -> str:
        return f"(process {self.pid})"


def _drain_s(environment: Mapping[str, str]) -> float:
    """Its setting. The process itself refuses a value that is not a number."""
    try:
        return float(environment.get("MASKQ_DRAIN_S") or DRAIN_S)
    except ValueError:
        return DRAIN_S


def gpu_environments() -> list[dict[str, str]]:
    """For each GPU, the variables that let a worker see it and no other; [] if there is at most one."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        environments = [{"CUDA_VISIBLE_DEVICES": g} for g in visible.split(",") if g.strip()]
    else:
        environments = [gpus.environment(gpu) for gpu in gpus.choose(None, gpus.inventory())]
    return environments if len(environments) > 1 else []
