"""The service that a scenario loads: a stack of its own, a client, and what its workers wrote down."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.checkpoints import write_large, write_smallest
from bench.scenarios import processes
from bench.scenarios.worker import REQUESTS_EVERY_S
from maskq import Client
from maskq.ledger import Ledger
from maskq_standalone.stack import Stack

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch that a worker's model ran: the forward, and masks that its thread made or awaited."""

    began_s: float  # since the epoch
    size: int
    seconds: float
    forward_s: float
    forward_cpu_s: float  # of all its threads


@dataclass(frozen=True, slots=True)
class Cost:
    """Processor seconds of everybody, up to now or between two moments."""

    worker: float  # with the processes that decode
    store: float
    redis: float
    client: float

    def since(self, before: Cost) -> Cost:
        return Cost(
            self.worker - before.worker,
            self.store - before.store,
            self.redis - before.redis,
            self.client - before.client,
        )


@dataclass(frozen=True, slots=True)
class Service:
    """A stack that is up, in whose environment this process is."""

    stack: Stack
    client: Client
    ledger: Ledger
    model: str  # as MASKQ_MODEL has it
    folder: Path  # scratch

    @property
    def pids(self) -> list[int]:
        return [worker.pid for worker in self.stack.workers]

    @property
    def worker_family(self) -> list[int]:
        """The workers, and the processes that decode for them."""
        return [one for pid in self.pids for one in processes.with_children(pid)]

    def cost(self) -> Cost:
        return Cost(
            worker=processes.cpu_s(*self.worker_family),
            store=processes.cpu_s(self.stack.s3.child.pid),
            redis=processes.cpu_s(self.stack.redis.child.pid),
            client=processes.cpu_s(os.getpid()),
        )

    def batches(self, since_s: float = 0.0) -> list[Batch]:
        """What the models ran since then, in order."""
        lines = [line.split() for line in _lines(self.folder / "batches")]
        ran = [Batch(float(a), int(n), float(s), float(f), float(c)) for a, n, s, f, c in lines]
        return sorted((b for b in ran if b.began_s >= since_s), key=lambda batch: batch.began_s)

    def requests(self) -> Counter[str]:
        """Calls of the object store by the workers, by kind, up to now."""
        time.sleep(2 * REQUESTS_EVERY_S)  # until they have written the last ones down
        counts: Counter[str] = Counter()
        for file in (self.folder / "requests").glob("*[0-9]"):
            counts.update(json.loads(file.read_text()))
        return counts


@contextmanager
def running(
    model: str,
    *,
    workers: int = 1,
    null: bool = False,
    forward_ms: float | None = None,
    env: Mapping[str, str] | None = None,
) -> Iterator[Service]:
    """model: smallest or large (random weights, large: DPT-Large's shape), demo, or as MASKQ_MODEL.

    null: the forward is free.
    forward_ms: what forward and mask take of another device's time, for each image.
    env: of the workers.
    """
    with tempfile.TemporaryDirectory(prefix="maskq-bench-") as name:
        folder = Path(name)
        command = [sys.executable, "-m", "bench.scenarios.worker"]
        if null:
            command += ["--null"]
        if forward_ms is not None:
            command += ["--forward-ms", str(forward_ms)]
        for what in ["requests"] if null or forward_ms is not None else ["batches"]:
            (folder / what).mkdir()
            command += [f"--{what}", str(folder / what)]
        path = checkpoint(model, folder)
        stack = Stack(
            folder / "stack",
            workers=workers,
            model=path,
            env={"PYTHONPATH": _python_path(), **(env or {})},
            worker_command=command,
        )
        with stack, environment(stack.environment), Client.from_env() as client:
            ledger = Ledger(stack.redis.url, client.key_prefix)
            try:
                yield Service(stack, client, ledger, path, folder)
            finally:
                ledger.close()


def checkpoint(model: str, folder: Path) -> str:
    """What MASKQ_MODEL must be; the random checkpoints are written into `folder`."""
    if model == "smallest":
        return str(write_smallest(folder / model))
    if model == "large":
        return str(write_large(folder / "dpt-large"))
    return model


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """This process's environment, for as long as a stack is up."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _python_path() -> str:
    """Children import `bench`, wherever this was started."""
    there = os.environ.get("PYTHONPATH")
    return os.pathsep.join([str(ROOT), there] if there else [str(ROOT)])


def _lines(folder: Path) -> list[str]:
    return [line for file in sorted(folder.glob("*")) for line in file.read_text().splitlines()]
