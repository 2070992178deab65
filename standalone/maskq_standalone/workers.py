"""A worker as a child process: its environment, its ready file, its restarts."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from maskq_standalone.children.child import Child, ChildError, explain, never
from maskq_standalone.children.restarts import Restarts
from maskq_worker.process import gpus

COMMAND = (sys.executable, "-m", "maskq_worker")
WEBHOOKS_COMMAND = (sys.executable, "-m", "maskq_worker.webhooks")
READY_S = 600.0  # the first start of a model may fetch it
HEALTHY_S = 5.0  # a worker touches its file every second
DRAIN_S = 30.0  # a SIGTERM lets running jobs finish
# A token or profile of the caller's own would win over, or spoil, the generated credentials.
FOREIGN = (
    "AWS_SESSION_TOKEN",
    "AWS_SECURITY_TOKEN",
    "AWS_PROFILE",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
)


def is_foreign(name: str) -> bool:
    """A variable that a worker must not inherit: its settings are the stack's."""
    return name.startswith("MASKQ_") or name in FOREIGN


class Worker:
    """One worker process. `start`, then `wait_ready`; or, when it has died, `restart` and go on."""

    def __init__(
        self,
        name: str,
        directory: Path,
        environment: Mapping[str, str],
        *,
        command: Sequence[str] = COMMAND,
        keep_open: Sequence[int] = (),
    ) -> None:
        """`environment`: every setting, and what else is laid over this process's environment."""
        self.name = name
        self.health_file = directory / "run" / f"{self.name}.health"
        env = {name: value for name, value in os.environ.items() if not is_foreign(name)}
        env |= environment
        env["MASKQ_HEALTH_FILE"] = str(self.health_file)
        self.child = Child(
            self.name,
            command,
            log=directory / "logs" / f"{self.name}.log",
            env=env,
            keep_open=keep_open,
        )
        self.restarts = Restarts(first_s=1.0)
        self.announced = False  # whether this start has been reported as ready
        self.given_up = False
        self._spawned_at = 0.0

    @property
    def pid(self) -> int:
        return self.child.pid

    @property
    def ready_after_s(self) -> float:
        return time.monotonic() - self._spawned_at

    def start(self) -> None:
        """Spawn it; returns at once. Raises ChildError."""
        self.announced = False
        self._spawned_at = time.monotonic()
        self.restarts.started()
        try:
            self.health_file.parent.mkdir(parents=True, exist_ok=True)
            self.health_file.unlink(missing_ok=True)
        except OSError as error:
            raise ChildError(f"{self.name} could not start: {explain(error)}") from None
        self.child.start()

    def wait_ready(self, timeout_s: float = READY_S, cancelled: Callable[[], bool] = never) -> None:
        """Raises ChildError with the worker's own last line, Stopped when `cancelled` is true."""
        self.child.wait_ready(self.is_ready, timeout_s, cancelled)

    def is_ready(self) -> bool:
        """Its model is loaded and it takes jobs: the file is there, and fresh."""
        try:
            return time.time() - self.health_file.stat().st_mtime < HEALTHY_S
        except FileNotFoundError:
            return False


def gpu_environments() -> list[dict[str, str]]:
    """What lets a worker see one GPU and no other, for each GPU there is; [] for at most one."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        environments = [{"CUDA_VISIBLE_DEVICES": g} for g in visible.split(",") if g.strip()]
    else:
        environments = [gpus.environment(gpu) for gpu in gpus.choose(None, gpus.inventory())]
    return environments if len(environments) > 1 else []
