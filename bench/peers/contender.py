"""What is measured, seen from outside: started, given keys of images, stopped."""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from bench.peers.setup import Setup
from bench.scenarios.processes import cpu_s, peak_rss_mib, with_children
from maskq_standalone.children.child import Child, ChildError
from maskq_standalone.ports import free_port
from maskq_standalone.stack import Stack
from maskq_standalone.workers import is_foreign

READY_S: Final = 300.0
WAIT_S: Final = 1800.0  # for the masks of one load
REPOSITORY: Final = Path(__file__).parents[2]


class Contender(ABC):
    """`name` is as given on the command line."""

    stays_up = True  # from the first round to the last; False: started for each turn
    uncertain_share: float | None = None  # of the last load; None: its results do not have it

    def __init__(
        self, name: str, stack: Stack, *, model: str, processes: int, batch: int, database: int
    ) -> None:
        """database: Redis' number, its own, so that no other contender's worker takes its tasks."""
        cores = int(os.environ["OMP_NUM_THREADS"])
        self.name = name
        self.stack = stack
        self.setup = Setup(
            model=model,
            bucket=stack.s3.bucket,
            redis_url=stack.redis.url.removesuffix("/0") + f"/{database}",
            port=free_port(),
            processes=processes,
            threads=max(1, cores // processes),
            batch=batch,
        )

    @abstractmethod
    def start(self) -> None:
        """Ready for work when this returns. Raises ChildError with the last line of its log."""

    @abstractmethod
    def run(self, keys: Sequence[str]) -> list[str]:
        """Ask for all images at once, wait for all masks; returns the masks' keys, in order."""

    @abstractmethod
    def stop(self) -> None:
        """Idempotent."""

    @property
    @abstractmethod
    def pids(self) -> list[int]:
        """Of all its processes, while it is up."""

    def cpu_s(self) -> float:
        """Processor seconds of all its processes since each began."""
        return sum(_of_a_living(cpu_s, pid) for pid in self.pids)

    def peak_mib(self) -> float:
        """The sum of each process's largest resident memory."""
        return sum(_of_a_living(lambda one: peak_rss_mib([one]), pid) for pid in self.pids)

    def prepare(self) -> None:  # noqa: B027 -- most need nothing
        """What it needs before its first image."""

    def pause(self) -> None:  # noqa: B027 -- most are idle by themselves
        """It is the others' turn."""

    def go_on(self) -> None:  # noqa: B027 -- as above
        """After a pause."""


def _of_a_living(figure: Callable[[int], float], pid: int) -> float:
    """0 for a process that has ended since it was listed."""
    try:
        return figure(pid)
    except (OSError, IndexError):
        return 0.0


class Peer(Contender):
    """One child process, which may have children of its own."""

    child: Child | None = None

    @abstractmethod
    def command(self) -> Sequence[str]: ...

    @abstractmethod
    def ready(self) -> bool: ...

    @property
    def pids(self) -> list[int]:
        return with_children(self.child.pid) if self.child else []

    def environment(self) -> Mapping[str, str]:
        """Beside what every peer has."""
        return {}

    def start(self) -> None:
        self.child = Child(
            self.name,
            [sys.executable, "-m", *self.command()],
            log=self.stack.directory / "logs" / f"{self.name.replace(':', '-')}.log",
            env=self._whole_environment(),
        )
        self.child.start()
        try:
            self.child.wait_ready(self.ready, READY_S)
        except ChildError:
            print(self.child.log_tail(), file=sys.stderr)  # the file goes with the stack
            raise

    def stop(self) -> None:
        if self.child:
            self.child.stop()
            self.child = None

    def _whole_environment(self) -> dict[str, str]:
        own = {name: value for name, value in os.environ.items() if not is_foreign(name)}
        return {
            **own,
            **self.stack.environment,
            **self.setup.environment(),
            **self.environment(),
            "AWS_ENDPOINT_URL_S3": self.stack.s3.endpoint_url,
            "HF_HUB_OFFLINE": "1",
            "PYTHONPATH": os.pathsep.join(
                [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
            ),
        }
