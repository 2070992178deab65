"""Fleets of real workers with a model of milliseconds, and what happens to them. `make chaos`."""

from __future__ import annotations

import io
import os
import signal
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from bench.checkpoints import write_smallest
from PIL import Image

from maskq import Client, Event, JobRecord, JobStatus
from maskq_standalone.stack import Stack
from maskq_standalone.workers import Worker

LEASE_S = 5.0
TERMINAL = {f"maskq.job.{state}" for state in ("succeeded", "failed", "canceled", "expired")}
IMAGE = Image.new("RGB", (64, 48), "teal")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.chaos)
            item.add_marker(pytest.mark.timeout(1200))


class Fleet:
    """A stack, a client of it, and the hand that kills."""

    def __init__(self, stack: Stack, client: Client) -> None:
        self.stack = stack
        self.client = client

    def stored_image(self) -> str:
        """Where an image is that jobs of every tenant may read: outside the deployment's own prefix."""
        buffer = io.BytesIO()
        IMAGE.save(buffer, "PNG")
        bucket = self.client.settings.s3_bucket
        store = self.stack.s3.client()
        store.put_object(Bucket=bucket, Key="photos/photo.png", Body=buffer.getvalue())
        return f"s3://{bucket}/photos/photo.png"

    def kill_and_replace(self, worker: Worker) -> None:
        """SIGKILL; the next process starts at once, as an orchestrator has it."""
        worker.child.kill()
        worker.start()

    def replace(self, worker: Worker) -> int:
        """SIGTERM, wait for the drain, start the next; the old one's exit code."""
        os.kill(worker.pid, signal.SIGTERM)
        worker.child.wait_ended(60)
        code = worker.child.returncode
        worker.start()
        worker.wait_ready(120)
        assert code is not None
        return code

    def held_by(self, worker: Worker) -> list[JobRecord]:
        running = self.client.list(status=JobStatus.RUNNING, limit=1000).records
        return [one for one in running if one.owner and one.owner.endswith(f":{worker.pid}")]

    def records(self) -> list[JobRecord]:
        found: list[JobRecord] = []
        cursor = ""
        while True:
            page = self.client.list(limit=1000, cursor=cursor)
            found += page.records
            if not (cursor := page.cursor):
                return found

    def wait_until(self, ready: Callable[[], bool], within_s: float) -> None:
        end = time.monotonic() + within_s
        while not ready():
            assert time.monotonic() < end, Counter(one.status for one in self.records())
            time.sleep(0.1)

    def events(self) -> list[Event]:
        return list(self.client.events(since="0", idle=0.5))

    def one_terminal_event_each(self, job_ids: Sequence[str]) -> None:
        ends = Counter(one.subject for one in self.events() if one.type in TERMINAL)
        assert ends == dict.fromkeys(job_ids, 1)


@contextmanager
def fleet_of(
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    workers: int,
    worker_command: Sequence[str] | None = None,
    **settings: object,
) -> Iterator[Fleet]:
    model = write_smallest(directory / "smallest")
    env = {"MASKQ_LEASE_S": str(LEASE_S)} | {
        f"MASKQ_{name.upper()}": str(value) for name, value in settings.items()
    }
    with Stack(
        workers=workers, pinned=True, model=str(model), env=env, worker_command=worker_command
    ) as stack:
        for name, value in stack.environment.items():
            monkeypatch.setenv(name, value)
        with Client.from_env() as client:
            yield Fleet(stack, client)


def distribution(what: str, seconds: Sequence[float]) -> str:
    if not seconds:
        return f"{what}: none"
    ordered = sorted(seconds)
    p90 = ordered[min(len(ordered) - 1, int(0.9 * len(ordered)))]
    return (
        f"{what}: n={len(ordered)}  min {ordered[0]:.2f}  median {statistics.median(ordered):.2f}  "
        f"p90 {p90:.2f}  max {ordered[-1]:.2f} s"
    )
